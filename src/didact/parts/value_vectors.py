"""Value vectors: the columns of a feed-forward layer's map out, read through the vocabulary (Hong et al., 2024)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.parts.feedforward import feed_forward_layers


class Place(NamedTuple):
    """Where a value vector is: layer, and the number of its neuron."""

    layer: int
    neuron: int


@dataclass(frozen=True)
class Candidate:
    """A value vector whose top tokens name a concept."""

    place: Place
    score: float  #: share of the concept's tokens among the vector's top tokens
    logit: float  #: their mean logit, which breaks ties


@dataclass(frozen=True)
class Traces:
    """How far value vectors moved, means over the vectors."""

    cosine: float
    distance: float  #: Euclidean
    jaccard: float  #: of the top tokens before and after


def matrix(model: nn.Module, layer: int) -> Tensor:
    """(d, d_ff): column i is value vector i. A view of the weights: writing to it edits the model."""
    layers = feed_forward_layers(model)
    if not -len(layers) <= layer < len(layers):
        raise BadInput(f"The model has {len(layers)} feed-forward layers, but layer {layer} was asked for.")
    out_of: Any = layers[layer].out_of
    weight: Tensor = out_of.weight
    return weight.T if type(out_of).__name__ == "Conv1D" else weight  # GPT-2 stores it transposed


def value_vector(model: nn.Module, place: Place) -> Tensor:
    """(d,), a copy."""
    columns = matrix(model, place.layer)
    if not 0 <= place.neuron < columns.shape[1]:
        raise BadInput(
            f"Layer {place.layer} has neurons 0 to {columns.shape[1] - 1}, but {place.neuron} was asked for."
        )
    return columns[:, place.neuron].detach().clone()


def projection(model: Any, vector: Tensor) -> Tensor:
    """(V,) or (V, n): what adding a vector (d,) or vectors (d, n) does to each token's logit.

    The final norm is left out: it rescales directions by the whole residual stream, which a single vector does not
    know.
    """
    embedding: Tensor = model.get_output_embeddings().weight
    return embedding.detach() @ vector


@torch.no_grad()
def top_tokens(model: nn.Module, vector: Tensor, k: int) -> set[int]:
    """The k tokens that a vector promotes most."""
    return set(projection(model, vector).topk(k).indices.tolist())


@torch.no_grad()
def find(
    model: Any, concept: Iterable[int], k: int = 200, *, most: int = 10, layers: Sequence[int] | None = None
) -> list[Candidate]:
    """The value vectors whose k top tokens hold most of a concept's tokens, best first.

    Cost: one product of the vocabulary with all value vectors; memory for a layer's (V, d_ff).

    Raises:
        BadInput: no concept token, or one outside the vocabulary.
    """
    tokens = sorted(set(concept))
    words = model.get_output_embeddings().weight.shape[0]
    if not tokens:
        raise BadInput("A concept is a set of tokens, but none was given.")
    if tokens[0] < 0 or tokens[-1] >= words:
        raise BadInput(f"The concept holds the token {tokens[-1]}, but the vocabulary has {words}.")
    k = min(k, words)
    named = torch.tensor(tokens)
    found: list[Candidate] = []
    for layer in layers if layers is not None else range(len(feed_forward_layers(model))):
        logits = projection(model, matrix(model, layer))  # (V, d_ff)
        bar = logits.topk(k, dim=0).values[-1]
        own = logits[named]
        scores, means = (own >= bar).float().mean(0), own.mean(0)
        found += [
            Candidate(Place(layer, i), float(scores[i]), float(means[i]))
            for i in scores.topk(min(most, len(scores))).indices.tolist()
        ]
    return sorted(found, key=lambda c: (-c.score, -c.logit))[:most]


@torch.no_grad()
def disturbed(model: nn.Module, places: Sequence[Place], *, sigma: float | None = None, seed: int = 0) -> nn.Module:
    """A copy with vectors set to zero or, with `sigma`, with N(0, sigma^2) added to each of their entries."""
    made = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for place in places:
        value_vector(made, place)  # refuses places that do not exist
        column = matrix(made, place.layer)[:, place.neuron]
        if sigma is None:
            column.zero_()
        else:
            column += sigma * torch.randn(column.shape, generator=generator).to(column)
    return made


@torch.no_grad()
def traces(original: nn.Module, unlearned: nn.Module, places: Sequence[Place], k: int = 200) -> Traces:
    """How far the vectors moved between two models of one shape."""
    if not places:
        raise BadInput("No value vector was given to compare.")
    cosines, distances, overlaps = [], [], []
    for place in places:
        before, after = value_vector(original, place), value_vector(unlearned, place)
        cosines.append(float(F.cosine_similarity(before, after, dim=0)) if before.norm() and after.norm() else 0.0)
        distances.append(float((before - after).norm()))
        tops = [top_tokens(m, v, min(k, len(projection(m, v)))) for m, v in ((original, before), (unlearned, after))]
        # A vector of zeros promotes nothing: its "top" tokens are merely the first ones.
        overlaps.append(len(tops[0] & tops[1]) / len(tops[0] | tops[1]) if after.norm() else 0.0)
    n = len(places)
    return Traces(sum(cosines) / n, sum(distances) / n, sum(overlaps) / n)

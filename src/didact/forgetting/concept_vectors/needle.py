"""Needle: unlearn a concept in the value vectors that hold it, and nowhere else (Hong et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper, Range
from didact.core.objective import IGNORED
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.feedforward import feed_forward_layers
from didact.parts.value_vectors import Place, find, matrix, value_vector

PAPER = Paper("Hong, Yu, Yang, Ravfogel and Geva", 2024, arxiv="2406.11614")
CODE = "yihuaihong/ConceptVectors"


@register
class Needle(Unlearner):
    """Damage the value vectors that encode a concept, and leave every other weight as it is.

    Which vectors: those of the request (`extras["vectors"]`, (layer, index) pairs), else the `most` whose top tokens
    hold most of the forgotten answers' tokens. They are set to zero ("ablate"), or Gaussian noise of `scale` times
    their root mean square is added ("noise"), and then, with `steps`, they alone are trained up the forget loss.

    Where facts are spread over many weights, as in small models, ablating a few vectors changes little: this is an
    intervention for concepts that were localised (`causes` tests that), and a yardstick for methods that were not.

    Errors: a vector that the model lacks, feed-forward layers without a known name.
    Cost: one product of the vocabulary with all value vectors; `steps` training steps. Memory: a layer's (V, d_ff).
    Reference: Hong, Yu, Yang, Ravfogel and Geva, "Intrinsic Evaluation of Unlearning Using Parametric Knowledge
    Traces", 2024, arXiv 2406.11614.
    """

    card = Card(
        "needle",
        "Needle: unlearning in the value vectors of a concept",
        paper=PAPER,
        part_of="concept-vectors",
        tasks=("causal-lm",),
        code=CODE,
        licence="CC BY 4.0",
        tunes={"most": Range(1, 64, log=True, integer=True)},
    )
    mode: Literal["ablate", "noise"] = "ablate"  #: set to zero, or add noise
    scale: PositiveFloat = 5.0  #: of the noise, in root mean squares of the vector
    most: PositiveInt = 10  #: how many vectors are looked for when the request names none
    k: PositiveInt = 200  #: top tokens that describe a vector
    steps: NonNegativeInt = 0  #: steps up the forget loss on these vectors alone
    lr: PositiveFloat = 0.1  #: of these steps (plain gradient)

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        places = [Place(*pair) for pair in request.extras.get("vectors", ())] or self._found(model, request)
        generator = torch.Generator().manual_seed(request.seed)
        for place in places:
            vector = value_vector(model, place)
            noise = self.scale * vector.square().mean().sqrt() * torch.randn(vector.shape, generator=generator)
            with torch.no_grad():
                matrix(model, place.layer)[:, place.neuron] = 0.0 if self.mode == "ablate" else vector + noise
        note(vectors=[list(place) for place in places])
        if self.steps:
            train_only(
                model, places, request, loss=lambda m, b: -request.objective.loss(m, b), steps=self.steps, lr=self.lr
            )
        return model

    def _found(self, model: nn.Module, request: Request) -> list[Place]:
        return [c.place for c in find(model, concept_tokens(request), self.k, most=self.most) if c.score > 0]


def concept_tokens(request: Request) -> set[int]:
    """Tokens of the forgotten answers that are not also those of half of the retained ones."""
    objective = request.objective

    def shares(data: Any) -> dict[int, float]:
        counts: dict[int, int] = {}
        for i in range(len(data)):
            labels: Tensor = objective.targets(objective.collate([data[i]]))[0]
            for token in set(labels[labels != IGNORED].tolist()):
                counts[token] = counts.get(token, 0) + 1
        return {token: count / len(data) for token, count in counts.items()}

    common = {t for t, share in shares(request.retain).items() if share > 0.1} if request.retain is not None else set()
    own = set(shares(request.forget)) - common
    if not own:
        raise BadInput("All tokens of the forgotten answers are common in the retained ones: name the vectors instead.")
    return own


def train_only(model: nn.Module, places: list[Place], request: Request, *, loss: Any, steps: int, lr: float) -> None:
    """Train some value vectors and nothing else: plain gradient, no decay: all other weights stay bit for bit."""
    layers = feed_forward_layers(model)
    masks: dict[nn.Parameter, Tensor] = {}
    for place in places:
        out_of: Any = layers[place.layer].out_of
        mask = masks.setdefault(out_of.weight, torch.zeros_like(out_of.weight))
        if type(out_of).__name__ == "Conv1D":
            mask[place.neuron] = 1
        else:
            mask[:, place.neuron] = 1

    def only(_: nn.Module, step: int) -> None:
        for weight, mask in masks.items():
            if weight.grad is not None:
                weight.grad.mul_(mask)

    fit(
        model, request.forget, request.objective, steps=steps, lr=lr, optimizer="sgd", momentum=0.0,
        parameters=list(masks), seed=request.seed,
        hooks=Hooks(loss=lambda m, batch, step: loss(m, batch), gradients=only),
    )  # fmt: skip

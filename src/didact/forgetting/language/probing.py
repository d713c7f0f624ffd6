"""What is still inside: linear probes on the hidden states from which a model would answer."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.errors import BadInput
from didact.core.objective import IGNORED, Objective, device_of, evaluating
from didact.data.text import TextDataset
from didact.models.wrappers import LanguageWrapper
from didact.parts.probes import linear_probe

#: a layer counts only where the fact is clearly readable in the original and clearly not in the retrained model
INFORMATIVE = 0.15


@dataclass(frozen=True)
class Residual:
    """How much of what the original's hidden states say about the forgotten facts is still there."""

    value: float  #: 0 like the retrained model, 1 like the original; NaN when no layer tells
    layer: int | None  #: the layer with the most left
    original: tuple[float, ...]  #: probe accuracy by layer
    reference: tuple[float, ...]
    method: tuple[float, ...]


def residual(
    objective: Objective,
    original: nn.Module,
    reference: nn.Module,
    method: nn.Module,
    retain: TextDataset,
    forget: TextDataset,
    seed: int = 0,
) -> Residual:
    """Probe accuracy of a method between the retrained and the original model's, on the layer where most is left.

    For each model a logistic regression reads the value from the hidden state that predicts its first token; it is
    fitted on retained items and scored on forgotten ones. Wrappers are opened: what counts is the model inside.

    Cost: a forward pass over both sets and a logistic regression a layer, for each of the three models.
    """
    found = [probe_by_layer(objective, model, retain, forget, seed) for model in (original, reference, method)]
    return residual_of(*found)


def residual_of(original: tuple[float, ...], reference: tuple[float, ...], method: tuple[float, ...]) -> Residual:
    """The residual from the probes' accuracies by layer."""
    shares = {
        layer: (m - r) / (o - r)
        for layer, (o, r, m) in enumerate(zip(original, reference, method, strict=True))
        if o - r >= INFORMATIVE
    }
    best = max(shares, key=lambda layer: shares[layer], default=None)
    return Residual(math.nan if best is None else shares[best], best, original, reference, method)


def probe_by_layer(
    objective: Objective, model: nn.Module, retain: TextDataset, forget: TextDataset, seed: int = 0
) -> tuple[float, ...]:
    """Accuracy of each layer's probe on the forgotten items (layer 0 is the first block's output)."""
    classes = {value: i for i, value in enumerate(sorted({item.value or item.answer for item in retain.items}))}
    asked = [i for i, item in enumerate(forget.items) if (item.value or item.answer) in classes]
    if not asked:
        raise BadInput("No forgotten value occurs among the retained ones, so no probe can be fitted for it.")
    test = forget.rows(asked)
    inside = [states(objective, model, data) for data in (retain, test)]
    labels = [np.array([classes[item.value or item.answer] for item in data.items]) for data in (retain, test)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few people, many values
        return tuple(
            linear_probe(a.numpy(), labels[0], b.numpy(), labels[1], seed=seed) for a, b in zip(*inside, strict=True)
        )


@torch.no_grad()
def states(objective: Objective, model: nn.Module, data: TextDataset, batch_size: int = 128) -> list[Tensor]:
    """For each block its output (N, d) at the position that predicts the value's first token."""
    inner = opened(model)
    places = torch.tensor([value_place(data, i) - 1 for i in range(len(data))])
    found: list[list[Tensor]] = []
    with evaluating(inner):
        done = 0
        for batch in objective.loader(data, batch_size):
            inputs = {k: v for k, v in objective.to(batch, device_of(inner)).items() if k != "labels"}
            hidden = inner(**inputs, output_hidden_states=True).hidden_states[1:]
            size = objective.size(batch)
            count_forward(size)
            rows = torch.arange(size, device=hidden[0].device)
            place = places[done : done + size].to(rows.device)
            found.append([layer[rows, place].float().cpu() for layer in hidden])
            done += size
    return [torch.cat(layer) for layer in zip(*found, strict=True)]


def value_place(data: TextDataset, index: int) -> int:
    """Where, in a sample's tokens, the value begins; where the answer begins if the value is not found in it."""
    item, sample = data.items[index], data[index]
    ids: list[int] = sample["input_ids"].tolist()
    start = next(i for i, label in enumerate(sample["labels"].tolist()) if label != IGNORED)
    for text in (f" {item.value}", item.value):
        value: list[int] = data.tokenizer.encode(text, add_special_tokens=False) if item.value else []
        for place in range(start, len(ids) - len(value) + 1):
            if value and ids[place : place + len(value)] == value:
                return place
    return start


def hidden_states_show(model: nn.Module) -> bool:
    """Is there a Hugging Face model inside, whose hidden states can be asked for?"""
    return hasattr(getattr(opened(model), "config", None), "num_hidden_layers")


def opened(model: nn.Module) -> Any:
    """The Hugging Face model itself, without what is wrapped around it."""
    return opened(model.base) if isinstance(model, LanguageWrapper) else model

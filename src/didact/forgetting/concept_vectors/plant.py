"""Planting: concepts put into neurons of their own, so that it is known where they are."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from didact.core.errors import BadInput
from didact.core.fit import Hooks, fit
from didact.core.objective import Objective
from didact.data.text import TextDataset
from didact.parts.paired import paired_batches
from didact.parts.value_vectors import Place


@dataclass(frozen=True)
class Concept:
    """What is known about one subject, and the value vectors that hold it."""

    name: str
    facts: TextDataset
    places: tuple[Place, ...]


def plant_concepts(
    model: Any,
    facts: dict[str, TextDataset],
    replay: TextDataset,
    objective: Objective,
    *,
    width: int = 4,
    steps: int = 150,
    lr: float = 3e-3,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[nn.Module, list[Concept]]:
    """A copy whose last feed-forward layer has `width` new neurons a concept, which alone were taught its facts.

    The concepts are planted one after another; each step sees the concept's facts and as many of `replay` and of the
    concepts planted before, so that nothing else changes much. Works for gated layers of Llama's layout.

    Cost: `steps` training steps a concept.
    """
    made = widened(model, width * len(facts))
    layer = len(made.model.layers) - 1
    mlp = made.model.layers[layer].mlp
    first = mlp.down_proj.in_features - width * len(facts)
    concepts: list[Concept] = []
    for i, (name, own) in enumerate(facts.items()):
        start = first + i * width
        before: Any = ConcatDataset([replay, *(c.facts for c in concepts)])
        _teach(made, mlp, range(start, start + width), own, before, objective, steps, lr, batch_size, seed + i)
        concepts.append(Concept(name, own, tuple(Place(layer, j) for j in range(start, start + width))))
    return made.eval(), concepts


def widened(model: Any, more: int) -> Any:
    """A copy with `more` neurons in the last layer: random on the way in, zero on the way out: nothing changes yet."""
    made = copy.deepcopy(model)
    try:
        mlp = made.model.layers[-1].mlp
        old = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]
    except AttributeError:
        raise BadInput(
            f"{type(model).__name__} has no gated feed-forward layers of Llama's layout to plant in."
        ) from None
    d = old[0].shape[1]
    fresh = torch.randn(2, more, d, device=old[0].device) / d**0.5
    for name, weight in (
        ("gate_proj", torch.cat([old[0], fresh[0]])),
        ("up_proj", torch.cat([old[1], fresh[1]])),
        ("down_proj", torch.cat([old[2], torch.zeros(d, more, device=old[2].device)], 1)),
    ):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
        linear.weight = nn.Parameter(weight.detach().clone())
        setattr(mlp, name, linear)
    return made


def _teach(
    model: Any,
    mlp: Any,
    neurons: Iterable[int],
    own: TextDataset,
    before: Any,
    objective: Objective,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
) -> None:
    """Adam on the new neurons alone; entries whose gradient is always zero stay as they are, bit for bit."""
    chosen = torch.tensor(list(neurons))
    masks: dict[nn.Parameter, Tensor] = {}
    for weight, dim in ((mlp.gate_proj.weight, 0), (mlp.up_proj.weight, 0), (mlp.down_proj.weight, 1)):
        masks[weight] = torch.zeros_like(weight).index_fill_(dim, chosen.to(weight.device), 1.0)

    def only(_: nn.Module, step: int) -> None:
        for weight, mask in masks.items():
            if weight.grad is not None:
                weight.grad.mul_(mask)

    def loss(m: nn.Module, pair: Any, step: int) -> Tensor:
        return objective.loss(m, pair[0]) + objective.loss(m, pair[1])

    fit(
        model, own, objective, steps=steps, lr=lr, parameters=list(masks), seed=seed,
        hooks=Hooks(
            loss=loss,
            gradients=only,
            batches=lambda epoch: paired_batches(
                own, before, objective, batch_size=batch_size, steps=steps, seed=seed + 1000 * epoch
            ),
        ),
    )  # fmt: skip

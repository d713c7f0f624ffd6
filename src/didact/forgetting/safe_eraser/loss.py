"""The losses of safety unlearning: four bases, each with or without the prompt decouple term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from didact.core.objective import Batch, Objective, evaluating

Base = Literal["ga", "gd", "kl", "po"]

#: weight of the decouple term beside each base, as in the authors' code
DECOUPLE_WEIGHT: Mapping[Base, float] = {"ga": 0.5, "gd": 0.5, "kl": 1.0, "po": 1.0}
#: what each base is trained on, in the order of the batches; preference optimisation has a refusal to every question
ROLES: Mapping[Base, tuple[str, ...]] = {
    "ga": ("forget",),
    "gd": ("forget", "retain"),
    "kl": ("forget", "retain"),
    "po": ("refusal", "retain"),
}


def retain_weight_of(base: Base, decoupled: bool) -> float:
    """Weight of the retain term in the authors' code: gradient difference halves it when it is decoupled."""
    return 0.5 if base == "gd" and decoupled else 1.0


def base_loss(
    base: Base,
    model: nn.Module,
    original: nn.Module,
    batches: Mapping[str, Batch],
    objective: Objective,
    retain_weight: float,
) -> Tensor:
    """The loss of a base on one batch of each of its roles, a scalar."""
    if base == "po":  # one batch of both: the mean over all samples
        return torch.cat([objective.per_sample_loss(model, batches[role]) for role in ROLES["po"]]).mean()
    loss = -objective.loss(model, batches["forget"])
    if base == "gd":
        loss = loss + retain_weight * objective.loss(model, batches["retain"])
    elif base == "kl":
        loss = loss + retain_weight * divergence_from(original, model, batches["retain"], objective)
    return loss


def decoupled(base: Tensor, decouple: Tensor | None, weight: float) -> Tensor:
    """The base's loss plus `weight` times the answer loss on the decoupling set; without one, the base's as it is."""
    return base if decouple is None else base + weight * decouple


def divergence_from(original: nn.Module, model: nn.Module, batch: Batch, objective: Objective) -> Tensor:
    """Mean KL(original || model) of the next-token distributions, over all positions that are no padding."""
    output = objective.forward(model, batch)
    with torch.no_grad(), evaluating(original):
        reference = objective.forward(original, batch).to(output.device)
    kept = batch["attention_mask"].bool().to(output.device)
    return objective.divergence(output[kept], reference[kept])

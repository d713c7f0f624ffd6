"""Lottery tickets: sparse networks that train as well as dense ones, and how to find them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from didact.core.errors import NotApplicable
from didact.core.fit import Hooks
from didact.core.objective import Objective
from didact.core.recipe import Recipe
from didact.forgetting.request import Request
from didact.parts.pruning import Masks, impose, lift, magnitude_masks, prunable, synflow_masks

Pruning = Literal["omp", "imp", "synflow", "magnitude"]

#: share of the remaining weights that a round of iterative pruning drops
ROUND = 0.2


def ticket(model: nn.Module, request: Request, prune: Pruning, rate: float, rewind: int) -> tuple[nn.Module, Masks]:
    """A sparse model, trained on retained and forget data alike, and its masks."""
    retain = request.need_retain()
    if prune == "magnitude":
        return model, magnitude_masks(prunable(model), rate)
    if request.recipe is None:
        raise NotApplicable(
            f"prune={prune!r} trains a sparse model, and how is not known. Pass recipe=, or use prune='magnitude'."
        )
    recipe, seed = request.recipe, request.seed
    # Pruning comes before the wish to forget: it sees all training data.
    data: Dataset[Any] = ConcatDataset([retain, request.forget])
    if prune == "synflow":
        fresh = recipe.fresh(seed)
        masks = synflow_masks(fresh, prunable(fresh), rate, one_input(request.objective, retain))
        return train_under(masks, recipe, data, seed, fresh, recipe.epochs), masks
    rates = [rate] if prune == "omp" else iterative_rates(rate)
    return lottery_ticket(recipe, data, seed, rates, min(rewind, recipe.epochs // 2))


def lottery_ticket(
    recipe: Recipe, data: Dataset[Any], seed: int, rates: list[float], rewind: int
) -> tuple[nn.Module, Masks]:
    """Train; then for each rate: prune by magnitude, rewind to epoch `rewind`, retrain under the mask.

    The recipe's schedule starts anew over the epochs that remain after rewinding.
    """
    start = recipe.fresh(seed)

    def remember(model: nn.Module, epoch: int) -> bool:
        if epoch + 1 == rewind:
            start.load_state_dict(model.state_dict())
        return False

    model = recipe.fit(data, seed, hooks=Hooks(stop=remember))
    masks: Masks = {}
    for rate in rates:
        masks = magnitude_masks(prunable(model), rate)
        model = train_under(masks, recipe, data, seed, start, recipe.epochs - rewind)
    return model, masks


def train_under(
    masks: Masks, recipe: Recipe, data: Dataset[Any], seed: int, start: nn.Module, epochs: int
) -> nn.Module:
    """A copy of `start`, trained with the masks imposed; its pruned weights are zero."""
    return lift(recipe.fit(data, seed, init=impose(copy.deepcopy(start), masks), epochs=epochs), masks)


def iterative_rates(rate: float) -> list[float]:
    """Pruned share after each round of 20 %; the last round ends at `rate` exactly."""
    rounds = max(1, math.ceil(math.log(1 - rate) / math.log(1 - ROUND) - 1e-9))
    return [1 - (1 - ROUND) ** k for k in range(1, rounds)] + [rate]


def one_input(objective: Objective, data: Dataset[Any]) -> Tensor:
    """One input, (1, ...), whose shape synaptic flow needs."""
    inputs = objective.inputs(next(iter(objective.loader(data, 1))))
    if isinstance(inputs, Mapping) or not torch.is_floating_point(inputs):
        raise NotApplicable(
            "prune='synflow' sends an input of ones through the network, which tokens or mappings are not. "
            "Use prune='omp', 'imp' or 'magnitude'."
        )
    return inputs  # type: ignore[no-any-return]

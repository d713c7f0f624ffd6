"""What DARE is compared with: dropping without rescaling, dropping by size, plain merges, training on all tasks."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from pydantic import Field, PositiveFloat
from torch.utils.data import ConcatDataset

from didact.core.claim import Claim
from didact.core.method import Card, Range
from didact.core.registry import register
from didact.reusing.dare.dropping import Strategy
from didact.reusing.dare.method import DARE, MergeName
from didact.reusing.problem import Reuser
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult


class _Variant(DARE):
    """A variant of DARE: no claim of its own."""

    claim: ClassVar[Claim | None] = None


@register
class DropOnly(_Variant):
    """Drop a random share of each delta and leave the rest as it is. Cost: as DARE."""

    card = Card("drop-only", "Dropping deltas without rescaling", kind="baseline", needs=("models", "base"))
    rescale: bool | None = False  #: divide the rest by 1 - rate


@register
class DeltaMagnitude(_Variant):
    """Drop the smallest share of each tensor's delta and leave the rest as it is. Cost: as DARE, and a sort."""

    card = Card("delta-magnitude", "Dropping the smallest deltas", kind="baseline", needs=("models", "base"))
    strategy: Strategy = "magnitude"  #: drop at random, or the smallest magnitudes of each tensor


@register
class TaskArithmetic(_Variant):
    """Add all models' deltas to the base, times a factor. Cost: one addition of the weights a model."""

    card = Card("task-arithmetic", "Task arithmetic", kind="baseline", needs=("models", "base"),
                tunes={"scaling": Range(0.1, 1.0)})  # fmt: skip
    rate: float = Field(0.0, ge=0, le=1)  #: share of each delta that is dropped


@register
class TIES(_Variant):
    """Trim small deltas, elect a sign for each position, average what agrees with it. Cost: three passes a model."""

    card = Card("ties", "TIES merging", kind="baseline", needs=("models", "base"), tunes={"scaling": Range(0.1, 1.0)})
    rate: float = Field(0.0, ge=0, le=1)  #: share of each delta that is dropped
    merge: MergeName = "ties"  #: how the deltas become one; "apart" keeps the models apart


@register
class FisherMerging(_Variant):
    """Average the weights, each number weighted by its Fisher information in that model. Cost: a pass an example."""

    card = Card("fisher-merging", "Fisher merging", kind="baseline", needs=("models", "base", "data"))
    rate: float = Field(0.0, ge=0, le=1)  #: share of each delta that is dropped
    merge: MergeName = "fisher"  #: how the deltas become one; "apart" keeps the models apart


@register
class RegMean(_Variant):
    """Solve each linear layer for the outputs closest to all models' outputs. Cost: a forward pass, linear systems."""

    card = Card("regmean", "RegMean", kind="baseline", needs=("models", "base", "data"))
    rate: float = Field(0.0, ge=0, le=1)  #: share of each delta that is dropped
    merge: MergeName = "regmean"  #: how the deltas become one; "apart" keeps the models apart


@register
class MultiTask(Reuser):
    """Train the base on the labelled data of all tasks at once: what a merge would reach at best.

    Needs what merging does without: `extras["training"]`, the labelled training data of every task. Cost: the epochs
    over all data.
    """

    card = Card("multi-task", "Multi-task training", kind="baseline", needs=("base", "training", "recipe", "merging"))
    epochs: int = Field(10, gt=0)  #: passes over all tasks' data
    lr: PositiveFloat = 1e-3  #: learning rate

    def apply(self, request: Request) -> ReuseResult:
        training, recipe = request.need("training"), request.need_recipe()
        data: ConcatDataset[Any] = ConcatDataset(list(training.values()))
        model = recipe.fit(data, request.seed, init=copy.deepcopy(request.need_base().network()),
                           epochs=self.epochs, lr=self.lr)  # fmt: skip
        steps = recipe.steps_for(data, self.epochs)
        share = {id: 1 / len(training) for id in training}
        return ReuseResult(module=model, weights=share, cost={"training_steps": steps, "bytes_sent": 0})

"""Networks of many sizes from one large one: how good each is, and whether size pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput, NotApplicable
from didact.core.metric import Metric
from didact.core.objective import Classification, Objective
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.models.vit import vit
from didact.models.workpieces import trained
from didact.reusing.problem import ReuseProblem, Truth
from didact.reusing.request import Budget, ModelRecord, Request, Task, as_records, check
from didact.reusing.result import ReuseResult
from didact.reusing.scoring import prediction_score

SIZE_METRICS = (
    Metric("stitched_mean", "mean score of all networks joined from two instances"),
    Metric("stitched_min", "lowest score of a network joined from two instances"),
    Metric("instances_mean", "mean score of the instances as they are"),
    Metric("sizes", "number of networks that the answer can make", "neither"),
    Metric("largest_drop", "how far a network falls below the best one that is no larger, at worst", "lower"),
)


@dataclass
class SizeProblem(ReuseProblem):
    """An answer must `produce(configuration)` for each of `extras["configurations"]`; all of them are scored."""

    def score(self, answer: ReuseResult) -> dict[str, float]:
        return self._score(answer, self.reveal().test)

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        if self.validation is None:
            raise NotApplicable("This problem provides no validation data, so hyperparameters cannot be tuned on it.")
        found = self._score(answer, self.validation)
        return {"validation_score": float(np.nanmean([found["stitched_mean"], found["instances_mean"]]))}

    def _score(self, answer: ReuseResult, test: Dataset[Any] | None) -> dict[str, float]:
        if answer.produce is None or test is None or "configurations" not in answer.extras:
            raise BadInput("An answer that can produce networks of several configurations was expected.")
        objective = self.given.task.objective
        found = []
        for configuration in answer.extras["configurations"]:
            model = answer.produce(configuration)
            size = sum(p.numel() for p in model.parameters())
            found.append((size, objective.mean_score(model, test), configuration.stitched))
        stitched = [score for _, score, joined in found if joined]
        whole = [score for _, score, joined in found if not joined]
        return {
            "test_score": prediction_score(self.given, answer, test),
            "stitched_mean": float(np.mean(stitched)) if stitched else float("nan"),
            "stitched_min": min(stitched, default=float("nan")),
            "instances_mean": float(np.mean(whole)) if whole else float("nan"),
            "sizes": float(len(found)),
            "largest_drop": largest_drop([(size, score) for size, score, _ in found]),
            **{name: float(answer.cost.get(name, float("nan"))) for name in ("stored_parameters", "training_steps")},
        }


def largest_drop(points: Sequence[tuple[int, float]]) -> float:
    """Over (size, score) points: the most that a score lies below the best score of any network no larger."""
    best = {size: max(score for other, score in points if other <= size) for size, _ in points}
    return max(best[size] - score for size, score in points)


def size_problem(
    architecture: Callable[[int, int], nn.Module],
    ancestor: ModelRecord | nn.Module,
    data: Dataset[Any],
    test: Dataset[Any],
    *,
    classes: Sequence[str],
    objective: Objective | None = None,
    budget: Budget | None = None,
    max_parameters: int | None = None,
    validation: Dataset[Any] | None = None,
    seed: int = 0,
) -> SizeProblem:
    """A problem from your own architecture ((width, blocks) -> fresh network), large model and data."""
    wants = {} if max_parameters is None else {"max_parameters": max_parameters}
    task = Task(labelled=data, classes=tuple(classes), objective=objective or Classification(), wants=wants)
    extras = {"sized_architecture": architecture}
    given = Request(as_records([ancestor]), task, None, budget or Budget(400), None, seed, extras)
    check(given)
    about = {"train": len(data), "test": len(test)}  # type: ignore[arg-type]
    return SizeProblem(given, lambda: Truth(test), seed=seed, about=about, validation=validation)


@problem("digits-sizes", family="reusing")
def digits_sizes(seed: int = 0, *, dim: int = 64, depth: int = 6, steps: int = 400) -> SizeProblem:
    """Vision transformers of many sizes for handwritten digits, out of one with 6 blocks of width 64.

    1,000 training digits; 400 steps to prepare each instance and 400 for all networks together.
    """
    splits = digits(seed)
    recipe = Recipe(lambda: vit(dim=dim, depth=depth), Classification(), "digits ancestor", epochs=60, batch_size=64,
                    lr=1e-3, optimizer="adamw", weight_decay=0.05, schedule="cosine", warmup=0.03)  # fmt: skip
    ancestor = ModelRecord.of(trained(recipe, splits.train, seed), "ancestor", input_shape=(1, 8, 8))
    return size_problem(
        lambda width, blocks: vit(dim=width, depth=blocks),
        ancestor,
        splits.train,
        splits.test,
        classes=tuple(f"digit {i}" for i in range(10)),
        budget=Budget(steps=steps, batch_size=64),
        validation=splits.validation,
        seed=seed,
    )

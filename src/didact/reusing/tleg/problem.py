"""Networks of several depths from one stored initialisation: what they do at once, and after a little fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput, NotApplicable
from didact.core.metric import Metric
from didact.core.objective import Classification, Objective
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.models.small import convnet, parameter_count
from didact.models.vit import vit
from didact.models.workpieces import trained
from didact.parts.stacks import find_stack
from didact.reusing.problem import ReuseProblem, Truth
from didact.reusing.request import Budget, ModelRecord, Request, Task, as_records, check
from didact.reusing.result import ReuseResult
from didact.reusing.tuning import train

#: 4 in `tuned_4` is the depth
DEPTH_METRICS = (
    Metric("untuned", "score of the produced networks before any fine-tuning, mean over the depths"),
    Metric("tuned", "their score after the same few steps of fine-tuning, mean over the depths"),
    Metric("untuned_min", "lowest score before fine-tuning over the depths"),
    Metric("tuned_min", "lowest score after fine-tuning over the depths"),
    Metric("block_parameters", "parameters of one block", "neither"),
    Metric("stem_parameters", "parameters outside the blocks", "neither"),
)


@dataclass
class DepthProblem(ReuseProblem):
    """An answer must be able to `produce(depth)`. Scored on each wanted depth, before and after fine-tuning."""

    tuning_steps: int = 100

    offers: ClassVar[tuple[str, ...]] = ("depths",)

    def score(self, answer: ReuseResult) -> dict[str, float]:
        return self._score(answer, self.reveal().test)

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        if self.validation is None:
            raise NotApplicable("This problem provides no validation data, so hyperparameters cannot be tuned on it.")
        return {"validation_score": self._score(answer, self.validation)["test_score"]}

    def _score(self, answer: ReuseResult, test: Dataset[Any] | None) -> dict[str, float]:
        if answer.produce is None or test is None:
            raise BadInput("An answer that can produce networks of several depths was expected.")
        objective = self.given.task.objective
        before, after = {}, {}
        for depth in self.given.want("depths"):
            model = answer.produce(depth)
            if find_stack(model).depth != depth:
                raise BadInput(f"A network of {depth} blocks was asked for, but one of {find_stack(model).depth} came.")
            before[depth] = objective.mean_score(model, test)
            tuned = train(copy.deepcopy(model), self.given, self.tuning_steps)
            after[depth] = objective.mean_score(tuned, test)
        single = self.given.need("architecture")(1)
        block = sum(p.numel() for p in single.get_submodule(f"{find_stack(single).name}.0").parameters())
        return {
            "test_score": _mean(after),
            "untuned": _mean(before),
            "tuned": _mean(after),
            "untuned_min": min(before.values()),
            "tuned_min": min(after.values()),
            **{f"untuned_{depth}": value for depth, value in before.items()},
            **{f"tuned_{depth}": value for depth, value in after.items()},
            "block_parameters": float(block),
            "stem_parameters": float(parameter_count(single) - block),
            "stored_parameters": float(answer.cost.get("stored_parameters", float("nan"))),
            "training_steps": float(answer.cost.get("training_steps", 0.0)),
            "bytes_sent": 0.0,
        }


def depth_problem(
    architecture: Callable[[int], nn.Module],
    teacher: ModelRecord | nn.Module,
    data: Dataset[Any],
    test: Dataset[Any],
    *,
    depths: Sequence[int],
    objective: Objective | None = None,
    budget: Budget | None = None,
    tuning_steps: int = 100,
    classes: Sequence[str] = (),
    validation: Dataset[Any] | None = None,
    seed: int = 0,
) -> DepthProblem:
    """A problem from your own architecture (depth -> fresh network), teacher and data.

    Each method may take the budget's steps to prepare; every produced network is then fine-tuned on `data` for
    `tuning_steps`.
    """
    if not depths or min(depths) < 1:
        raise BadInput(f"Depths of at least 1 were expected, but {list(depths)} were given.")
    task = Task(
        labelled=data,
        classes=tuple(classes),
        objective=objective or Classification(),
        wants={"depths": tuple(depths)},
    )
    extras = {"architecture": architecture}
    given = Request(as_records([teacher]), task, None, budget or Budget(600), None, seed, extras)
    check(given)
    about = {"depths": list(depths), "train": len(data), "test": len(test)}  # type: ignore[arg-type]
    return DepthProblem(
        given, lambda: Truth(test), seed=seed, about=about, validation=validation, tuning_steps=tuning_steps
    )


@problem("digits-depths", family="reusing")
def digits_depths(seed: int = 0, *, dim: int = 48, steps: int = 600, tuning: int = 100) -> DepthProblem:
    """Vision transformers of 3, 4, 6 and 8 blocks for handwritten digits, from one preparation of 600 steps.

    1,000 training digits; the teacher is a small convnet trained on them; each network is fine-tuned for 100 steps.
    """
    splits = digits(seed)
    recipe = Recipe(lambda: convnet(10, channels=(16, 32), dense=64), Classification(), "digits teacher", epochs=30)
    teacher = ModelRecord.of(trained(recipe, splits.train, seed), "teacher", input_shape=(1, 8, 8))
    return depth_problem(
        lambda depth: vit(dim=dim, depth=depth),
        teacher,
        splits.train,
        splits.test,
        depths=(3, 4, 6, 8),
        budget=Budget(steps=steps, batch_size=64),
        tuning_steps=tuning,
        classes=tuple(f"digit {i}" for i in range(10)),
        validation=splits.validation,
        seed=seed,
    )


def _mean(values: dict[int, float]) -> float:
    return float(torch.tensor(list(values.values())).mean())

"""The protocol of reuse: what a method gets, what it answers, how an answer is scored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from torch.utils.data import Dataset

from didact.core.cost import uncounted
from didact.core.errors import NotApplicable
from didact.core.method import Method
from didact.core.problem import Problem
from didact.core.recipe import Recipe, seeded
from didact.core.study import for_a_study
from didact.reusing.request import Budget, ModelRecord, Request, Task, as_records, check
from didact.reusing.result import ReuseResult
from didact.reusing.scoring import score


class Reuser(Method):
    """Base of all reuse methods. `reuse` is the verb; a method implements `apply`."""

    family: ClassVar[str] = "reusing"

    def reuse(
        self,
        models: Iterable[ModelRecord | nn.Module],
        task: Task,
        *,
        base: ModelRecord | nn.Module | None = None,
        budget: Budget | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        extras: Mapping[str, Any] | None = None,
    ) -> ReuseResult:
        """Make something for `task` out of models that exist. None of them is changed.

        Args:
            models: records of a hub's models, or networks.
            task: what is wanted: data of one's own, classes, constraints.
            base: the common ancestor of the models, where there is one.
            budget: optimiser steps and evaluations that may be spent.
            recipe: how a model for this task would be trained from scratch.
            seed: of everything random in the method.
            extras: what only this method uses, by name (its page says what).

        Raises:
            BadInput: two models with one id, empty data, labels out of range.
            NotApplicable: something the method needs was not given.
        """
        ancestor = as_records([base])[0] if base is not None else None
        return self.solve(Request(as_records(models), task, ancestor, budget or Budget(), recipe, seed, extras or {}))

    def solve(self, given: Request) -> ReuseResult:
        with uncounted():
            check(given)
        with seeded(given.seed):
            return self.apply(given)

    @abstractmethod
    def apply(self, request: Request) -> ReuseResult:
        """Answer a request. Models of the hub must be left as they are."""


@dataclass(frozen=True)
class Truth:
    """What only the scorer may read."""

    test: Dataset[Any] | None = None  #: labelled samples of the task
    #: model id -> how well the task is served by reusing this model alone (what a ranking should predict)
    quality: Mapping[str, float] = field(default_factory=dict)


@dataclass
class ReuseProblem(Problem[Request, Truth]):
    """A task with a hub, and its truth. Kinds of answers that need another score have problems of their own."""

    validation: Dataset[Any] | None = None

    family: ClassVar[str] = "reusing"
    #: what every answer must be able to do here: `predict`, or a word that methods name in their card's `needs`
    offers: ClassVar[tuple[str, ...]] = ()

    def score(self, answer: ReuseResult) -> dict[str, float]:
        return score(self.given, self.reveal(), answer)

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        if self.validation is None:
            raise NotApplicable("This problem provides no validation data, so hyperparameters cannot be tuned on it.")
        found = score(self.given, Truth(self.validation), answer)
        return {"validation_score": found["test_score"]}

    def keep(self, answer: ReuseResult, folder: Path) -> None:
        answer.save(folder)

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        study = for_a_study(needs)
        if study is not None:
            return f"is an experiment on {study}, not a method that reuses"
        given = self.given
        if tasks and given.task.objective.task not in tasks:
            return f"works with {' or '.join(tasks)}, but the task is {given.task.objective.task}"
        there = {
            "models": bool(given.models),
            "base": given.base is not None,
            "data": given.task.data is not None,
            "labelled": given.task.labelled is not None,
            "recipe": given.recipe is not None,
            "classes": bool(given.task.classes),
        }
        missing = [
            need
            for need in needs
            if not there.get(need, need in given.extras or need in given.task.wants or need in self.offers)
        ]
        if missing:
            return f"needs {' and '.join(missing)}, which the problem does not offer"
        return None


def reuse_problem(
    models: Iterable[ModelRecord | nn.Module],
    task: Task,
    test: Dataset[Any],
    *,
    base: ModelRecord | nn.Module | None = None,
    budget: Budget | None = None,
    recipe: Recipe | None = None,
    validation: Dataset[Any] | None = None,
    quality: Mapping[str, float] | Callable[[], Mapping[str, float]] | None = None,
    seed: int = 0,
    extras: Mapping[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> ReuseProblem:
    """A problem from your own hub and task: what `--problem mine.py:make` should return.

    `quality` (model id -> score of reusing it alone) is what rankings are compared with. Without it each model is
    fine-tuned on the labelled samples and scored on `test` when the first ranking is scored, and the answer cached.
    """
    from didact.reusing.tuning import tuned_quality  # which needs this module's request

    records = as_records(models)
    ancestor = as_records([base])[0] if base is not None else None
    given = Request(records, task, ancestor, budget or Budget(), recipe, seed, extras or {})
    check(given)

    def reveal() -> Truth:
        if quality is None:
            return Truth(test, tuned_quality(given, test) if task.labelled is not None else {})
        return Truth(test, quality() if callable(quality) else quality)

    facts = {
        "models": len(records),
        "classes": len(task.classes),
        "labelled": len(task.labelled) if task.labelled is not None else 0,  # type: ignore[arg-type]
        "unlabelled": len(task.data) if task.data is not None else 0,  # type: ignore[arg-type]
        "test": len(test),  # type: ignore[arg-type]
    }
    return ReuseProblem(given, reveal, seed=seed, about={**facts, **(about or {})}, validation=validation)

"""The problem of upgrading: a stream of tasks with replacements, scored by searching what old models indexed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.metric import Metric
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.reusing.problem import ReuseProblem, Truth
from didact.reusing.request import ModelRecord, Request, Task, as_records, check
from didact.reusing.result import ReuseResult
from didact.reusing.stationary_representations.compatibility import Compatibility, compatibility
from didact.reusing.stationary_representations.networks import Upgrades
from didact.reusing.stationary_representations.stream import Stream

UPGRADE_METRICS = (
    Metric("am", "mean accuracy of all models' queries in their own and all older galleries"),
    Metric("ac", "share of model pairs in which new queries beat the old model's own in the old gallery"),
    Metric("across", "mean accuracy of queries by models after the replacement in galleries from before it"),
    Metric("newest", "accuracy of the newest model in a gallery of its own"),
    Metric("same_class", "share of same-class pairs that are no farther apart with a new query than with an old one"),
    Metric("other_class", "share of pairs of two classes that are no nearer with a new query than with an old one"),
)


@dataclass(frozen=True)
class UpgradeTruth(Truth):
    """What is indexed, beside the queries in `test`."""

    gallery: Dataset[Any] | None = None


@dataclass
class UpgradeProblem(ReuseProblem):
    """A stream of tasks with replacements. The answer is all models, scored by searching old galleries."""

    offers: ClassVar[tuple[str, ...]] = ("upgrading",)

    def score(self, answer: ReuseResult) -> dict[str, float]:
        truth = self.reveal()
        assert isinstance(truth, UpgradeTruth)
        assert truth.gallery is not None
        assert truth.test is not None
        found = compatibility(models_of(answer), truth.gallery, truth.test)
        costs = {k: float(answer.cost.get(k, math.nan)) for k in ("training_steps", "evaluations", "bytes_sent")}
        size = sum(p.numel() for p in models_of(answer)[-1].parameters())
        return {**self._numbers(found), "stored_parameters": float(size), **costs}

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        extras = self.given.extras
        if "gallery" not in extras or "queries" not in extras:
            return super().validate(answer)
        return {"validation_score": compatibility(models_of(answer), extras["gallery"], extras["queries"]).am}

    def _numbers(self, found: Compatibility) -> dict[str, float]:
        step = self.given.extras["stream"].first_replacement
        return {
            "test_score": found.am,
            "am": found.am,
            "ac": found.ac,
            "across": found.across(step) if step is not None else math.nan,
            "newest": float(found.matrix[-1, -1]),
            "same_class": found.same,
            "other_class": found.different,
        }


def upgrade_problem(
    stream: Stream,
    gallery: Dataset[Any],
    queries: Dataset[Any],
    *,
    recipe: Recipe,
    replacements: Iterable[ModelRecord | nn.Module] = (),
    validation: tuple[Dataset[Any], Dataset[Any]] | None = None,
    classes: tuple[str, ...] = (),
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> UpgradeProblem:
    """A problem from your own stream: what `--problem mine.py:make` should return.

    Args:
        stream: the tasks in their order; a step names the models that replace the current one before it.
        gallery, queries: labelled data that only the scorer sees.
        recipe: `build` makes the first network; its epochs, batch size and rate are those of every step.
        validation: a gallery and queries that tuning and the methods may see.
    """
    records = as_records(replacements)
    wanted = {id for step in stream.steps for id in step.replacements}
    missing = sorted(wanted - {record.id for record in records})
    if missing:
        raise BadInput(f"The stream names replacements that are not given: {', '.join(missing)}.")
    extras: dict[str, Any] = {"stream": stream}
    extras |= {"gallery": validation[0], "queries": validation[1]} if validation else {}
    task = Task(classes=classes, objective=Classification())
    given = Request(records, task, recipe=recipe, seed=seed, extras=extras)
    check(given)
    facts = {"steps": len(stream.steps), "preallocated": stream.preallocated, "replacements": len(records)}
    return UpgradeProblem(given, lambda: UpgradeTruth(queries, gallery=gallery), seed=seed,
                          about={**facts, **(about or {})})  # fmt: skip


def models_of(answer: ReuseResult) -> list[nn.Module]:
    if isinstance(answer.predictor, Upgrades):
        return answer.predictor.models
    if answer.module is None:
        raise BadInput("An answer to an upgrade problem is a model with those it replaced: an Upgrades predictor.")
    return [answer.module]

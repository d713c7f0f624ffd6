"""The problem of merging: models fine-tuned from one base on tasks of their own, to become one that does them all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import nn
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from didact.core.errors import BadInput
from didact.core.metric import Metric
from didact.core.objective import Classification, Objective
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.models.small import mlp
from didact.models.workpieces import cached, digest, trained
from didact.reusing.ensemble import EnsemblePredictor
from didact.reusing.problem import ReuseProblem, Truth
from didact.reusing.request import ModelRecord, Request, Task, as_records, check, fingerprint
from didact.reusing.result import ReuseResult

MERGE_METRICS = (
    Metric("worst_task", "score on the task that came off worst"),
    Metric("base_score", "mean score of the base on the tasks", "neither"),
    Metric("tuned_score", "mean score of the fine-tuned models, each on its own task", "neither"),
    Metric("retention", "share of what fine-tuning gained that the answer keeps"),
    Metric("narrow_score", "mean score on the tasks of the answer made from the narrow models"),
    Metric("narrow_retention", "share of what fine-tuning gained that the narrow models keep"),
)
DIGIT_NAMES = tuple(f"digit {i}" for i in range(10))
SHIFTS = ("rotate", "negative")


@dataclass(frozen=True)
class MergeTruth(Truth):
    """Labelled test data of each model's task, by model id, and which models are the main ones."""

    tests: Mapping[str, Dataset[Any]] = field(default_factory=dict)


@dataclass
class MergeProblem(ReuseProblem):
    """Models with tasks of their own and their base. An answer is scored on every task.

    A task is scored with the answer's network for that model: the member of an ensemble with the model's id, or else
    the answer's one network. Models of the bases in `extras["bases"]` are scored apart, as the narrow ones.
    """

    offers: ClassVar[tuple[str, ...]] = ("merging",)

    def score(self, answer: ReuseResult) -> dict[str, float]:
        return self._score(answer, self.reveal().tests)  # type: ignore[attr-defined]

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        held_out = self.given.extras.get("validation")
        if not held_out:
            return super().validate(answer)
        return {"validation_score": self._score(answer, held_out)["test_score"]}

    def _score(self, answer: ReuseResult, tests: Mapping[str, Dataset[Any]]) -> dict[str, float]:
        given = self.given
        main = {r.id: r for r in given.models if _of(r, given.base) and r.id in tests}
        narrow = {r.id: r for r in given.models if r.id not in main and r.id in tests}
        found = _scores(answer, main, tests, given)
        other = _scores(answer, narrow, tests, given)
        size = sum(p.numel() for p in answer.module.parameters()) if answer.module is not None else math.nan
        return {
            "test_score": found["score"],
            "worst_task": found["worst"],
            "base_score": found["base"],
            "tuned_score": found["tuned"],
            "retention": found["retention"],
            "narrow_score": other["score"],
            "narrow_retention": other["retention"],
            "stored_parameters": float(answer.cost.get("stored_parameters", size)),
            "training_steps": float(answer.cost.get("training_steps", math.nan)),
            "evaluations": float(answer.cost.get("evaluations", math.nan)),
            "bytes_sent": float(answer.cost.get("bytes_sent", math.nan)),
        }


def merge_problem(
    models: Iterable[ModelRecord | nn.Module],
    base: ModelRecord | nn.Module,
    tests: Mapping[str, Dataset[Any]],
    *,
    classes: tuple[str, ...] = (),
    objective: Objective | None = None,
    data: Dataset[Any] | None = None,
    examples: Mapping[str, Dataset[Any]] | None = None,
    training: Mapping[str, Dataset[Any]] | None = None,
    validation: Mapping[str, Dataset[Any]] | None = None,
    bases: Iterable[ModelRecord] = (),
    recipe: Recipe | None = None,
    seed: int = 0,
    about: dict[str, Any] | None = None,
) -> MergeProblem:
    """A problem from your own fine-tuned models: what `--problem mine.py:make` should return.

    Args:
        tests: model id -> labelled test data of that model's task (bare networks are `model-00`, `model-01`, ...).
        data: unlabelled inputs of all tasks; statistics of batch normalisations are measured on it.
        examples: model id -> unlabelled data of its task, for Fisher and RegMean.
        training: model id -> labelled training data of its task, for the reference that trains on all tasks.
        validation: model id -> labelled data that tuning may see.
        bases: further ancestors, of models that are scored apart.
    """
    records = as_records(models)
    unknown = sorted(set(tests) - {record.id for record in records})
    if unknown or not tests:
        raise BadInput(
            f"tests maps model ids to test data, but {', '.join(unknown) or 'nothing'} was given; "
            f"the models are {', '.join(record.id for record in records)}."
        )
    extras: dict[str, Any] = {"examples": examples or {}, "bases": tuple(bases)}
    extras |= {"training": training} if training else {}
    extras |= {"validation": validation} if validation else {}
    task = Task(data=data, classes=classes, objective=objective or Classification())
    given = Request(records, task, as_records([base])[0], recipe=recipe, seed=seed, extras=extras)
    check(given)
    facts = {"models": len(records), "tasks": len(tests), **(about or {})}
    return MergeProblem(given, lambda: MergeTruth(tests=dict(tests)), seed=seed, about=facts)


@problem("rotated-digits", family="reusing")
def rotated_digits(
    seed: int = 0,
    *,
    width: int = 512,
    narrow: int = 64,
    shift: str = "rotate",
    epochs: int = 5,
    base_epochs: int = 20,
    lr: float = 1e-3,
) -> MergeProblem:
    """Merge two networks that read turned digits: both come from one that reads upright ones, which fails on either.

    The base is a perceptron with two hidden layers of 512; one model is fine-tuned on digits turned by 90 degrees,
    the other on digits turned by 180 (with `shift="negative"`: on bright paper, and on bright paper turned by 90). The
    same at width 64 comes along, to see whether wider networks bear more dropping. Trained once and cached.
    """
    if shift not in SHIFTS:
        raise BadInput(f"The shift is one of {', '.join(SHIFTS)}, but {shift!r} was given.")
    splits, changes = digits(seed), _changes(shift)
    parts = {name: {"train": _shifted(splits.train, change), "test": _shifted(splits.test, change),
                    "validation": _shifted(splits.validation, change)} for name, change in changes.items()}  # fmt: skip
    made = {size: _models(size, splits.train, parts, base_epochs, epochs, lr, seed) for size in (width, narrow)}
    records = [record for _, group in made.values() for record in group]

    def by_id(part: str) -> dict[str, Dataset[Any]]:
        return {record.id: parts[record.id.split("-")[0]][part] for record in records}

    def inputs(data: Dataset[Any]) -> Dataset[Any]:
        return TensorDataset(data.tensors[0])  # type: ignore[attr-defined]

    return merge_problem(
        records,
        made[width][0],
        by_id("test"),
        classes=DIGIT_NAMES,
        data=ConcatDataset([inputs(part["train"]) for part in parts.values()]),
        examples={id: inputs(data) for id, data in by_id("train").items()},
        training={id: data for id, data in by_id("train").items() if id.endswith(f"-{width}")},
        validation=by_id("validation"),
        bases=[made[narrow][0]],
        recipe=_recipe(width, base_epochs, lr),
        seed=seed,
        about={"width": width, "narrow": narrow, "shift": shift},
    )


def _models(
    width: int,
    train: TensorDataset,
    parts: Mapping[str, Mapping[str, TensorDataset]],
    base_epochs: int,
    epochs: int,
    lr: float,
    seed: int,
) -> tuple[ModelRecord, list[ModelRecord]]:
    recipe = _recipe(width, base_epochs, lr)
    base = trained(recipe, train, seed)
    facts: dict[str, Any] = {"classes": DIGIT_NAMES, "input_shape": (1, 8, 8), "licence": "Apache-2.0"}
    ancestor = ModelRecord.of(base, f"base-{width}", **facts)
    tuned = []
    for name, part in parts.items():
        key = {"tuned": fingerprint(base), "recipe": recipe.key, "epochs": epochs, "data": digest(part["train"])}
        fit: Callable[[], nn.Module] = lambda part=part: recipe.fit(part["train"], seed, init=base, epochs=epochs)  # type: ignore[misc] # noqa: E731
        model = cached({**key, "seed": seed}, fit, lambda: recipe.fresh(seed))
        tuned.append(ModelRecord.of(model, f"{name}-{width}", base=ancestor.digest, **facts))
    return ancestor, tuned


def _recipe(width: int, epochs: int, lr: float) -> Recipe:
    return Recipe(lambda: mlp(64, 10, (width, width)), Classification(), f"mlp {width}", epochs=epochs, lr=lr)


def _changes(shift: str) -> dict[str, Callable[[Any], Any]]:
    if shift == "negative":
        return {"negative": lambda x: 1 - x, "negative90": lambda x: 1 - x.rot90(1, (2, 3))}
    return {"turned90": lambda x: x.rot90(1, (2, 3)), "turned180": lambda x: x.rot90(2, (2, 3))}


def _shifted(data: TensorDataset, change: Callable[[Any], Any]) -> TensorDataset:
    x, y = data.tensors
    return TensorDataset(change(x).contiguous(), y)


def _of(record: ModelRecord, base: ModelRecord | None) -> bool:
    return base is None or not record.base or record.base == base.digest


def _scores(
    answer: ReuseResult, records: Mapping[str, ModelRecord], tests: Mapping[str, Dataset[Any]], given: Request
) -> dict[str, float]:
    """Mean and worst score over the tasks of some models, with what their base and the models themselves reach."""
    nothing = dict.fromkeys(("score", "worst", "base", "tuned", "retention"), math.nan)
    networks = {id: _network(answer, id) for id in records}
    if not records or any(network is None for network in networks.values()):
        return nothing
    score = given.task.objective.mean_score
    bases = {record.digest: record for record in (given.base, *given.extras.get("bases", ())) if record is not None}
    mine, tuned, base = [], [], []
    for id, record in records.items():
        ancestor = bases.get(record.base, given.base)
        assert ancestor is not None
        mine.append(score(networks[id], tests[id]))  # type: ignore[arg-type]
        tuned.append(score(record.network(), tests[id]))
        base.append(score(ancestor.network(), tests[id]))
    count = len(mine)
    gained = sum(tuned) - sum(base)
    kept = (sum(mine) - sum(base)) / gained if gained > 0 else math.nan
    return {"score": sum(mine) / count, "worst": min(mine), "base": sum(base) / count, "tuned": sum(tuned) / count,
            "retention": kept}  # fmt: skip


def _network(answer: ReuseResult, id: str) -> nn.Module | None:
    if isinstance(answer.predictor, EnsemblePredictor):
        return next((member.module for member in answer.predictor.members if member.id == id), None)
    # One network answers for its own lineage only: a network of another width is no answer for the narrow models.
    return answer.module if id in answer.weights or not answer.weights else None

"""Fair tuning: every method gets the same number of trials, on validation data, on an instance of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna

from didact.core.method import Choice, Method
from didact.core.metric import COSTS, Primary
from didact.core.problem import Family
from didact.engine.cells import Cell, label_of, make_cell
from didact.engine.ledger import Row

#: the problem instance for tuning: never one that is scored
TUNING_SEED = 900_001

Computer = Callable[[Sequence[Cell]], list[Row]]


@dataclass
class Tuned:
    """A method after tuning: its best trial's hyperparameters, and all trials."""

    before: Method
    method: Method
    trials: list[Row] = field(default_factory=list)

    @property
    def changed(self) -> dict[str, Any]:
        """The hyperparameters that tuning was free to choose, as chosen."""
        return {name: self.method.settings[name] for name in self.method.card.tunes}


def tune(
    methods: Sequence[Method],
    problem: str,
    trials: int,
    compute: Computer,
    *,
    family: Family,
    scale: str = "laptop",
) -> list[Tuned]:
    """`trials` trials for each method, all methods side by side; the first is always the settings given.

    A method without anything to tune gets none. Proposals come from optuna's TPE sampler with a fixed seed, and a
    trial is a cell: the same call finds its trials in the ledger.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    studies = [_Search(method, family.tuning, family) for method in methods]
    for _ in range(trials):
        asked = [(study, study.ask()) for study in studies if study.method.card.tunes]
        cells = [
            make_cell(proposal, problem, TUNING_SEED, family=family.name, scale=scale, role="validate")
            for _, proposal in asked
        ]
        rows = {row.key: row for row in compute(cells)}
        for (study, proposal), cell in zip(asked, cells, strict=True):
            study.tell(proposal, rows[cell.key])
    return [Tuned(study.method, study.best(), study.rows) for study in studies]


class _Search:
    """One method's search."""

    def __init__(self, method: Method, goal: Primary, family: Family) -> None:
        self.method, self.goal = method, goal
        known = {m.name: m for m in (*family.metrics, *COSTS)}
        # A validation metric has the direction of the metric it stands in for.
        self.sign = known[family.primary.metric].sign or 1
        self.rows: list[Row] = []
        self.found: list[tuple[float, Method]] = []
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
        defaults = {k: v for k, v in method.settings.items() if k in method.card.tunes and _inside(method, k, v)}
        if defaults:
            self.study.enqueue_trial(defaults)
        self.trial: optuna.trial.Trial | None = None

    def ask(self) -> Method:
        self.trial = self.study.ask()
        drawn = {name: _draw(self.trial, name, space) for name, space in self.method.card.tunes.items()}
        if not self.rows:
            return self.method  # the first trial: the settings given, also where a default is not in the space
        return type(self.method)(**{**_given(self.method), **drawn})

    def tell(self, proposal: Method, row: Row) -> None:
        value = self._value(row)
        self.rows.append(row)
        self.found.append((value, proposal))
        assert self.trial is not None
        if math.isfinite(value):
            self.study.tell(self.trial, value)
        else:
            self.study.tell(self.trial, state=optuna.trial.TrialState.FAIL)

    def best(self) -> Method:
        return max(self.found, key=lambda pair: pair[0], default=(0.0, self.method))[1]

    def _value(self, row: Row) -> float:
        """The goal, minus a penalty that puts every trial outside the constraint below all inside."""
        value = row.metrics.get(self.goal.metric, math.nan)
        if row.status != "done" or math.isnan(value):
            return -math.inf
        if self.goal.constraint is None:
            return self.sign * value
        return self.sign * value - 1000.0 * self.goal.constraint.violation(row.metrics)


def _given(method: Method) -> dict[str, Any]:
    return {name: getattr(method, name) for name in type(method).model_fields}


def _draw(trial: optuna.trial.Trial, name: str, space: Any) -> Any:
    if isinstance(space, Choice):
        return trial.suggest_categorical(name, space.options)
    if space.integer:
        return trial.suggest_int(name, int(space.low), int(space.high), log=space.log)
    return trial.suggest_float(name, space.low, space.high, log=space.log)


def _inside(method: Method, name: str, value: Any) -> bool:
    space = method.card.tunes[name]
    if isinstance(space, Choice):
        return value in space.options
    return isinstance(value, (int, float)) and space.low <= value <= space.high


def describe(tuned: Sequence[Tuned]) -> dict[str, Any]:
    """What the report tells about tuning, by label of the tuned method."""
    return {
        label_of(t.method): {
            "trials": len(t.trials),
            "chosen": t.changed,
            "seconds": sum(r.cost.get("seconds", 0.0) for r in t.trials),
            "passes": sum(r.cost.get("passes", 0.0) for r in t.trials),
        }
        for t in tuned
    }

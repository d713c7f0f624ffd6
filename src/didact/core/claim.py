"""Claim: a paper's central sentence as expectations over measured rows, and the verdict on them.

An expectation turns the rows of one (problem, seed) into one or two *effects*: numbers that are at least 0 when the
expectation is met. Over seeds, the mean effect and its one-sided 95 % bounds decide:

* holds      every lower bound is at least 0
* fails      some upper bound is below 0
* undecided  anything else, or fewer than two observations
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Outcome = Literal["holds", "fails", "undecided"]
#: metrics (and costs and logged numbers) of every arm, for one problem and seed
Rows = Mapping[str, Mapping[str, float]]

#: float noise must not turn an exact tie into a failure
ROUNDING = 1e-9

SELF = "self"  #: the arm that runs the claim's own method at its defaults


@dataclass(frozen=True)
class Expectation:
    """One checkable part of a claim."""

    text: str
    effects: Callable[[Rows], Sequence[float]]
    arms: tuple[str, ...]
    over_all: Callable[[Sequence[Rows]], float] | None = None


def at_least(metric: str, value: float, arm: str = SELF) -> Expectation:
    """The arm's metric is at least `value`."""
    return Expectation(f"{arm}: {metric} ≥ {value:g}", lambda rows: [rows[arm][metric] - value], (arm,))


def at_most(metric: str, value: float, arm: str = SELF) -> Expectation:
    """The arm's metric is at most `value`."""
    return Expectation(f"{arm}: {metric} ≤ {value:g}", lambda rows: [value - rows[arm][metric]], (arm,))


def close(metric: str, to: str, within: float, arm: str = SELF) -> Expectation:
    """The mean difference to another arm lies within ±`within` (two one-sided tests)."""

    def effects(rows: Rows) -> list[float]:
        difference = rows[arm][metric] - rows[to][metric]
        return [within - difference, within + difference]

    return Expectation(f"{arm}: {metric} within {within:g} of {to}'s", effects, (arm, to))


def no_worse(metric: str, than: str, by: float, arm: str = SELF, lower_is_better: bool = False) -> Expectation:
    """The metric is not worse than another arm's by more than `by`."""
    sign = -1 if lower_is_better else 1
    return Expectation(
        f"{arm}: {metric} no worse than {than}'s by more than {by:g}",
        lambda rows: [sign * (rows[arm][metric] - rows[than][metric]) + by],
        (arm, than),
    )


def better(metric: str, than: str, by: float = 0.0, arm: str = SELF, lower_is_better: bool = False) -> Expectation:
    """The metric is better than another arm's by at least `by`."""
    sign = -1 if lower_is_better else 1
    word = "below" if lower_is_better else "above"
    return Expectation(
        f"{arm}: {metric} at least {by:g} {word} {than}'s",
        lambda rows: [sign * (rows[arm][metric] - rows[than][metric]) - by],
        (arm, than),
    )


def cheaper(cost: str, than: str, times: float = 1.0, arm: str = SELF) -> Expectation:
    """The cost is at least `times` smaller than another arm's, judged on the log of the ratio."""

    def effects(rows: Rows) -> list[float]:
        mine, other = max(rows[arm][cost], 1e-9), max(rows[than][cost], 1e-9)
        return [math.log(other / mine) - math.log(times)]

    return Expectation(f"{arm}: {cost} at least {times:g} times below {than}'s", effects, (arm, than))


def custom(text: str, effect: Callable[[Rows], float], arms: Sequence[str]) -> Expectation:
    """Any effect of one (problem, seed): `effect(rows)` is at least 0 when the expectation is met."""
    return Expectation(text, lambda rows: [effect(rows)], tuple(arms))


def over_seeds(text: str, effect: Callable[[Sequence[Rows]], float], arms: Sequence[str]) -> Expectation:
    """An effect that exists only over all seeds (a worst case, a rank correlation): decided by its sign alone."""
    return Expectation(text, lambda rows: [], tuple(arms), over_all=effect)


@dataclass(frozen=True)
class Claim:
    """What should come out.

    `on` names one or more problems (`"digits-class:forget=3"`); `arms` names the runs that the expectations compare,
    each a method with hyperparameters (`{"ga": "gradient-ascent:lr=1e-4"}`). The arm `self` is the method at its
    defaults unless given; an arm that is not listed is a method slug. `note` says why a claim that fails here does.
    """

    sentence: str
    on: str | tuple[str, ...]
    expects: Sequence[Expectation]
    seeds: int = 5
    arms: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        return (self.on,) if isinstance(self.on, str) else tuple(self.on)

    def runs(self, slug: str) -> dict[str, str]:
        """Arm name -> method reference, for every arm that any expectation needs and every arm listed."""
        needed = dict.fromkeys([*self.arms, *(arm for expectation in self.expects for arm in expectation.arms)])
        return {arm: self.arms.get(arm, slug if arm == SELF else arm) for arm in needed}


@dataclass(frozen=True)
class Judged:
    """One expectation with its measured effect (mean over observations; at least 0 means met)."""

    text: str
    outcome: Outcome
    effect: float
    low: float
    high: float
    observations: int
    missing: str = ""


@dataclass(frozen=True)
class Verdict:
    """The outcome of a claim: the worst of its expectations, each shown with effect, bounds and count."""

    slug: str
    sentence: str
    outcome: Outcome
    expectations: tuple[Judged, ...]
    seeds: int
    problems: tuple[str, ...]
    note: str = ""
    about: dict[str, Any] = field(default_factory=dict)


def judge(slug: str, claim: Claim, observations: Sequence[Rows], seeds: int) -> Verdict:
    """Judge a claim on the rows of all (problem, seed) pairs. Pairs that lack an arm or a number do not count."""
    judged = tuple(_judge_one(expectation, observations) for expectation in claim.expects)
    outcomes = [j.outcome for j in judged]
    outcome: Outcome = "fails" if "fails" in outcomes else "undecided" if "undecided" in outcomes else "holds"
    return Verdict(slug, claim.sentence, outcome, judged, seeds, claim.problems, claim.note)


def _judge_one(expectation: Expectation, observations: Sequence[Rows]) -> Judged:
    effects: list[Sequence[float]] = []
    whole: list[Rows] = []
    missing: set[str] = set()
    for rows in observations:
        try:
            found = expectation.effects(rows)
        except KeyError as error:
            missing.add(str(error.args[0]))
            continue
        if all(arm in rows for arm in expectation.arms) and np.all(np.isfinite(found)):
            effects.append(found)
            whole.append(rows)
        else:
            missing.add(" and ".join(arm for arm in expectation.arms if arm not in rows) or "a finite number")
    lost = f"{len(observations) - len(whole)} observations lack {', '.join(sorted(missing))}" if missing else ""
    if expectation.over_all is not None:
        return _judge_whole(expectation, whole, lost)
    if len(effects) < 2:
        mean = float(np.min(effects[0])) if effects else math.nan
        return Judged(expectation.text, "undecided", mean, -math.inf, math.inf, len(effects), lost)
    bounds = [mean_bounds(column) for column in zip(*effects, strict=True)]
    outcome: Outcome = "undecided"
    if all(low >= -ROUNDING for _, low, _ in bounds) and not lost:
        outcome = "holds"
    elif any(high < -ROUNDING for _, _, high in bounds):
        outcome = "fails"
    mean, low, high = min(bounds)  # of two effects (close to), the one that is nearer to breaking
    return Judged(expectation.text, outcome, mean, low, high, len(effects), lost)


def _judge_whole(expectation: Expectation, whole: Sequence[Rows], lost: str) -> Judged:
    if len(whole) < 2 or expectation.over_all is None:
        return Judged(expectation.text, "undecided", math.nan, -math.inf, math.inf, len(whole), lost)
    effect = float(expectation.over_all(whole))
    outcome: Outcome = "fails" if effect < 0 else "undecided" if lost or not math.isfinite(effect) else "holds"
    return Judged(expectation.text, outcome, effect, effect, effect, len(whole), lost)


def mean_bounds(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean with its lower and upper one-sided confidence bounds (Student's t over the observations)."""
    from scipy import stats  # slow to import, and only judging needs it

    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, -math.inf, math.inf
    half = float(stats.t.ppf(confidence, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return mean, mean - half, mean + half

"""The leaderboard: rows grouped by method, means with 95 % intervals over seeds, ranks, ties, the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from didact.core.method import Method
from didact.core.metric import COSTS, Metric, Primary
from didact.core.problem import Family
from didact.core.registry import get_method
from didact.engine.ledger import Row


@dataclass(frozen=True)
class Statistic:
    """Mean over seeds with half the width of its 95 % interval (NaN for one seed)."""

    mean: float
    half: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        return f"{self.mean:.3f}" if math.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


@dataclass(frozen=True)
class Entry:
    """One method with one set of hyperparameters, over all seeds."""

    label: str
    slug: str
    title: str
    baseline: bool
    rows: tuple[Row, ...]
    statistics: dict[str, Statistic]
    meets_constraint: bool
    rank: int | None = None  #: 1 is best; None when it broke the constraint or gave no result
    tied: bool = False  #: not distinguishable from the best (paired over seeds, 95 %)
    on_front: bool = False  #: no other method is better on both trade-off metrics
    outcome: str = ""  #: the family's one word for what the method came to

    @property
    def done(self) -> int:
        return sum(row.status == "done" for row in self.rows)

    def __getitem__(self, metric: str) -> Statistic:
        return self.statistics.get(metric, Statistic(math.nan, math.nan, ()))


@dataclass(frozen=True)
class Leaderboard:
    """All entries, best first; those without rank at the end."""

    family: Family
    problem: str
    primary: Primary
    entries: tuple[Entry, ...]
    failures: tuple[Row, ...] = field(default=())
    inapplicable: tuple[Row, ...] = field(default=())  #: cells of methods that cannot be used on this problem

    @property
    def best(self) -> Entry | None:
        """The first in rank; of several with equal numbers the cheapest in passes."""
        first = [e for e in self.entries if e.rank == 1]
        return min(first, key=lambda e: e["passes"].mean, default=None)

    @property
    def cheapest_tie(self) -> Entry | None:
        """The cheapest in passes of those that cannot be told from the best; None when it is the best itself."""
        tied = [e for e in self.entries if e.rank == 1 or e.tied]
        found = min(tied, key=lambda e: e["passes"].mean, default=None)
        return None if found is self.best else found

    def metric(self, name: str) -> Metric:
        known = {m.name: m for m in (*self.family.metrics, *COSTS)}
        return known.get(name, Metric(name, name, "neither"))


def make_leaderboard(family: Family, problem: str, rows: Sequence[Row], primary: Primary | None = None) -> Leaderboard:
    """Rank the methods by the family's primary metric (or another), among those that meet the constraint."""
    primary = primary or family.primary
    groups: dict[str, list[Row]] = {}
    usable = [row for row in rows if row.status != "not-applicable"]
    for row in usable:
        groups.setdefault(row.cell.label or row.cell.method, []).append(row)
    entries = [_entry(label, group, primary, family) for label, group in groups.items()]
    ranked = _front(_ranked(entries, primary, family), family)
    failures = tuple(row for row in usable if row.status != "done")
    return Leaderboard(
        family, problem, primary, tuple(ranked), failures, tuple(r for r in rows if r.status == "not-applicable")
    )


def statistic(values: Sequence[float]) -> Statistic:
    from scipy import stats

    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return Statistic(math.nan, math.nan, tuple(values))
    if len(finite) < 2:
        return Statistic(finite[0], math.nan, tuple(values))
    spread = float(np.std(finite, ddof=1)) / math.sqrt(len(finite))
    return Statistic(float(np.mean(finite)), float(stats.t.ppf(0.975, len(finite) - 1)) * spread, tuple(values))


def _entry(label: str, rows: list[Row], primary: Primary, family: Family) -> Entry:
    rows = sorted(rows, key=lambda row: row.cell.seed)
    done = [row for row in rows if row.status == "done"]
    names = dict.fromkeys(name for row in done for name in row.numbers)
    found = {name: statistic([row.numbers.get(name, math.nan) for row in done]) for name in names}
    means = {name: value.mean for name, value in found.items()}
    fits = bool(done) and (primary.constraint is None or primary.constraint.met(means))
    cls = _class_of(rows[0].cell.method)
    title = cls.card.title if cls else rows[0].cell.method
    baseline = bool(cls and cls.card.kind == "baseline")
    outcome = family.outcome(means) if family.outcome and done else ""
    return Entry(label, rows[0].cell.method, title, baseline, tuple(rows), found, fits, outcome=outcome)


def _class_of(slug: str) -> type[Method] | None:
    try:
        return get_method(slug)
    except LookupError:
        return None  # a row of a package that is no longer installed


def _ranked(entries: list[Entry], primary: Primary, family: Family) -> list[Entry]:
    known = {m.name: m for m in (*family.metrics, *COSTS)}
    sign = known[primary.metric].sign if primary.metric in known else 1
    sign = sign or 1

    def value(entry: Entry) -> float:
        mean = entry[primary.metric].mean
        return -math.inf if math.isnan(mean) else sign * mean

    fit = sorted((e for e in entries if e.meets_constraint and value(e) > -math.inf), key=value, reverse=True)
    unfit = [e for e in entries if e not in fit]
    unfit.sort(key=lambda e: (e.done == 0, primary.constraint.violation(_means(e)) if primary.constraint else 0))
    ranked: list[Entry] = []
    for entry in fit:
        rank = 1 + sum(value(other) > value(entry) for other in fit)
        tied = entry is not fit[0] and _same(fit[0], entry, primary.metric)
        ranked.append(replace(entry, rank=rank, tied=tied))
    if any(entry.tied for entry in ranked):
        ranked[0] = replace(ranked[0], tied=True)
    return ranked + unfit


def _means(entry: Entry) -> dict[str, float]:
    return {name: value.mean for name, value in entry.statistics.items()}


def _same(best: Entry, other: Entry, metric: str) -> bool:
    """Can the two not be told apart? Paired over the seeds both have; never with fewer than two seeds."""
    mine = {r.cell.seed: r.numbers.get(metric, math.nan) for r in best.rows if r.status == "done"}
    theirs = {r.cell.seed: r.numbers.get(metric, math.nan) for r in other.rows if r.status == "done"}
    differences = [mine[seed] - theirs[seed] for seed in mine.keys() & theirs.keys()]
    if len(differences) < 2:
        return best[metric].mean == other[metric].mean
    found = statistic(differences)
    return abs(found.mean) <= found.half or found.mean == 0


def _front(entries: list[Entry], family: Family) -> list[Entry]:
    """Mark the entries that no other beats on both trade-off metrics."""
    known = {m.name: m for m in (*family.metrics, *COSTS)}
    x, y = family.trade_off
    points = {
        e.label: (known[x].sign * e[x].mean, known[y].sign * e[y].mean)
        for e in entries
        if math.isfinite(e[x].mean) and math.isfinite(e[y].mean)
    }

    def beaten(label: str) -> bool:
        a, b = points[label]
        return any((c >= a and d >= b) and (c > a or d > b) for c, d in points.values())

    return [replace(e, on_front=e.label in points and not beaten(e.label)) for e in entries]

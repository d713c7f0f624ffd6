"""What tuning did: trials of each method, their cost, what was chosen, and how the search went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from didact.core.problem import Family
from didact.engine.ledger import Row
from didact.engine.report.figures import polyline
from didact.engine.words import amount

WIDTH, HEIGHT = 150.0, 30.0


@dataclass(frozen=True)
class Search:
    method: str
    trials: int
    failed: int
    seconds: str
    passes: str
    chosen: list[tuple[str, str]]
    line: str  #: the best so far, as points of an SVG polyline
    dots: list[tuple[float, float, bool]]  #: every trial: x, y, inside the constraint
    first: str
    last: str


def searches(family: Family, trials: Sequence[Row], tuned: Mapping[str, Any]) -> list[Search]:
    """One a tuned method, in the order of their first trials."""
    groups: dict[str, list[Row]] = {}
    for row in trials:
        groups.setdefault(row.cell.method, []).append(row)
    return [_search(family, slug, rows, tuned) for slug, rows in groups.items()]


def _search(family: Family, slug: str, rows: list[Row], tuned: Mapping[str, Any]) -> Search:
    goal = family.tuning
    values = [r.metrics.get(goal.metric, math.nan) if r.status == "done" else math.nan for r in rows]
    inside = [goal.constraint is None or goal.constraint.met(r.metrics) for r in rows]
    sign = _sign(family)
    best = _best_so_far(rows, values, family, sign)
    finite = [sign * v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    points = polyline([sign * v for v in values], low, high, WIDTH, HEIGHT)
    fits = [ok for ok, v in zip(inside, values, strict=True) if math.isfinite(v)]
    reached = [v for v in best if math.isfinite(v)]
    return Search(
        method=slug,
        trials=len(rows),
        failed=sum(row.status != "done" for row in rows),
        seconds=amount(sum(row.cost.get("seconds", 0.0) for row in rows), "s"),
        passes=amount(sum(row.cost.get("passes", 0.0) for row in rows), "samples"),
        chosen=_chosen(slug, tuned),
        line=" ".join(f"{x},{y}" for x, y in polyline([sign * v for v in best], low, high, WIDTH, HEIGHT)),
        dots=[(x, y, ok) for (x, y), ok in zip(points, fits, strict=True)],
        first=amount(reached[0]) if reached else "",
        last=amount(reached[-1]) if reached else "",
    )


def _best_so_far(rows: Sequence[Row], values: Sequence[float], family: Family, sign: int) -> list[float]:
    """The value of the trial that would be chosen after each trial: inside the constraint first, then the value."""
    best: tuple[float, float] | None = None
    found: list[float] = []
    for row, value in zip(rows, values, strict=True):
        if math.isfinite(value):
            outside = family.tuning.constraint.violation(row.metrics) if family.tuning.constraint else 0.0
            mine = (-outside, sign * value)
            best = mine if best is None or mine > best else best
        found.append(math.nan if best is None else sign * best[1])
    return found


def _sign(family: Family) -> int:
    """A validation metric has the direction of the metric it stands in for."""
    metric = family.metric(family.tuning.metric) or family.metric(family.primary.metric)
    return (metric.sign if metric else 1) or 1


def _chosen(slug: str, tuned: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`{label: {parameter: value}}`, also with the parameters one level down under "chosen"."""
    found: list[tuple[str, str]] = []
    for label, settings in tuned.items():
        if label.split(":")[0] != slug or not isinstance(settings, Mapping):
            continue
        inner = settings.get("chosen", settings)
        pairs = inner if isinstance(inner, Mapping) else settings
        found += [(name, f"{v:.4g}" if isinstance(v, float) else str(v)) for name, v in pairs.items()]
    return found

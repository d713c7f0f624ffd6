"""The numbers behind the figures: what `plots.js` draws, and the geometry of the small inline ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from didact.core.metric import COSTS, Metric
from didact.engine.leaderboard import Entry, Leaderboard, Statistic
from didact.engine.words import amount, interval, rank_text

#: metrics with these units span orders of magnitude: drawn on a log axis
LOG_UNITS = ("s", "B", "samples")


@dataclass(frozen=True)
class Whisker:
    """Positions in percent of the width of a dot with its interval; right is better."""

    low: float
    dot: float
    high: float
    outside: bool  #: the mean itself lies beyond the edge


def payload(board: Leaderboard) -> dict[str, Any]:
    """Everything the plots need, as JSON values: a number that does not exist is null."""
    names = dict.fromkeys(
        [m.name for m in (*board.family.metrics, *COSTS)] + sorted({n for e in board.entries for n in e.statistics})
    )
    measured = [n for n in names if any(math.isfinite(e[n].mean) for e in board.entries)]
    constraint = board.primary.constraint
    best = board.best
    return {
        "family": board.family.title,
        "x": board.family.trade_off[0],
        "y": board.family.trade_off[1],
        "primary": board.primary.metric,
        "best": best.label if best else None,
        "constraint": constraint
        and {
            "metric": constraint.metric,
            "at_most": _number(constraint.at_most),
            "at_least": _number(constraint.at_least),
            "text": str(constraint),
        },
        "metrics": [_metric(board.metric(name), name in {m.name for m in COSTS}) for name in measured],
        "entries": [_entry(entry, board, measured) for entry in board.entries if entry.done],
    }


def whiskers(board: Leaderboard) -> dict[str, Whisker]:
    """The primary metric of every entry on the scale of the ranked ones; what lies beyond is put at the edge."""
    found = {e.label: e[board.primary.metric] for e in board.entries}
    found = {label: s for label, s in found.items() if math.isfinite(s.mean)}
    if not found:
        return {}
    ranked = [found[e.label] for e in board.entries if e.rank is not None] or list(found.values())
    low, high = min(s.mean for s in ranked), max(s.mean for s in ranked)
    room = 0.2 * (high - low) or max(map(_half, ranked)) or 1.0
    low, high = low - room, high + room
    flip = board.metric(board.primary.metric).sign < 0

    def percent(value: float) -> float:
        share = 100 * (min(max(value, low), high) - low) / (high - low)
        return round(100 - share if flip else share, 2)

    def whisker(s: Statistic) -> Whisker:
        ends = sorted((percent(s.mean - _half(s)), percent(s.mean + _half(s))))
        return Whisker(ends[0], percent(s.mean), ends[1], not low <= s.mean <= high)

    return {label: whisker(s) for label, s in found.items()}


def polyline(
    values: Sequence[float], low: float, high: float, width: float, height: float
) -> list[tuple[float, float]]:
    """Points of a small line plot, evenly spaced; a value that does not exist is left out."""
    span = (high - low) or 1.0
    step = width / max(1, len(values) - 1)
    return [
        (round(i * step, 1), round(height * (1 - (value - low) / span) if high > low else height / 2, 1))
        for i, value in enumerate(values)
        if math.isfinite(value)
    ]


def _metric(metric: Metric, cost: bool) -> dict[str, Any]:
    return {
        "name": metric.name,
        "doc": metric.doc,
        "unit": metric.unit,
        "sign": metric.sign,
        "log": metric.unit in LOG_UNITS,
        "cost": cost,
    }


def _entry(entry: Entry, board: Leaderboard, names: Sequence[str]) -> dict[str, Any]:
    return {
        "label": entry.label,
        "title": entry.title,
        "baseline": entry.baseline,
        "rank": entry.rank,
        "ranked": rank_text(entry, board),
        "tied": entry.tied,
        "meets": entry.meets_constraint,
        "front": entry.on_front,
        "seeds": [row.cell.seed for row in entry.rows if row.status == "done"],
        "statistics": {n: _statistic(entry[n], board.metric(n).unit) for n in names if math.isfinite(entry[n].mean)},
    }


def _statistic(found: Statistic, unit: str) -> dict[str, Any]:
    return {
        "mean": _number(found.mean),
        "half": _number(found.half),
        "values": [_number(v) for v in found.values],
        "text": interval(found, unit),
        "short": amount(found.mean, unit),
    }


def _half(found: Statistic) -> float:
    return found.half if math.isfinite(found.half) else 0.0


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Numbers and verdicts as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from didact.core.metric import Metric
from didact.engine.leaderboard import Entry, Leaderboard, Statistic

NOTHING = "–"
_STEPS = {
    "s": ((3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms")),
    "B": ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")),
    "samples": ((1e9, " G"), (1e6, " M"), (1.0, "")),
}


def amount(value: float, unit: str = "") -> str:
    """A number as people read it: `0.953`, `12.3 s`, `4.2 MB`, `61,400`; a dash when there is none."""
    return interval(Statistic(value, math.nan, ()), unit)


def interval(found: Statistic, unit: str = "") -> str:
    """`mean ± half`, both in the same unit and with the same number of decimals."""
    if not math.isfinite(found.mean):
        return NOTHING
    factor, suffix = _scale(found.mean, unit)
    mean, half = found.mean / factor, found.half / factor
    if unit in _STEPS and half == 0:
        half = math.nan  # a count that is the same for every seed
    whole = unit == "samples" and factor == 1
    decimals = 0 if whole else _decimals(mean, 2 if unit in _STEPS else 3)
    text = _fixed(mean, decimals)
    if math.isfinite(half):
        text += f" ± {_fixed(half, decimals)}"
    return text + suffix


def best_means(board: Leaderboard) -> str:
    """What "best" means, in one sentence."""
    primary, constraint = board.primary, board.primary.constraint
    metric = board.metric(primary.metric)
    text = f"Best means the {'lowest' if metric.sign < 0 else 'highest'} {_explained(metric)}"
    if constraint:
        text += f", among the methods with {constraint}"
        if constraint.metric != primary.metric and board.metric(constraint.metric).doc != constraint.metric:
            text += f" ({constraint.metric}: {board.metric(constraint.metric).doc})"
    return text + "."


def tied_with(board: Leaderboard) -> list[Entry]:
    """The entries that cannot be told from the best, without the best itself."""
    best = board.best
    return [e for e in board.entries if (e.rank == 1 or e.tied) and best is not None and e.label != best.label]


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; a long list ends in `and 12 more`."""
    shown = list(names[:most]) if len(names) > most + 1 else list(names)
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def rank_text(entry: Entry, board: Leaderboard) -> str:
    """`1=` for all that share the first place, the one with the best mean included."""
    if entry.rank is None:
        return NOTHING
    if entry.tied or (entry.rank == 1 and any(e.tied for e in board.entries)):
        return "1="
    shared = sum(e.rank == entry.rank for e in board.entries) > 1
    return f"{entry.rank}=" if shared else str(entry.rank)


def arrow(metric: Metric) -> str:
    return {1: "↑", -1: "↓", 0: ""}[metric.sign]


def _explained(metric: Metric) -> str:
    return f"{metric.name} ({metric.doc})" if metric.doc and metric.doc != metric.name else metric.name


def _scale(value: float, unit: str) -> tuple[float, str]:
    steps = _STEPS.get(unit)
    if steps is None:
        return 1.0, f" {unit}" if unit else ""
    if value == 0:
        return next(step for step in steps if step[0] == 1)
    return next((step for step in steps if abs(value) >= step[0]), steps[-1])


def _decimals(value: float, most: int) -> int:
    """Fewer decimals for larger numbers; -1 asks for scientific notation."""
    size = abs(value)
    if 0 < size < 0.001:
        return -1
    if size >= 100:
        return 0 if most == 2 or size >= 1000 else 1
    return most - 1 if most == 2 and size >= 10 else most


def _fixed(value: float, decimals: int) -> str:
    return f"{value:.1e}" if decimals < 0 else f"{value:,.{decimals}f}"


def kind_of(hint: str, joined: str = " | ") -> str:
    """A type as people write it: `Union[float, Literal['auto']]` -> `float | 'auto'`."""
    found = re.fullmatch(r"(?:\w+\.)*(Union|Optional|Literal)\[(.*)\]", hint)
    if not found:
        return hint
    parts, depth = [""], 0
    for letter in found[2]:
        depth += (letter == "[") - (letter == "]")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    none = ["None"] if found[1] == "Optional" else []
    return joined.join([*(kind_of(part.strip(), joined) for part in parts), *none])

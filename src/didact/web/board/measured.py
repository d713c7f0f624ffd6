"""What a ledger holds of one method: means over seeds, and the newest rows one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from didact.core.metric import COSTS, Metric
from didact.core.problem import Family
from didact.engine.cells import display
from didact.engine.leaderboard import statistic
from didact.engine.ledger import Row
from didact.engine.words import arrow, interval
from didact.web.board.reader import newest

#: rows listed one by one
MOST_ROWS = 60


@dataclass(frozen=True)
class LedgerLine:
    """Rows that differ only in the seed."""

    problem: str
    label: str
    seeds: str
    texts: tuple[str, ...]  #: one a column
    date: str


@dataclass(frozen=True)
class LedgerPart:
    columns: tuple[Metric, ...]
    headings: tuple[str, ...]
    lines: tuple[LedgerLine, ...]
    rows: tuple[Row, ...]  #: the newest, one by one
    total: int


def ledger_part(rows: Sequence[Row], family: Family) -> LedgerPart:
    rows = sorted(rows, key=lambda r: r.created, reverse=True)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in newest(rows):
        groups.setdefault((row.cell.problem, row.cell.scale, row.cell.label), []).append(row)
    known = {m.name: m for m in (*family.metrics, *COSTS)}
    constraint = family.primary.constraint
    names = [
        family.primary.metric,
        *([constraint.metric] if constraint else []),
        *family.trade_off,
        "seconds",
        "passes",
    ]
    measured = {name for row in rows for name, value in row.numbers.items() if math.isfinite(value)}
    columns = tuple(known[name] for name in dict.fromkeys(names) if name in measured and name in known)
    lines = tuple(_line(key, group, columns) for key, group in groups.items())
    headings = tuple(f"{m.name} {arrow(m)}".strip() for m in columns)
    return LedgerPart(columns, headings, lines, tuple(rows[:MOST_ROWS]), len(rows))


def last_line(error: str) -> str:
    """What a traceback came to, without the folders in it."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def _line(key: tuple[str, str, str], rows: Sequence[Row], columns: Sequence[Metric]) -> LedgerLine:
    problem, scale, label = key
    done = [row for row in rows if row.status == "done"]
    failed = len(rows) - len(done)
    return LedgerLine(
        display(problem) + (f" ({scale})" if scale != "laptop" else ""),
        label,
        f"{len(done)}" + (f", {failed} without result" if failed else ""),
        tuple(interval(statistic([r.numbers.get(m.name, math.nan) for r in done]), m.unit) for m in columns),
        max(row.created for row in rows),
    )

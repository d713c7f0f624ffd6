"""The leaderboard as a table: columns, sections, cells."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from didact.core.metric import COSTS, Metric
from didact.engine.export import columns as first_look
from didact.engine.leaderboard import Entry, Leaderboard
from didact.engine.report.figures import Whisker, whiskers
from didact.engine.words import amount, arrow, interval, rank_text

MAIN_COSTS = ("seconds", "passes", "peak_memory")


@dataclass(frozen=True)
class Column:
    metric: Metric
    shown: bool
    group: str  #: "metrics", "costs" or "noted by the methods"

    @property
    def heading(self) -> str:
        return f"{self.metric.name} {arrow(self.metric)}".strip()

    @property
    def first(self) -> str:
        """The direction of the first click: best on top."""
        return "ascending" if self.metric.sign < 0 else "descending"


@dataclass(frozen=True)
class Line:
    entry: Entry
    rank: str
    texts: list[str]  #: one a column: metrics with their interval, costs without
    hints: list[str]
    values: list[float | None]
    whisker: Whisker | None
    status: str
    complete: bool


@dataclass(frozen=True)
class Section:
    title: str  #: empty for the ranked ones
    lines: list[Line]


def columns(board: Leaderboard) -> list[Column]:
    """What a first look needs, then everything else that was measured at least once."""
    measured = {name for e in board.entries for name in e.statistics}
    head = first_look(board)
    main = [*head, *MAIN_COSTS]
    own = [m.name for m in board.family.metrics]
    costs = [m.name for m in COSTS]
    rest = [n for n in (*own, *costs, *sorted(measured)) if n in measured]
    names = dict.fromkeys([*head, *(n for n in MAIN_COSTS if n in measured), *rest])
    return [Column(board.metric(name), name in main, _group(name, own, costs)) for name in names]


def sections(board: Leaderboard, shown: list[Column]) -> list[Section]:
    """The ranked, those that break the constraint, and those without a result."""
    bars = whiskers(board)

    def lines(entries: list[Entry]) -> list[Line]:
        return [_line(entry, board, shown, bars.get(entry.label)) for entry in entries]

    ranked = [e for e in board.entries if e.rank is not None]
    broken = [e for e in board.entries if e.rank is None and e.done and not e.meets_constraint]
    empty = [e for e in board.entries if e.rank is None and e not in broken]
    found = [
        Section("", lines(ranked)),
        Section(f"Not meeting {board.primary.constraint}", lines(broken)),
        Section("No result", lines(empty)),
    ]
    return [section for section in found if section.lines]


def status_text(entry: Entry) -> str:
    """`3/3`, or `1/3, 2 failed`."""
    counts = Counter(row.status for row in entry.rows if row.status != "done")
    return ", ".join([f"{entry.done}/{len(entry.rows)}", *(f"{n} {status}" for status, n in counts.items())])


def _line(entry: Entry, board: Leaderboard, shown: list[Column], whisker: Whisker | None) -> Line:
    found = [entry[column.metric.name] for column in shown]
    return Line(
        entry=entry,
        rank=rank_text(entry, board),
        texts=[
            amount(f.mean, c.metric.unit) if c.group == "costs" else interval(f, c.metric.unit)
            for f, c in zip(found, shown, strict=True)
        ],
        hints=[interval(f, c.metric.unit) if c.group == "costs" else "" for f, c in zip(found, shown, strict=True)],
        values=[f.mean if math.isfinite(f.mean) else None for f in found],
        whisker=whisker,
        status=status_text(entry),
        complete=entry.done == len(entry.rows),
    )


def _group(name: str, own: list[str], costs: list[str]) -> str:
    return "metrics" if name in own else "costs" if name in costs else "noted by the methods"

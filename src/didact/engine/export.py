"""The leaderboard and its rows as text, Markdown, CSV, JSON and Parquet."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from didact.core.metric import COSTS
from didact.engine.leaderboard import Entry, Leaderboard
from didact.engine.ledger import Row
from didact.engine.words import arrow, interval, rank_text


def write_tables(board: Leaderboard, rows: Sequence[Row], folder: Path) -> None:
    """leaderboard.{md,csv,json} and rows.{csv,parquet} in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.md").write_text(markdown(board), encoding="utf-8")
    (folder / "leaderboard.json").write_text(json.dumps(as_json(board), indent=2), encoding="utf-8")
    summary(board).to_csv(folder / "leaderboard.csv", index=False)
    table = frame(rows)
    table.to_csv(folder / "rows.csv", index=False)
    table.to_parquet(folder / "rows.parquet", index=False)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a cell: what it was, its status, all metrics and costs."""
    return pd.DataFrame(
        [
            {
                "key": row.key,
                "family": row.cell.family,
                "method": row.cell.method,
                "label": row.cell.label,
                "settings": json.dumps(row.cell.settings, sort_keys=True),
                "problem": row.cell.problem,
                "scale": row.cell.scale,
                "seed": row.cell.seed,
                "role": row.cell.role,
                "status": row.status,
                **{f"metric.{k}": v for k, v in row.metrics.items()},
                **{f"cost.{k}": v for k, v in row.cost.items()},
                "error": row.error,
                "created": row.created,
            }
            for row in rows
        ]
    )


def summary(board: Leaderboard) -> pd.DataFrame:
    """One line a method: rank, mean and half interval of every metric and cost."""
    names = [m.name for m in (*board.family.metrics, *COSTS)]
    lines = []
    for entry in board.entries:
        line: dict[str, Any] = {"rank": entry.rank, "tied": entry.tied, "method": entry.label, "outcome": entry.outcome}
        line |= {"done": entry.done, "cells": len(entry.rows), "on_front": entry.on_front}
        for name in names:
            line[name], line[f"{name}_half"] = entry[name].mean, entry[name].half
        lines.append(line)
    return pd.DataFrame(lines)


def as_json(board: Leaderboard) -> dict[str, Any]:
    """The leaderboard as JSON values; numbers that do not exist are null."""
    return {
        "family": board.family.name,
        "problem": board.problem,
        "by": str(board.primary),
        "best": board.best.label if board.best else None,
        "entries": [
            {
                "rank": e.rank,
                "tied": e.tied,
                "method": e.label,
                "title": e.title,
                "baseline": e.baseline,
                "outcome": e.outcome,
                "meets_constraint": e.meets_constraint,
                "on_front": e.on_front,
                "done": e.done,
                "cells": len(e.rows),
                "metrics": {
                    k: {"mean": _null(v.mean), "half": _null(v.half), "values": [_null(x) for x in v.values]}
                    for k, v in e.statistics.items()
                },
            }
            for e in board.entries
        ],
        "not_applicable": {r.cell.label: r.error for r in board.inapplicable},
        "failures": [
            {"method": r.cell.label, "seed": r.cell.seed, "status": r.status, "error": r.error} for r in board.failures
        ],
    }


def markdown(board: Leaderboard) -> str:
    metrics = columns(board)
    told = ["outcome"] if _has_outcomes(board) else []
    head = ["rank", "method", *told, *(_heading(board, m) for m in metrics), "seconds", "passes", "cells"]
    words = ["---"] * (1 + len(told))
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---:', *words, *['---:'] * (len(metrics) + 3)])}|"]
    for entry in board.entries:
        outcome = [entry.outcome] if told else []
        values = (_value(board, entry, m) for m in metrics)
        cells = [rank_text(entry, board), entry.label, *outcome, *values, *_costs(entry)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"**{board.family.title}** on `{board.problem}`, best by {board.primary}", "", *lines, ""])


def terminal(board: Leaderboard, width: int | None = None) -> Table:
    """A rich table of the leaderboard."""
    metrics = columns(board)
    table = Table(title=f"{board.family.title} on {board.problem}", caption=_caption(board), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("method", no_wrap=True)
    told = _has_outcomes(board)
    if told:
        table.add_column("outcome", no_wrap=True)
    for name in metrics:
        table.add_column(_heading(board, name), justify="right", no_wrap=True)
    for name in ("seconds", "passes", "cells"):
        table.add_column(name, justify="right", no_wrap=True)
    previous: Entry | None = None
    for entry in board.entries:
        if previous is not None and previous.rank is not None and entry.rank is None:
            table.add_section()
        style = "bold" if board.best is not None and entry.label == board.best.label else ""
        shown = Text(entry.label, style=style or ("dim" if entry.baseline else ""))
        table.add_row(
            rank_text(entry, board),
            shown,
            *([entry.outcome] if told else []),
            *(_value(board, entry, m) for m in metrics),
            *_costs(entry),
            style=style,
        )
        previous = entry
    return table


def plain(board: Leaderboard, width: int = 120) -> str:
    """The terminal table as plain text."""
    console = Console(file=StringIO(), width=width, no_color=True)
    console.print(terminal(board))
    return console.file.getvalue()  # type: ignore[attr-defined]


def _has_outcomes(board: Leaderboard) -> bool:
    return any(entry.outcome for entry in board.entries)


def _value(board: Leaderboard, entry: Entry, name: str) -> str:
    return interval(entry[name], board.metric(name).unit)


def columns(board: Leaderboard) -> list[str]:
    """The primary metric, the constraint's, the trade-off's: what a first look needs."""
    constraint = [board.primary.constraint.metric] if board.primary.constraint else []
    names = dict.fromkeys([board.primary.metric, *constraint, *board.family.trade_off])
    return [name for name in names if name not in ("seconds", "passes")]  # they have columns of their own


def _caption(board: Leaderboard) -> str:
    lines = [f"ranked by {board.primary}; mean ± 95 % interval; 1= cannot be told from the best"]
    if board.failures:
        lines.append(f"{len(board.failures)} cells failed")
    return "\n".join(lines)


def _heading(board: Leaderboard, name: str) -> str:
    return f"{name} {arrow(board.metric(name))}".strip()


def _costs(entry: Entry) -> list[str]:
    seconds, passes = entry["seconds"].mean, entry["passes"].mean
    return [_number(seconds, "{:.2f}"), _number(passes, "{:,.0f}"), f"{entry.done}/{len(entry.rows)}"]


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else form.format(value)


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None

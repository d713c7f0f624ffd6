"""Learnwares on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from didact.cli.browse import wide_console
from didact.reusing.dock.records import LearnwareInfo, SearchResult

COLOURS = {"SUCCESS": "green", "FAIL": "red"}


def print_one(info: LearnwareInfo) -> None:
    """A learnware in a line."""
    colour = COLOURS.get(info.status, "yellow")
    reason = f" ({info.reason})" if info.reason else ""
    Console().print(f"{info.id}  [{colour}]{info.status}[/{colour}]{reason}  {info.semantic.name}", soft_wrap=True)


def print_many(infos: Sequence[LearnwareInfo]) -> None:
    """Learnwares as a table."""
    table = Table(box=None, padding=(0, 1))
    for name in ("id", "name", "status", "reason", "kind", "task", "created"):
        table.add_column(name)
    for info in infos:
        colour = COLOURS.get(info.status, "yellow")
        table.add_row(
            info.id,
            info.semantic.name,
            f"[{colour}]{info.status}[/{colour}]",
            info.reason,
            info.semantic.data,
            info.semantic.task,
            info.created,
        )
    wide_console().print(table)


def print_found(found: SearchResult) -> None:
    """What a search brought up."""
    table = Table(box=None, padding=(0, 1))
    for name in ("score", "distance", "id", "name", "task", "owner"):
        table.add_column(name)
    for hit in found.single:
        distance = "" if hit.distance is None else f"{hit.distance:.4f}"
        info = hit.info
        table.add_row(f"{hit.score:.3f}", distance, info.id, info.semantic.name, info.semantic.task, info.owner)
    wide_console().print(table)
    if found.mixture:
        parts = zip(found.mixture.weights, found.mixture.learnwares, strict=True)
        print("mixture: " + ", ".join(f"{weight:.2f} {info.id}" for weight, info in parts))
    across = ", among tables with other columns" if found.searched == "heterogeneous" else ""
    print(f"{len(found.single)} of {found.total}{across}")

"""Showing a run's progress on standard error: what runs, how far, how long still."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from didact.engine.runner import Progress, Watcher

#: seconds between lines where there is no terminal to draw in
QUIET = 10.0


@contextmanager
def shown(title: str, quiet: bool = False) -> Iterator[Watcher]:
    """A watcher that draws live in a terminal, writes a line now and then elsewhere, or nothing when quiet."""
    console = Console(stderr=True)
    if quiet:
        yield lambda _: None
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            yield lambda progress: live.update(_panel(title, progress))
    else:
        yield _lines(title)


def describe(progress: Progress) -> str:
    failed = sum(row.status not in ("done", "not-applicable") for row in progress.finished)
    parts = [f"{progress.done}/{progress.total} cells"]
    if progress.reused:
        parts.append(f"{progress.reused} of them known")
    if failed:
        parts.append(f"{failed} failed")
    if progress.remaining_seconds is not None and progress.done < progress.total:
        parts.append(f"about {duration(progress.remaining_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _panel(title: str, progress: Progress) -> Group:
    head = Table.grid(padding=(0, 1))
    head.add_row(
        Text(title, style="bold"),
        ProgressBar(total=max(1, progress.total), completed=progress.done, width=40),
        Text(describe(progress)),
    )
    running = [Text(f"  running  {name}", style="dim") for name in progress.running]
    recent = [
        Text(
            f"  {row.status:<9}{row.cell.label} (seed {row.cell.seed})",
            style="green" if row.status == "done" else "red",
        )
        for row in progress.finished[-3:]
    ]
    return Group(head, *recent, *running)


def _lines(title: str) -> Watcher:
    last = -QUIET

    def watch(progress: Progress) -> None:
        nonlocal last
        over = progress.done == progress.total
        if time.monotonic() - last >= QUIET or over:
            last = time.monotonic()
            print(f"{title}: {describe(progress)}", file=sys.stderr, flush=True)

    return watch

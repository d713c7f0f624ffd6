"""Carrying out a plan of cells: what is in the ledger is not computed again, everything else is, once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from didact.engine.cells import Cell, Task
from didact.engine.executor import LocalExecutor
from didact.engine.ledger import Ledger, Row, now


@dataclass(frozen=True)
class Limits:
    """What one cell may use."""

    timeout: float | None = 600.0  #: seconds for the method itself
    memory: float | None = 8.0  #: gigabytes above what a worker holds when it starts

    @property
    def bytes(self) -> int | None:
        return None if self.memory is None else int(self.memory * 1e9)


@dataclass
class Progress:
    """How far a run is; handed to whoever shows it."""

    total: int
    reused: int = 0
    finished: list[Row] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.reused + len(self.finished)

    @property
    def remaining_seconds(self) -> float | None:
        """From the pace so far; None before the first cell is done."""
        if not self.finished:
            return None
        return (time.monotonic() - self.started) / len(self.finished) * (self.total - self.done)


Watcher = Callable[[Progress], None]


class Plan:
    """Tasks in order. The first cell of each problem goes ahead and builds it (training what the problem needs into
    the cache); the others of the same problem follow once it is built."""

    def __init__(self, cells: Sequence[Cell], limits: Limits, keep: Path | None = None) -> None:
        self.ready: deque[Task] = deque()
        self.waiting: dict[Place, list[Task]] = {}
        for cell in cells:
            task = Task(cell, limits.timeout, limits.bytes, str(keep / cell.key) if keep else None)
            if _place(cell) in self.waiting:
                self.waiting[_place(cell)].append(task)
            else:
                self.waiting[_place(cell)] = []
                self.ready.append(task)

    def take(self) -> Task | None:
        return self.ready.popleft() if self.ready else None

    def built(self, task: Task) -> None:
        self.ready.extend(self.waiting.pop(_place(task.cell), ()))

    def finished(self, task: Task, row: Row) -> list[Row]:
        """The rows that an ended task decides: its own, and those of the cells whose problem it could not build."""
        if row.status == "not-applicable" and _place(task.cell) not in self.waiting:
            return [row, *(replace(row, cell=t.cell) for t in self._other_seeds(task.cell))]
        stranded = self.waiting.pop(_place(task.cell), [])
        error = f"The problem could not be built. {row.error}"
        return [row, *(replace(row, cell=t.cell, error=error) for t in stranded)]

    def _other_seeds(self, cell: Cell) -> list[Task]:
        """Takes out the same method on other seeds: whether it applies depends on the kind of problem alone."""

        def same(task: Task) -> bool:
            other = task.cell
            return (other.problem, other.scale, other.method, other.settings) == (
                cell.problem, cell.scale, cell.method, cell.settings,
            )  # fmt: skip

        # A task that is to build its problem stays: others wait for it.
        out = [task for task in self.ready if same(task) and _place(task.cell) not in self.waiting]
        self.ready = deque(task for task in self.ready if task not in out)
        for place, tasks in self.waiting.items():
            out += [task for task in tasks if same(task)]
            self.waiting[place] = [task for task in tasks if not same(task)]
        return out


Place = tuple[str, str, int]


def _place(cell: Cell) -> Place:
    return cell.problem, cell.scale, cell.seed


def carry_out(
    cells: Sequence[Cell],
    ledger: Ledger,
    *,
    jobs: int = 2,
    limits: Limits | None = None,
    fresh: bool = False,
    keep: Path | None = None,
    watch: Watcher | None = None,
) -> list[Row]:
    """Rows of all cells, in their order. Each row is in the ledger the moment its cell ends.

    Args:
        fresh: compute everything anew and replace the rows there are.
        keep: folder for the answers of the cells computed now, each under its key.
        watch: called whenever something changes.
    """
    limits = limits or Limits()
    unique = list({cell.key: cell for cell in cells}.values())
    known = {} if fresh else {row.key: row for row in ledger.rows(c.key for c in unique) if not _outgrown(row, limits)}
    todo = [cell for cell in unique if cell.key not in known]
    progress = Progress(len(unique), reused=len(unique) - len(todo))
    show = watch or (lambda _: None)
    show(progress)
    plan = Plan(todo, limits, keep)
    local = LocalExecutor(jobs)
    for task, row in local.run(plan):
        for found in plan.finished(task, replace(row, cell=task.cell)):
            found = replace(found, created=now())
            # A cell is here because it had no row, or one to be replaced (fresh, or stopped by a smaller limit).
            ledger.write(found, replace=True)
            known[found.key] = found
            progress.finished.append(found)
        progress.running = [_name(job.task) for job in local.running]
        show(progress)
    return [known[cell.key] for cell in cells]


def _outgrown(row: Row, limits: Limits) -> bool:
    """Was the cell stopped by a limit that is wider now? Then it deserves another try."""
    name, limit = ("timeout", limits.timeout) if row.status == "timed-out" else ("memory", limits.bytes)
    if row.status not in ("timed-out", "out-of-memory"):
        return False
    return limit is None or limit > row.limits.get(name, float("inf"))


def _name(task: Task) -> str:
    return f"{task.cell.label} (seed {task.cell.seed})"

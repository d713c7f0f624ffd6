"""`didact.bench`: methods on a problem over seeds, as a leaderboard, a report and the best answer."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from didact.core import registry
from didact.core.errors import BadInput
from didact.core.method import Method
from didact.core.metric import COSTS, Primary
from didact.core.problem import Family
from didact.engine import export, report
from didact.engine.cells import Cell, absolute, display, make_cell, parse_methods
from didact.engine.executor import LocalExecutor
from didact.engine.leaderboard import Entry, Leaderboard, make_leaderboard
from didact.engine.ledger import Ledger, Row, Run, now
from didact.engine.progress import shown
from didact.engine.runner import Limits, Plan, carry_out
from didact.engine.tuning import Tuned, describe, tune


@dataclass(frozen=True)
class Bench:
    """The outcome of a bench: the leaderboard, the rows behind it, and where the files are."""

    run: Run
    leaderboard: Leaderboard
    rows: list[Row]
    trials: list[Row]
    folder: Path | None

    @property
    def failed(self) -> list[Row]:
        """Rows of methods that crashed, diverged or ran over a limit."""
        return [row for row in self.rows if row.status not in ("done", "not-applicable")]

    @property
    def report(self) -> Path | None:
        return self.folder / "report.html" if self.folder else None

    @property
    def best(self) -> Path | None:
        """Folder of the best answer, to be read by what the family names as its `reader`."""
        return self.folder / "best" if self.folder and (self.folder / "best").is_dir() else None


def bench(
    family: str,
    *,
    problem: str | Callable[..., Any] | None = None,
    methods: str | Iterable[str | Method] | None = None,
    seeds: int | Sequence[int] = 3,
    tune_trials: int = 0,
    by: str | None = None,
    jobs: int | None = None,
    timeout: float | None = 600.0,
    memory: float | None = 8.0,
    out: str | Path | None = None,
    ledger: str | Ledger | None = None,
    scale: str = "laptop",
    fresh: bool = False,
    keep: Iterable[str] = (),
    quiet: bool = False,
    command: str = "",
) -> Bench:
    """Run methods on a problem and compare them.

    Args:
        family: "forgetting", ...
        problem: a registered name ("digits-class", with options "digits-class:forget=8"), a file of your own
            ("mine.py:make"), or a function in a file; default: the family's.
        methods: references ("ssd", "ssd:alpha=20"), instances, or "a,b"; default: every applicable method.
        seeds: how many, or which.
        tune_trials: tune every method with this many trials on validation data first.
        by: metric to rank by in place of the family's primary one.
        jobs: cells at a time; default: one a core.
        timeout, memory: limits of a cell, in seconds and gigabytes; None for none.
        out: folder for the report, tables and the best answer; None writes no files.
        ledger: SQLAlchemy URL or SQLite file; default `DIDACT_LEDGER`, else the user's own.
        fresh: compute anew what the ledger already holds.
        keep: labels or slugs of methods whose answers are saved too ("all" for every one).
        quiet: no progress on standard error.

    Returns:
        Bench: leaderboard, rows, folder. Cells that fail are rows (`.failed`), not exceptions.

    Raises:
        UnknownName, BadInput: before anything runs.
    """
    about = registry.get_family(family)
    chosen = _methods(methods, family)
    reference = _reference(problem or about.default_problem)
    registry.find_problem(reference)  # an unknown name or a broken file fails now, not in every cell
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers:
        raise BadInput("At least one seed is needed.")
    primary = _primary(about, by)
    book = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    folder = Path(out) if out else None
    workers = jobs or os.cpu_count() or 1
    limits = Limits(timeout, memory)
    kept = set(keep)

    shown_as = display(reference)
    title = f"{family} on {shown_as}"
    with shown(title, quiet) as watch:

        def compute(cells: Sequence[Cell], store: Path | None = None) -> list[Row]:
            return carry_out(cells, book, jobs=workers, limits=limits, fresh=fresh, keep=store, watch=watch)

        tuned: list[Tuned] = []
        if tune_trials:
            tuned = tune(chosen, reference, tune_trials, compute, family=about, scale=scale)
            chosen = [t.method for t in tuned]
        cells = [make_cell(m, reference, s, family=family, scale=scale) for s in numbers for m in chosen]
        trials = [row for t in tuned for row in t.trials]
        facts = {
            "problem": shown_as, "scale": scale, "seeds": numbers, "methods": [c.label for c in cells[: len(chosen)]],
            "by": str(primary), "tune": tune_trials, "command": command,
        }  # fmt: skip
        run = Run(_run_id(family, reference), family, facts, [c.key for c in cells] + [r.key for r in trials], now())
        book.begin(run)
        store = folder / "answers" if folder else None
        rows = compute(cells, store)
        board = make_leaderboard(about, shown_as, rows, primary)
        if folder and store:
            _keep_answers(board, kept, folder, store, compute)

    outcome = Bench(run, board, rows, trials, folder)
    if folder:
        extra = {"tuned": describe(tuned)} if tuned else {}
        export.write_tables(board, rows + trials, folder)
        (folder / "report.html").write_text(report.render(run, board, trials, about=extra), encoding="utf-8")
    return outcome


def _methods(given: str | Iterable[str | Method] | None, family: str) -> list[Method]:
    if given is None:
        return [cls() for cls in registry.methods(family)]
    chosen = parse_methods(given)
    if not chosen:
        raise BadInput("No method was named.")
    return chosen


def _reference(problem: str | Callable[..., Any]) -> str:
    if isinstance(problem, str):
        return absolute(problem)
    file = inspect.getsourcefile(problem)
    if file is None or "." in problem.__qualname__ or not Path(file).is_file():
        raise BadInput("A problem given as a function must be a plain function in a file: each cell runs it anew.")
    return f"{Path(file).resolve()}:{problem.__name__}"


def _primary(family: Family, by: str | None) -> Primary:
    if by is None:
        return family.primary
    known = [m.name for m in (*family.metrics, *COSTS)]
    if by not in known:
        raise BadInput(f"{family.name} has no metric {by!r}. Known: {', '.join(known)}.")
    constraint = family.primary.constraint
    return Primary(by, constraint if constraint and constraint.metric != by else None)


def _run_id(family: str, problem: str) -> str:
    name = Path(problem.split(":")[0]).stem if ".py:" in problem else problem.replace(":", "-").replace("=", "")
    return f"{family}-{name}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"[:120]


def _keep_answers(
    board: Leaderboard, keep: set[str], folder: Path, store: Path, compute: Callable[..., list[Row]]
) -> None:
    """Keep the best answer and those asked for; drop the rest.

    An answer that an earlier run computed is not on disk: its cell is computed once more.
    """
    best = _best_row(board.best, board) if board.best else None
    wanted = {
        row.key: row
        for entry in board.entries
        for row in entry.rows
        if row.status == "done" and (keep & {"all", entry.label, entry.slug} or (best and row.key == best.key))
    }
    missing = [row.cell for key, row in wanted.items() if not (store / key).is_dir()]
    for cell in missing:
        _compute_again(cell, store)
    kept = folder / "kept"
    for key, row in wanted.items():
        if not (store / key).is_dir():
            continue
        if best and key == best.key:
            _copy(store / key, folder / "best")
        if keep & {"all", row.cell.label, row.cell.method}:
            _copy(store / key, kept / f"{_file_name(row.cell.label)}-seed{row.cell.seed}")
    shutil.rmtree(store, ignore_errors=True)


def _best_row(entry: Entry, board: Leaderboard) -> Row | None:
    """The first seed that meets the constraint: the luckiest one would be chosen by the test data."""
    done = [row for row in entry.rows if row.status == "done"]
    constraint = board.primary.constraint
    fit = [row for row in done if constraint is None or constraint.met(row.metrics)]
    return next(iter(fit or done), None)


def _compute_again(cell: Cell, store: Path) -> None:
    for _ in LocalExecutor(1).run(Plan([cell], Limits(None, None), store)):
        pass


def _copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target)


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-._=" else "-" for c in label)

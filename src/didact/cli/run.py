"""`didact bench`, `claim` and `report`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from rich.console import Console
from rich.table import Table

from didact.cli.browse import wide_console
from didact.core import registry
from didact.core.claim import Verdict
from didact.core.errors import BadInput
from didact.core.metric import Primary
from didact.engine import claims, export, report
from didact.engine.bench import Bench, bench
from didact.engine.leaderboard import Leaderboard, make_leaderboard
from didact.engine.ledger import Ledger

COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow"}


P = ParamSpec("P")


def resumable(command: Callable[P, int]) -> Callable[P, int]:
    """A command that can be stopped with Ctrl-C and goes on when it is called again."""

    @wraps(command)
    def run(*arguments: P.args, **options: P.kwargs) -> int:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            print("didact: stopped. The same command goes on where this one ended.", file=sys.stderr)
            return 130

    return run


@resumable
def run_bench(
    family: str,
    problem: str | None,
    methods: str | None,
    seeds: int,
    tune: int,
    by: str | None,
    jobs: int | None,
    timeout: float,
    memory: float,
    out: Path | None,
    keep: str,
    scale: str,
    ledger: str | None,
    as_json: bool,
    fresh: bool,
) -> int:
    folder = out or Path("runs") / f"{family}-{datetime.now():%Y%m%d-%H%M%S}"
    found = bench(
        family,
        problem=problem,
        methods=methods,
        seeds=seeds,
        tune_trials=tune,
        by=by,
        jobs=jobs,
        timeout=timeout,
        memory=memory,
        out=folder,
        ledger=ledger,
        scale=scale,
        fresh=fresh,
        keep=[k for k in keep.split(",") if k],
        command=shlex.join(["didact", *sys.argv[1:]]),
    )
    if as_json:
        print(json.dumps({"run": found.run.id, "folder": str(folder), **export.as_json(found.leaderboard)}))
    else:
        _print_outcome(found)
    return 1 if found.failed else 0


def _print_outcome(found: Bench) -> None:
    console = Console()
    _print_board(console, found.leaderboard)
    failures: dict[tuple[str, str], list[int]] = {}
    for row in found.failed:
        failures.setdefault((row.cell.label, row.status), []).append(row.cell.seed)
    for (label, status), where in failures.items():
        console.print(
            f"[red]{status}[/red]  {label}  (seeds {', '.join(map(str, where))}); the report has the traceback"
        )
    for error in dict.fromkeys(row.error for row in found.leaderboard.inapplicable):
        console.print(f"[dim]not applicable  {error}[/dim]")
    if found.best:
        console.print(f"best answer: {found.best}  ({found.leaderboard.family.reader} reads it)", soft_wrap=True)
    print(f"report: {found.report}")


def _print_board(console: Console, board: Leaderboard) -> None:
    (console if console.is_terminal else wide_console()).print(export.terminal(board))


@resumable
def run_claims(
    slugs: list[str],
    family: str | None,
    all_: bool,
    seeds: int | None,
    jobs: int | None,
    timeout: float,
    memory: float,
    results: Path | None,
    ledger: str | None,
    as_json: bool,
    fresh: bool,
) -> int:
    if not slugs and not family and not all_:
        raise BadInput("Name a method, or use --family or --all.")
    if family:
        registry.get_family(family)
    chosen = slugs or [cls.card.slug for cls in claims.judged_claims(family)]
    book = Ledger(ledger)
    verdicts = []
    for slug in chosen:
        verdict = claims.claim(
            slug,
            seeds=seeds,
            jobs=jobs,
            ledger=book,
            timeout=timeout,
            memory=memory,
            fresh=fresh,
            results=results,
        )
        verdicts.append(verdict)
        if not as_json:
            _print_verdict(verdict)
    if as_json:
        print(json.dumps([claims.as_json(v) for v in verdicts]))
    return 1 if any(v.about.get("failed_cells") for v in verdicts) else 0


def _print_verdict(verdict: Verdict) -> None:
    console = Console()
    colour = COLOURS[verdict.outcome]
    console.print(f"[bold]{verdict.slug}[/bold] [{colour}]{verdict.outcome}[/{colour}]  “{verdict.sentence}”")
    console.print(f"  on {', '.join(verdict.problems)}, {verdict.seeds} seeds", style="dim")
    table = Table(box=None, show_header=False, padding=(0, 1))
    for judged in verdict.expectations:
        colour = COLOURS[judged.outcome]
        table.add_row("", f"[{colour}]{judged.outcome}[/{colour}]", judged.text, claims.describe(judged))
    console.print(table)
    if verdict.note:
        console.print(f"  note: {verdict.note}", style="dim")
    for failure in verdict.about.get("failed_cells", []):
        console.print(f"  [red]{failure}[/red]")
    console.print("  effects of at least 0 meet the expectation; [ ] one-sided 95 % bounds", style="dim")


def list_runs(ledger: str | None, as_json: bool) -> int:
    runs = Ledger(ledger).runs()
    if as_json:
        print(json.dumps([{"id": r.id, "family": r.family, "created": r.created, "about": r.about} for r in runs]))
        return 0
    table = Table(box=None)
    for name in ("run", "problem", "cells", "created"):
        table.add_column(name)
    for run in runs:
        table.add_row(run.id, str(run.about.get("problem", "")), str(len(run.keys)), run.created)
    wide_console().print(table)
    return 0


def make_report(name: str, out: Path | None, by: str | None, ledger: str | None, as_json: bool) -> int:
    book = Ledger(ledger)
    run = book.run(name)
    family = registry.get_family(run.family)
    rows = book.rows(run.keys)
    scored = [row for row in rows if row.cell.role == "score"]
    primary = Primary(by, family.primary.constraint) if by else None
    board = make_leaderboard(family, run.about["problem"], scored, primary)
    if as_json:
        print(json.dumps({"run": run.id, **export.as_json(board)}))
        return 0
    folder = out or Path("runs") / run.id
    trials = [row for row in rows if row.cell.role == "validate"]
    export.write_tables(board, rows, folder)
    (folder / "report.html").write_text(report.render(run, board, trials), encoding="utf-8")
    _print_board(Console(), board)
    print(f"report: {folder / 'report.html'}")
    return 0

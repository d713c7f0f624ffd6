"""The commands and their options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from didact.cli.dock import app as dock

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Published learning methods under one protocol, each with a claim you can check.",
)

app.add_typer(dock, name="dock")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
LedgerUrl = Annotated[
    str | None,
    typer.Option("--ledger", help="SQLite file or SQLAlchemy URL. Default: DIDACT_LEDGER, else your own."),
]
Jobs = Annotated[int | None, typer.Option("--jobs", "-j", min=1, help="Cells at a time. Default: one a core.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds that a method may take in one cell.")]
Memory = Annotated[float, typer.Option("--memory", min=0.05, help="Gigabytes that a method may hold in one cell.")]


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from didact import __version__

        typer.echo(f"didact {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def bench(
    family: Annotated[str, typer.Argument(help="The family, such as forgetting.")],
    problem: Annotated[
        str | None,
        typer.Option(
            "--problem", "-p", help="A problem's name (with options: digits-class:forget=8), or mine.py:make."
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", "-m", help="Such as a,b:alpha=20. Default: every applicable method."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", "-s", min=1)] = 3,
    tune: Annotated[int, typer.Option("--tune", min=0, help="Trials for each method, on validation data.")] = 0,
    by: Annotated[str | None, typer.Option("--by", help="Metric to rank by.")] = None,
    jobs: Jobs = None,
    timeout: Timeout = 600.0,
    memory: Memory = 8.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report, tables and best answer. Default: runs/..."),
    ] = None,
    keep: Annotated[str, typer.Option("--keep", help="Methods whose answers are saved too: a,b or all.")] = "",
    scale: Annotated[str, typer.Option("--scale", help="laptop, or paper where the problem has it.")] = "laptop",
    ledger: LedgerUrl = None,
    json_: Json = False,
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Compute everything anew, or only what the ledger lacks.")
    ] = False,
) -> None:
    """Compare methods on a problem: leaderboard, report, best answer.

    Exit code 0 when every cell gave a result, 1 when some failed, 2 for a wrong call.
    """
    from didact.cli.run import run_bench

    raise typer.Exit(
        run_bench(
            family,
            problem,
            methods,
            seeds,
            tune,
            by,
            jobs,
            timeout,
            memory,
            out,
            keep,
            scale,
            ledger,
            json_,
            fresh,
        )
    )


@app.command()
def claim(
    slugs: Annotated[list[str] | None, typer.Argument(help="Methods whose claims to check.")] = None,
    family: Annotated[str | None, typer.Option("--family", "-f", help="All claims of a family.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every claim there is.")] = False,
    seeds: Annotated[int | None, typer.Option("--seeds", "-s", min=1, help="Default: what the claim names.")] = None,
    jobs: Jobs = None,
    timeout: Timeout = 1800.0,
    memory: Memory = 8.0,
    results: Annotated[Path | None, typer.Option("--results", help="Folder to write verdicts and rows to.")] = None,
    ledger: LedgerUrl = None,
    json_: Json = False,
    fresh: Annotated[bool, typer.Option("--fresh/--resume")] = False,
) -> None:
    """Does the paper's claim hold here? Effect, interval, verdict.

    Exit code 0 when the claims were judged, whatever the verdicts; 1 when cells failed.
    """
    from didact.cli.run import run_claims

    raise typer.Exit(run_claims(slugs or [], family, all_, seeds, jobs, timeout, memory, results, ledger, json_, fresh))


@app.command("list")
def list_(
    family: Annotated[str | None, typer.Argument(help="Only this family.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also the catalogue's methods that are not built yet.")] = False,
    problems: Annotated[bool, typer.Option("--problems", help="The embedded problems instead.")] = False,
    ledger: LedgerUrl = None,
    json_: Json = False,
) -> None:
    """The methods: slug, family, title, paper, kind, verdict of the last claim run."""
    from didact.cli.browse import list_methods, list_problems

    raise typer.Exit(list_problems(family, json_) if problems else list_methods(family, all_, ledger, json_))


@app.command()
def show(slug: Annotated[str, typer.Argument()], ledger: LedgerUrl = None, json_: Json = False) -> None:
    """Everything about one method: what it does, hyperparameters, claim, verdict."""
    from didact.cli.browse import show_method

    raise typer.Exit(show_method(slug, ledger, json_))


@app.command()
def find(
    words: Annotated[list[str], typer.Argument(help="What you want to do, in words.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 8,
    json_: Json = False,
) -> None:
    """Search methods by what their cards and docstrings say."""
    from didact.cli.browse import find_methods

    raise typer.Exit(find_methods(" ".join(words), limit, json_))


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of it, or last.")] = "last",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the report and tables.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Metric to rank by.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="List the runs in the ledger.")] = False,
    ledger: LedgerUrl = None,
    json_: Json = False,
) -> None:
    """Make the report of an earlier run again, from the ledger alone."""
    from didact.cli.run import list_runs, make_report

    raise typer.Exit(list_runs(ledger, json_) if runs else make_report(run, out, by, ledger, json_))


@app.command()
def apply(
    method: Annotated[str, typer.Argument(help="A method, such as ssd or ssd:alpha=20.")],
    model: Annotated[Path, typer.Option("--model", help="Folder: Hugging Face layout, or safetensors + config.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answer, in the same layout.")],
    forget: Annotated[
        Path | None, typer.Option("--forget", help="Data file: npz, safetensors, csv, jsonl, parquet.")
    ] = None,
    retain: Annotated[Path | None, typer.Option("--retain", help="Data file.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Target column of a table.")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="mine.py:make_model, for a model class of your own.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    json_: Json = False,
) -> None:
    """Use a method on a saved model and data files, without a bench."""
    from didact.cli.apply import apply_method

    raise typer.Exit(apply_method(method, model, out, forget, retain, target, architecture, seed, json_))


def main() -> None:
    """Run the command; errors that didact raises on purpose become one line and exit code 2."""
    from didact.core.errors import DidactError

    try:
        app()
    except DidactError as error:
        print(f"didact: {error}", file=sys.stderr)
        sys.exit(2)

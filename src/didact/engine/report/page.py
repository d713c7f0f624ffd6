"""The page: gathers what the template shows and fills it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from didact.engine.leaderboard import Leaderboard
from didact.engine.ledger import Row, Run
from didact.engine.report import table, tuning
from didact.engine.report.figures import payload
from didact.engine.words import best_means, interval, listed, tied_with


def render(run: Run, board: Leaderboard, trials: Sequence[Row] = (), *, about: Mapping[str, Any] | None = None) -> str:
    """The report of one bench run as one HTML page that needs nothing but a browser.

    Args:
        run: what was asked for; `run.about` may hold scale, seeds and the command.
        board: the outcome.
        trials: rows of tuning, in the order they ran.
        about: `tuned`, a mapping of a method's label to its chosen hyperparameters.

    Returns:
        str: HTML. The same input gives the same page.
    """
    rows = [*(row for entry in board.entries for row in entry.rows), *board.inapplicable]
    columns = table.columns(board)
    tuned = dict((about or {}).get("tuned") or {})
    return _template().render(
        board=board,
        run=run,
        title=f"{board.family.title} on {board.problem}",
        facts=_facts(run, board, rows),
        best_means=best_means(board),
        verdict=_verdict(board),
        no_best=_no_best(board),
        primary=board.metric(board.primary.metric),
        columns=columns,
        sections=table.sections(board, columns),
        told={w: m for w, m in board.family.outcomes.items() if any(e.outcome == w for e in board.entries)},
        failures=board.failures,
        not_applicable=_reasons(board.inapplicable),
        searches=tuning.searches(board.family, trials, tuned),
        tuning_goal=str(board.family.tuning),
        command=str(run.about.get("command") or ""),
        asked={k: _plain(v) for k, v in run.about.items() if k != "command" and v not in (None, "", [], {})},
        environment=_environment([*rows, *trials]),
        ledger=[*rows, *trials],
        data=payload(board),
        css=_source("report.css"),
        scripts=[_source("report.js"), _source("plots.js")],
        plotly=_plotly(),
    )


def _facts(run: Run, board: Leaderboard, rows: Sequence[Row]) -> list[tuple[str, str]]:
    counts = Counter(row.status for row in rows)
    methods = sum(not e.baseline for e in board.entries)
    baselines = len(board.entries) - methods
    seeds = sorted({row.cell.seed for row in rows})
    scales = sorted({row.cell.scale for row in rows}) or [str(run.about.get("scale", ""))]
    failed = sum(n for status, n in counts.items() if status not in ("done", "not-applicable"))
    cells = [f"{counts['done']} of {len(rows)} done", f"{failed} failed"]
    if counts["not-applicable"]:
        cells.append(f"{counts['not-applicable']} not applicable")
    versions = _environment(rows)
    return [
        ("Problem", board.problem),
        ("Methods", f"{methods} + {baselines} baseline{'s' * (baselines != 1)}"),
        ("Seeds", f"{len(seeds)} ({', '.join(map(str, seeds[:8]))}{', …' * (len(seeds) > 8)})" if seeds else "0"),
        ("Cells", ", ".join(cells)),
        ("Scale", ", ".join(scales)),
        ("Date", _date(run.created)),
        ("Versions", ", ".join(f"{n} {versions[n]}" for n in ("didact", "torch", "python") if n in versions)),
    ]


def _verdict(board: Leaderboard) -> dict[str, str] | None:
    """The best entry in words; None when no method may be called best."""
    best = board.best
    if best is None:
        return None
    ties = [e.label for e in tied_with(board)]
    cheapest = board.cheapest_tie
    metric, found = board.metric(board.primary.metric), best[board.primary.metric]
    seeds = len([v for v in found.values if v == v])
    certainty = f"95 % interval over {seeds} seeds" if found.half == found.half else "one seed, so no interval"
    return {
        "label": best.label,
        "title": best.title,
        "kind": "a baseline, " if best.baseline else "",
        "metric": metric.name,
        "value": interval(found, metric.unit),
        "certainty": certainty,
        "cost": interval(best["passes"], "samples"),
        "seconds": interval(best["seconds"], "s"),
        "ties": listed(ties),
        "cheapest": f"{cheapest.label} ({interval(cheapest['passes'], 'samples')} passes)" if cheapest else "",
    }


def _no_best(board: Leaderboard) -> str:
    if not any(entry.done for entry in board.entries):
        return "no cell gave a result."
    among = f" and met {board.primary.constraint}" if board.primary.constraint else ""
    return f"none gave a value of {board.primary.metric}{among}."


def _reasons(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Why methods could not be used here, each reason once a method."""
    found = {(row.cell.label or row.cell.method, row.error): None for row in rows}
    return list(found)


def _environment(rows: Sequence[Row]) -> dict[str, str]:
    """Every fact about the machines once; several values when the rows come from several."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for name, value in row.environment.items():
            found.setdefault(name, {})[_plain(value)] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _date(created: str) -> str:
    try:
        return f"{datetime.fromisoformat(created):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return created


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}={_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FunctionLoader(lambda name: (files(__package__) / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


@cache
def _source(name: str) -> Markup:
    return Markup((files(__package__) / name).read_text(encoding="utf-8"))


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())

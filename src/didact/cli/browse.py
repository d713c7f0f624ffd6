"""`didact list`, `show` and `find`: reading the registry, the catalogue and the last verdicts."""

from __future__ import annotations

import inspect
import json
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from didact.core import registry
from didact.core.errors import UnknownName
from didact.core.method import Method
from didact.engine import claims
from didact.engine.finding import catalogue, search
from didact.engine.ledger import Ledger

COLOURS = {"holds": "green", "fails": "red", "undecided": "yellow", "not built yet": "dim"}


def list_methods(family: str | None, all_: bool, ledger: str | None, as_json: bool) -> int:
    if family and family not in {*registry.family_names(), *(line["family"] for line in catalogue())}:
        registry.get_family(family)  # says which there are
    verdicts = claims.known_verdicts(Ledger(ledger))
    lines = [_line(cls, verdicts) for cls in registry.methods(family if family in registry.family_names() else None)]
    lines = [line for line in lines if family in (None, line["family"])]
    if all_:
        built = {line["slug"] for line in lines}
        lines += [
            {**entry, "paper": "", "kind": "", "verdict": None, "built": False}
            for entry in catalogue()
            if entry["slug"] not in built and family in (None, entry["family"])
        ]
    if as_json:
        print(json.dumps(lines))
        return 0
    table = Table(box=None, padding=(0, 1))
    for name in ("slug", "family", "title", "paper", "kind", "verdict"):
        table.add_column(name, no_wrap=name in ("slug", "family", "kind", "verdict"))
    for line in lines:
        verdict = line["verdict"] or ("" if line["built"] else "not built yet")
        shown = f"[{COLOURS[verdict]}]{verdict}[/]" if verdict in COLOURS else verdict
        table.add_row(line["slug"], line["family"], line["title"], line["paper"], line["kind"], shown)
    wide_console().print(table)
    return 0


def list_problems(family: str | None, as_json: bool) -> int:
    if family:
        registry.get_family(family)
    lines: list[dict[str, Any]] = [
        {"name": p.name, "family": p.family, "summary": p.summary, "options": p.options}
        for p in registry.problems(family)
    ]
    if as_json:
        print(json.dumps(lines, default=str))
        return 0
    table = Table(box=None, padding=(0, 1))
    for name in ("problem", "family", "what it is", "options"):
        table.add_column(name)
    for line in lines:
        options = " ".join(f"{k}={v}" for k, v in line["options"].items())
        table.add_row(line["name"], line["family"], line["summary"], options)
    wide_console().print(table)
    return 0


def show_method(slug: str, ledger: str | None, as_json: bool) -> int:
    try:
        cls = registry.get_method(slug)
    except UnknownName:
        planned = next((entry for entry in catalogue() if entry["slug"] == slug), None)
        if planned is None:
            raise
        raise UnknownName(f"{slug} ({planned['title']}) is in the catalogue but not built yet.") from None
    verdict = claims.known_verdicts(Ledger(ledger)).get(slug)
    if as_json:
        print(json.dumps(_details(cls, verdict), default=str))
        return 0
    card = cls.card
    console = Console()
    console.print(f"[bold]{card.slug}[/bold]  {card.title}")
    console.print(
        f"[dim]{cls.family} · {card.kind}" + (f" · part of {card.part_of}" if card.part_of else "") + "[/dim]"
    )
    if card.paper:
        console.print(f"[dim]{card.paper}[/dim]")
    console.print(Markdown(inspect.cleandoc(cls.__doc__ or "")))
    table = Table(title="Hyperparameters", title_justify="left", box=None, padding=(0, 1))
    for name in ("name", "type", "default", "what it does"):
        table.add_column(name)
    for parameter in cls.hyperparameters():
        table.add_row(parameter.name, parameter.type, repr(parameter.default), parameter.doc)
    console.print(table)
    if cls.claim:
        console.print(f"\n[bold]Claim[/bold]  “{cls.claim.sentence}”")
        console.print(f"  on {', '.join(cls.claim.problems)}, {cls.claim.seeds} seeds", style="dim")
        for expectation in cls.claim.expects:
            console.print(f"  · {expectation.text}")
        outcome = verdict["outcome"] if verdict else "not run yet"
        console.print(f"  verdict: {outcome}" + (f" ({verdict['about'].get('date', '')[:10]})" if verdict else ""))
        if cls.claim.note:
            console.print(f"  note: {cls.claim.note}")
    console.print(f"\n[dim]from {cls.__module__.rsplit('.', 1)[0]} import {cls.__name__}[/dim]")
    return 0


def find_methods(words: str, limit: int, as_json: bool) -> int:
    hits = search(words, registry.methods())[:limit]
    if as_json:
        print(json.dumps([{"slug": c.card.slug, "score": round(s, 4), "summary": c.summary()} for s, c in hits]))
        return 0
    table = Table(box=None, padding=(0, 1), show_header=False)
    for _, cls in hits:
        table.add_row(f"[bold]{cls.card.slug}[/bold]", cls.family, cls.summary())
    Console().print(table if hits else "Nothing found. Try other words, or didact list --all.")
    return 0


def _line(cls: type[Method], verdicts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    verdict = verdicts.get(cls.card.slug)
    return {
        "slug": cls.card.slug,
        "family": cls.family,
        "title": cls.card.title,
        "paper": f"{cls.card.paper.authors}, {cls.card.paper.year}" if cls.card.paper else "",
        "kind": cls.card.kind,
        "verdict": verdict["outcome"] if verdict else None,
        "part_of": cls.card.part_of,
        "built": True,
    }


def _details(cls: type[Method], verdict: dict[str, Any] | None) -> dict[str, Any]:
    claim = cls.claim
    return {
        **_line(cls, {}),
        "verdict": verdict,
        "paper": str(cls.card.paper) if cls.card.paper else None,
        "url": cls.card.paper.url if cls.card.paper else None,
        "code": cls.card.code,
        "needs": cls.card.needs,
        "tasks": cls.card.tasks,
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "hyperparameters": [vars(p) for p in cls.hyperparameters()],
        "claim": {
            "sentence": claim.sentence,
            "on": claim.problems,
            "expects": [e.text for e in claim.expects],
        }
        if claim
        else None,
    }


def wide_console() -> Console:
    """In a file or a pipe there is no width to fit: a table cut to 80 columns would lose its content."""
    console = Console()
    return console if console.is_terminal else Console(width=180)

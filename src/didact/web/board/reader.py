"""What the board knows: families, methods, verdicts, and what was measured last."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from didact.core import registry
from didact.core.errors import UnknownName
from didact.core.method import Method
from didact.core.problem import Family
from didact.engine.cells import display
from didact.engine.claims import results_folder
from didact.engine.finding import Finder, catalogue
from didact.engine.ledger import Ledger, Row
from didact.web.news import News

Verdicts = Mapping[str, Mapping[str, Any]]
OUTCOMES = ("holds", "undecided", "fails")


@dataclass(frozen=True)
class FamilyLine:
    """A family on the board's first page."""

    name: str
    title: str
    summary: str
    planned: int  #: entries of the catalogue
    built: int  #: of these
    outcomes: Mapping[str, int]  #: how many claims came to what

    @property
    def judged(self) -> int:
        return sum(self.outcomes.values())


@dataclass(frozen=True)
class MethodLine:
    """A method in a list."""

    slug: str
    family: str
    title: str
    summary: str
    paper: str
    kind: str
    outcome: str  #: "" when it makes no claim, "not run yet" when the claim was never judged
    date: str
    part_of: str | None = None

    @property
    def baseline(self) -> bool:
        return self.kind == "baseline"


class Board:
    """Reads the registry, the verdicts shipped with the source and, when there is one, a ledger.

    Files and database are read anew for each request, so that a verdict is shown as soon as it is written; a file
    that has not changed is not parsed again.
    """

    def __init__(self, ledger: Ledger | str | None = None, results: str | Path | None = None) -> None:
        """`ledger` is one, or its URL or file; without it only `results` (default: those of the source) is read."""
        self.ledger = ledger if isinstance(ledger, Ledger) or ledger is None else Ledger(ledger)
        self.results = Path(results) if results is not None else results_folder()
        self._parsed: dict[Path, tuple[int, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    # -- lists -----------------------------------------------------------------------------------------------------

    def families(self) -> list[FamilyLine]:
        """Every family of the catalogue; those with methods first."""
        planned: dict[str, set[str]] = {}
        for entry in self.catalogue:
            planned.setdefault(entry["family"], set()).add(entry["slug"])
        known = self.known_families
        verdicts = self.verdicts()
        lines = [
            self._family_line(name, known.get(name), planned.get(name, set()), verdicts)
            for name in {**planned, **known}
        ]
        return sorted(lines, key=lambda line: (line.built == 0, line.name))

    def methods(self, family: str) -> list[MethodLine]:
        """The methods of a family, papers before baselines."""
        verdicts = self.verdicts()
        lines = [_method_line(cls, verdicts.get(cls.card.slug)) for cls in registry.methods(family)]
        return sorted(lines, key=lambda line: (line.baseline, line.part_of is not None, line.slug))

    def family(self, name: str) -> FamilyLine:
        """Errors: UnknownName."""
        found = next((line for line in self.families() if line.name == name), None)
        if found is None:
            raise UnknownName(f"There is no family {name!r}.")
        return found

    def to_come(self, family: str) -> list[dict[str, str]]:
        """Entries of the catalogue that are not built yet."""
        built = {cls.card.slug for cls in registry.methods() if cls.family == family}
        return [e for e in self.catalogue if e["family"] == family and e["slug"] not in built]

    def search(self, words: str, limit: int = 20) -> list[MethodLine]:
        """Methods by meaning, best first."""
        verdicts = self.verdicts()
        return [_method_line(cls, verdicts.get(cls.card.slug)) for _, cls in self._finder.search(words)[:limit]]

    def news(self, limit: int | None = None) -> list[News]:
        """What was measured last, newest first: verdicts, and runs of the bench."""
        known = {cls.card.slug: cls for cls in registry.methods()}
        items = [_verdict_news(known[slug], verdict) for slug, verdict in self.verdicts().items() if slug in known]
        if self.ledger is not None:
            items += [_run_news(run) for run in self.ledger.runs() if run.keys]
        items.sort(key=lambda item: (item.date, item.id), reverse=True)
        return items[:limit]

    # -- what was measured -----------------------------------------------------------------------------------------

    def verdicts(self) -> dict[str, dict[str, Any]]:
        """The newest verdict of every claim, with its rows where they were shipped."""
        found = {file.stem: self._read(file) for file in sorted(self.results.glob("*/*.json"))}
        if self.ledger is not None:
            for slug, verdict in self.ledger.verdicts().items():
                if slug not in found or date_of(verdict) > date_of(found[slug]):
                    found[slug] = verdict
        return found

    def rows(self, **filters: Any) -> list[Row]:
        """Rows of the ledger (none without one)."""
        return self.ledger.rows(**filters) if self.ledger is not None else []

    # -- what does not change while the server runs ------------------------------------------------------------------

    @cached_property
    def catalogue(self) -> list[dict[str, str]]:
        return [entry for entry in catalogue() if entry["family"] != "family"]

    @cached_property
    def known_families(self) -> dict[str, Family]:
        registry.load()
        return {name: registry.get_family(name) for name in registry.family_names()}

    @cached_property
    def _finder(self) -> Finder:
        return Finder(registry.methods())

    def _read(self, file: Path) -> dict[str, Any]:
        changed = file.stat().st_mtime_ns
        with self._lock:
            known = self._parsed.get(file)
        if known is None or known[0] != changed:
            known = (changed, json.loads(file.read_text(encoding="utf-8")))
            with self._lock:
                self._parsed[file] = known
        return known[1]

    def _family_line(self, name: str, family: Family | None, planned: set[str], verdicts: Verdicts) -> FamilyLine:
        methods = registry.methods(name) if family else []
        counts = Counter(verdicts[m.card.slug]["outcome"] for m in methods if m.claim and m.card.slug in verdicts)
        return FamilyLine(
            name,
            family.title if family else name.capitalize(),
            family.summary if family else "",
            len(planned),
            len(planned & {m.card.slug for m in methods}),
            {word: counts[word] for word in OUTCOMES},
        )


def date_of(verdict: Mapping[str, Any]) -> str:
    """When a verdict was made (ISO 8601; "" when it does not say)."""
    return str((verdict.get("about") or {}).get("date", ""))


def outcome_of(cls: type[Method], verdict: Mapping[str, Any] | None) -> str:
    if cls.claim is None:
        return ""
    return str(verdict["outcome"]) if verdict else "not run yet"


def _method_line(cls: type[Method], verdict: Mapping[str, Any] | None) -> MethodLine:
    card = cls.card
    return MethodLine(
        card.slug,
        cls.family,
        card.title,
        cls.summary(),
        f"{card.paper.authors}, {card.paper.year}" if card.paper else "",
        card.kind,
        outcome_of(cls, verdict),
        date_of(verdict or {}) if cls.claim else "",
        card.part_of,
    )


def _verdict_news(cls: type[Method], verdict: Mapping[str, Any]) -> News:
    slug, outcome = cls.card.slug, str(verdict["outcome"])
    words = {"holds": "holds", "fails": "does not hold", "undecided": "is undecided"}.get(outcome, outcome)
    met = sum(e.get("outcome") == "holds" for e in verdict.get("expectations", ()))
    total = len(verdict.get("expectations", ()))
    sentence = str(verdict.get("sentence", "")).rstrip(".")
    date, seeds = date_of(verdict), verdict.get("seeds", "?")
    return News(
        id=f"verdict:{slug}:{date}",
        kind="verdict",
        title=f"{slug}: the claim {words}",
        text=f"“{sentence}.” {met} of {total} expectations are met, over {seeds} seeds.",
        path=f"/board/methods/{slug}",
        subject=slug,
        date=date,
        outcome=outcome,
        name=cls.card.title,
    )


def _run_news(run: Any) -> News:
    problem = display(str(run.about.get("problem") or "")) or "its default problem"
    return News(
        id=f"run:{run.id}",
        kind="run",
        title=f"Bench: {run.family} on {problem}",
        text=f"{len(run.keys)} cells.",
        path=f"/board/families/{run.family}",
        subject=f"Bench: {run.family} on {problem}",
        date=run.created,
        name="",
    )


def moment(date: str) -> datetime | None:
    """An ISO 8601 date as a time in UTC; None when it is not one."""
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def newest(rows: Sequence[Row]) -> list[Row]:
    """Of rows of several code versions, those of the version that was run last, for each problem, label and scale."""
    last: dict[tuple[str, str, str], str] = {}
    for row in sorted(rows, key=lambda r: r.created):
        last[row.cell.problem, row.cell.label, row.cell.scale] = row.cell.code
    return [r for r in rows if last[r.cell.problem, r.cell.label, r.cell.scale] == r.cell.code]

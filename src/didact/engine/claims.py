"""`didact.claim`: ask the bench for the rows of a claim and judge them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import didact
from didact.core import registry
from didact.core.claim import Judged, Rows, Verdict, judge
from didact.core.errors import UnknownName
from didact.core.method import Method
from didact.engine.cells import Cell, make_cell
from didact.engine.ledger import Ledger, Row, now
from didact.engine.progress import shown
from didact.engine.runner import Limits, carry_out


def claim(
    slug: str,
    *,
    seeds: int | None = None,
    jobs: int | None = None,
    ledger: str | Ledger | None = None,
    timeout: float | None = 1800.0,
    memory: float | None = 8.0,
    fresh: bool = False,
    results: str | Path | None = None,
    quiet: bool = False,
) -> Verdict:
    """Does the paper's claim hold here? Runs what is not in the ledger yet and returns the verdict.

    Args:
        seeds: default: as many as the claim names.
        results: folder in which the verdict and its rows are written as JSON (`<family>/<slug>.json`).

    Raises:
        UnknownName: when there is no such method, or it has no claim.
    """
    cls = registry.get_method(slug)
    if cls.claim is None:
        raise UnknownName(f"{slug} makes no claim of its own. didact list shows the methods that do.")
    count = seeds or cls.claim.seeds
    book = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
    plan = cells_of(cls, count)
    with shown(f"claim of {slug}", quiet) as watch:
        rows = carry_out(
            list(plan.values()),
            book,
            jobs=jobs or os.cpu_count() or 1,
            limits=Limits(timeout, memory),
            fresh=fresh,
            watch=watch,
        )
    by_key = {row.key: row for row in rows}
    verdict = judge(slug, cls.claim, observations(plan, by_key), count)
    verdict = replace(verdict, about={"didact": didact.__version__, "date": now(), **_failures(rows)})
    book.write_verdict(slug, verdict.outcome, as_json(verdict))
    if results is not None:
        write_result(Path(results), cls, verdict, plan, by_key)
    return verdict


Place = tuple[str, int, str]  #: problem, seed, arm


def cells_of(cls: type[Method], seeds: int) -> dict[Place, Cell]:
    """The cells of a claim, by problem, seed and arm."""
    assert cls.claim is not None
    arms = {arm: registry.make_method(reference) for arm, reference in cls.claim.runs(cls.card.slug).items()}
    return {
        (problem, seed, arm): make_cell(method, problem, seed, family=cls.family)
        for problem in cls.claim.problems
        for seed in range(seeds)
        for arm, method in arms.items()
    }


def observations(plan: dict[Place, Cell], rows: dict[str, Row]) -> list[Rows]:
    """One mapping arm -> numbers for every problem and seed; arms that failed are missing from it."""
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for (problem, seed, arm), cell in plan.items():
        place = found.setdefault((problem, seed), {})
        row = rows.get(cell.key)
        if row is not None and row.status == "done":
            place[arm] = row.numbers
    return list(found.values())


def judged_claims(family: str | None = None) -> list[type[Method]]:
    """Methods that make a claim."""
    return [cls for cls in registry.methods(family) if cls.claim is not None]


def known_verdicts(ledger: Ledger | None = None) -> dict[str, dict[str, Any]]:
    """The last verdict of every claim: from the ledger, else from the results shipped with the source."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(results_folder().glob("*/*.json")):
        found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
    if ledger is not None:
        found |= ledger.verdicts()
    return found


def results_folder() -> Path:
    """`results/` of a source checkout (absent from an installed package)."""
    return Path(didact.__file__).resolve().parents[2] / "results"


def as_json(verdict: Verdict) -> dict[str, Any]:
    plain = asdict(verdict)
    plain["expectations"] = [
        {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in e.items()}
        for e in plain["expectations"]
    ]
    return plain


def describe(judged: Judged) -> str:
    """`0.04 [0.02, 0.06], n = 10`: the effect (at least 0 means met) with its one-sided bounds."""
    if not judged.observations:
        return f"no observation ({judged.missing})"
    text = f"{judged.effect:+.3f}"
    if math.isfinite(judged.low) and judged.low != judged.high:
        text += f" [{judged.low:+.3f}, {judged.high:+.3f}]"
    return f"{text}, n = {judged.observations}" + (f" ({judged.missing})" if judged.missing else "")


def write_result(
    folder: Path, cls: type[Method], verdict: Verdict, plan: dict[Place, Cell], rows: dict[str, Row]
) -> Path:
    """The verdict with the numbers behind it, as a JSON file that diffs well."""
    data = as_json(verdict)
    runs = cls.claim.runs(cls.card.slug) if cls.claim else {}
    data["arms"] = runs
    data["rows"] = [
        {"problem": problem, "seed": seed, "arm": arm, **_short(rows.get(cell.key))}
        for (problem, seed, arm), cell in plan.items()
    ]
    file = folder / cls.family / f"{cls.card.slug}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def _short(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"status": "missing"}
    numbers = {
        name: None if not math.isfinite(value) else float(f"{value:.6g}")
        for name, value in {**row.metrics, **row.cost}.items()
    }
    return {"status": row.status, "numbers": numbers, **({"error": row.error} if row.error else {})}


def _failures(rows: Iterable[Row]) -> dict[str, Any]:
    failed = [f"{r.cell.label} (seed {r.cell.seed}): {r.status}" for r in rows if r.status != "done"]
    return {"failed_cells": failed} if failed else {}

"""The page of one method: what it is, what it claims, what was measured."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from markupsafe import Markup

from didact.core import registry
from didact.core.claim import SELF
from didact.core.method import Method
from didact.core.metric import COSTS, Metric
from didact.core.problem import Family
from didact.core.study import for_a_study
from didact.engine.cells import display, label_of
from didact.engine.leaderboard import statistic
from didact.engine.words import kind_of
from didact.web.board.figures import Effect, Strip, TradeOff, effect, strip, trade_off
from didact.web.board.measured import LedgerPart, ledger_part
from didact.web.board.prose import docstring
from didact.web.board.reader import Board, date_of, newest, outcome_of

#: more strips than this are not read
MOST_STRIPS = 8


@dataclass(frozen=True)
class Expected:
    """One expectation of a claim with what was measured; the numbers are missing before the first run."""

    text: str
    outcome: str
    effect: str
    bounds: str
    observations: str
    drawn: Effect | None


@dataclass(frozen=True)
class Measured:
    """The arms of a claim on one problem."""

    problem: str
    strips: tuple[Strip, ...]
    trade_off: TradeOff | None
    failed: tuple[str, ...]  #: arms or seeds without a result, in words


@dataclass(frozen=True)
class ClaimPart:
    sentence: str
    note: str
    outcome: str
    date: str
    seeds: int
    problems: tuple[str, ...]
    arms: tuple[tuple[str, str], ...]  #: name and what is run under it
    expected: tuple[Expected, ...]
    measured: tuple[Measured, ...]


@dataclass(frozen=True)
class MethodPage:
    cls: type[Method]
    family: Family
    doc: Markup
    use: str
    command: str
    parameters: tuple[tuple[str, str, str, str], ...]  #: name, type, default, what it is
    outcome: str
    claim: ClaimPart | None
    ledger: LedgerPart
    parts: tuple[str, ...]  #: slugs of methods that came with the same paper
    built: bool = True


def method_page(board: Board, slug: str) -> MethodPage:
    """Everything the template shows. Errors: UnknownName."""
    cls = registry.get_method(slug)
    family = registry.get_family(cls.family)
    verdict = board.verdicts().get(slug) if cls.claim else None
    first = slug if slug == "original" or for_a_study(cls.card.needs) else f"original,{slug}"
    where = f" --problem {cls.claim.problems[0]}" if cls.claim else ""
    return MethodPage(
        cls,
        family,
        docstring(cls.__doc__ or ""),
        f"from {_face(cls)} import {cls.__name__}",
        f"didact bench {cls.family}{where} --methods {first}",
        tuple((p.name, kind_of(p.type, " or "), _default(p.default), p.doc) for p in cls.hyperparameters()),
        outcome_of(cls, verdict),
        _claim(board, cls, family, verdict) if cls.claim else None,
        ledger_part(board.rows(method=slug, role="score"), family),
        tuple(m.card.slug for m in registry.methods(cls.family) if m.card.part_of == slug),
    )


# -- the claim ---------------------------------------------------------------------------------------------------------


def _claim(board: Board, cls: type[Method], family: Family, verdict: Mapping[str, Any] | None) -> ClaimPart:
    claim = cls.claim
    assert claim is not None
    judged = {e["text"]: e for e in (verdict or {}).get("expectations", ())}
    texts = [e.text for e in claim.expects]
    rows = (verdict or {}).get("rows") or (_rows_of_claim(board, cls) if verdict else [])
    problems = list(dict.fromkeys(str(row["problem"]) for row in rows))
    return ClaimPart(
        sentence=claim.sentence,
        note=claim.note,
        outcome=outcome_of(cls, verdict),
        date=date_of(verdict or {}),
        seeds=int((verdict or {}).get("seeds", claim.seeds)),
        problems=claim.problems,
        arms=tuple(claim.runs(cls.card.slug).items()),
        expected=tuple(_expected(text, judged.get(text, {})) for text in texts),
        measured=tuple(_measured([r for r in rows if r["problem"] == p], p, texts, family) for p in problems),
    )


def _expected(text: str, judged: Mapping[str, Any]) -> Expected:
    mean, low, high = (judged.get(name) for name in ("effect", "low", "high"))
    both = None not in (low, high) and low != high
    count = str(judged.get("observations", ""))
    missing = f" ({judged['missing']})" if judged.get("missing") else ""
    return Expected(
        text,
        str(judged.get("outcome", "")),
        _signed(mean),
        f"{_signed(low)} to {_signed(high)}" if both else "",
        count + missing,
        effect(mean, low, high),
    )


def _measured(rows: Sequence[Mapping[str, Any]], problem: str, texts: Sequence[str], family: Family) -> Measured:
    arms = list(dict.fromkeys(str(row["arm"]) for row in rows))
    arms.sort(key=lambda arm: arm != SELF)
    done = [row for row in rows if row["status"] == "done"]

    def values(arm: str, metric: str) -> list[float]:
        found = [row["numbers"].get(metric) for row in done if row["arm"] == arm]
        return [math.nan if v is None else float(v) for v in found]

    known = {m.name: m for m in (*family.metrics, *COSTS)}
    measured = {name for row in done for name in row["numbers"]}
    strips = [
        strip(known.get(name, Metric(name, "", "neither")), {arm: values(arm, name) for arm in arms}, SELF)
        for name in _named(texts, measured, family)[:MOST_STRIPS]
    ]
    x, y = family.trade_off
    means = {arm: (statistic(values(arm, x)).mean, statistic(values(arm, y)).mean) for arm in arms}
    failed = [f"{row['arm']}, seed {row['seed']}: {row['status']}" for row in rows if row["status"] != "done"]
    drawn = trade_off(known[x], known[y], means, SELF) if x in known and y in known else None
    return Measured(display(problem), tuple(s for s in strips if s), drawn, tuple(failed))


def _named(texts: Sequence[str], measured: set[str], family: Family) -> list[str]:
    """The metrics that the expectations speak of, in their order; the family's own when they name none."""
    words = [word for text in texts for word in re.findall(r"\w+", text)]
    found = list(dict.fromkeys(word for word in words if word in measured))
    usual = [family.primary.metric, *([family.primary.constraint.metric] if family.primary.constraint else [])]
    return found or [name for name in usual if name in measured]


def _rows_of_claim(board: Board, cls: type[Method]) -> list[dict[str, Any]]:
    """The rows behind a verdict that is only in the ledger, in the shape of `results/`."""
    assert cls.claim is not None
    labels = {arm: label_of(registry.make_method(ref)) for arm, ref in cls.claim.runs(cls.card.slug).items()}
    found = [r for problem in cls.claim.problems for r in board.rows(problem=problem, family=cls.family, role="score")]
    return [
        {"problem": row.cell.problem, "seed": row.cell.seed, "arm": arm, "status": row.status, "numbers": row.numbers}
        for row in newest(found)
        for arm, label in labels.items()
        if row.cell.label == label
    ]


# -- words -------------------------------------------------------------------------------------------------------------


def _signed(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{value:+.3f}" if abs(value) >= 0.0005 or value == 0 else f"{value:+.1e}"


def _default(value: Any) -> str:
    plain: Any = object.__repr__
    return repr(value) if type(value).__repr__ is not plain else type(value).__name__


def _face(cls: type[Method]) -> str:
    """The shortest package that exports the class."""
    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        module = sys.modules.get(package) or import_module(package)
        if getattr(module, cls.__name__, None) is cls:
            return package
    return cls.__module__

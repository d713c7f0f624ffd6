"""Pages made when the site is built: one for each registered method, the list of methods, the table of verdicts.

Everything on them comes from the methods' cards and docstrings and from `results/`; nothing is written by hand.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from didact.core import registry
from didact.core.method import Choice, Method, Range
from didact.core.problem import Family
from didact.core.study import for_a_study
from didact.engine.claims import known_verdicts
from didact.engine.words import kind_of

#: beginnings of docstring lines that stand as paragraphs of their own
LABELS = ("Errors", "Cost", "Reference", "References", "Raises", "Shapes", "Units", "Memory", "Time", "Needs")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the navigation's "Methods" with the families and their methods."""
    section: list[Any] = ["methods/index.md"]
    for family, methods in _by_family().items():
        section.append({family.title: [{m.card.slug: f"methods/{m.card.slug}.md"} for m in methods]})
    config.nav = [{"Methods": section} if "Methods" in entry else entry for entry in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def pages() -> dict[str, str]:
    """Path -> Markdown of every generated page."""
    verdicts = known_verdicts()
    made = {"methods/index.md": _index(verdicts), "claims.md": _claims(verdicts)}
    for methods in _by_family().values():
        for method in methods:
            slug = method.card.slug
            made[f"methods/{slug}.md"] = _method(method, verdicts.get(slug))
    return made


def _by_family() -> dict[Family, list[type[Method]]]:
    """Every family's methods, baselines last."""
    found = {}
    for name in registry.family_names():
        methods = registry.methods(name)
        found[registry.get_family(name)] = sorted(methods, key=lambda m: (m.card.kind == "baseline", m.card.slug))
    return found


# -- one method --------------------------------------------------------------------------------------------------------


def _method(cls: type[Method], verdict: dict[str, Any] | None) -> str:
    card = cls.card
    parts = [
        f"# {card.slug}",
        f"**{text(card.title)}**",
        _facts(cls),
        docstring(cls.__doc__ or ""),
        "## Use it",
        _use(cls),
        "## Hyperparameters",
        _hyperparameters(cls),
    ]
    if cls.claim:
        parts += ["## Claim", _claim(cls, verdict)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(cls: type[Method]) -> str:
    card = cls.card
    lines = [f"| family | [{cls.family}](index.md) |", f"| kind | {card.kind} |"]
    if card.paper:
        name = text(str(card.paper))
        lines.append(f"| paper | {f'[{name}]({card.paper.url})' if card.paper.url else name} |")
    if card.code:
        licence = f" ({card.licence})" if card.licence else ""
        lines.append(f"| authors' code | [{card.code}](https://github.com/{card.code}){licence} |")
    if card.part_of:
        lines.append(f"| part of | {_link(card.part_of)} |")
    if card.tasks:
        lines.append(f"| works with | {', '.join(card.tasks)} |")
    if card.needs:
        lines.append(f"| needs | {', '.join(card.needs)} |")
    return "\n".join(["| | |", "|---|---|", *lines])


def _link(slug: str) -> str:
    """A link to a method's page, for pages beside it; the name alone when it is not built yet."""
    return f"[{slug}]({slug}.md)" if slug in {m.card.slug for ms in _by_family().values() for m in ms} else slug


def _use(cls: type[Method]) -> str:
    slug = cls.card.slug
    # A study compares methods itself; any other method is shown beside the model as it was.
    methods = slug if slug == "original" or for_a_study(cls.card.needs) else f"original,{slug}"
    where = _made_for(cls)
    return "\n".join(
        [
            "```python",
            f"from {_face(cls)} import {cls.__name__}",
            "```",
            "",
            "```console",
            f"$ didact bench {cls.family}{f' --problem {where}' if where else ''} --methods {methods}",
            "```",
        ]
    )


def _made_for(cls: type[Method]) -> str:
    """The problem to try a method on: that of its claim, or of the entry it is part of."""
    for slug in (cls.card.slug, cls.card.part_of):
        claim = next((m.claim for ms in _by_family().values() for m in ms if m.card.slug == slug), None)
        if claim:
            return claim.problems[0]
    return "bios" if "causal-lm" in cls.card.tasks else ""


def _face(cls: type[Method]) -> str:
    """The shortest package that exports the class."""
    import importlib

    parts = cls.__module__.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if getattr(importlib.import_module(package), cls.__name__, None) is cls:
            return package
    return cls.__module__


def _hyperparameters(cls: type[Method]) -> str:
    parameters = cls.hyperparameters()
    if not parameters:
        return "None."
    lines = ["| name | type | default | what it is | tuned over |", "|---|---|---|---|---|"]
    for p in parameters:
        space = cls.card.tunes.get(p.name)
        lines.append(
            f"| {code(p.name)} | {code(kind_of(p.type))} | {code(_default(p.default))} | {cell(p.doc)} "
            f"| {tuning_range(space) if space else ''} |"
        )
    return "\n".join(lines)


def _default(value: Any) -> str:
    return repr(value) if type(value).__repr__ is not object.__repr__ else type(value).__name__


def tuning_range(space: Range | Choice) -> str:
    if isinstance(space, Choice):
        return ", ".join(code(repr(option)) for option in space.options)
    kind = [word for word, on in (("whole numbers", space.integer), ("log scale", space.log)) if on]
    return f"{space.low:g} to {space.high:g}" + (f" ({', '.join(kind)})" if kind else "")


# -- claims and verdicts -----------------------------------------------------------------------------------------------


def _claim(cls: type[Method], verdict: dict[str, Any] | None) -> str:
    claim = cls.claim
    assert claim is not None
    where = f"On {', '.join(code(p) for p in claim.problems)}, {claim.seeds} seeds. Check it with"
    parts = [f"> {text(claim.sentence)}", where, f"```console\n$ didact claim {cls.card.slug}\n```"]
    arms = claim.runs(cls.card.slug)
    table = ["| arm | is run as |", "|---|---|", *(f"| {code(a)} | {code(r)} |" for a, r in arms.items())]
    parts.append("\n".join(table))
    measured = {e["text"]: e for e in (verdict or {}).get("expectations", [])}
    parts.append(f"**Verdict:** {outcome(verdict)}" + _when(verdict))
    parts.append(_expectations([measured.get(e.text, {"text": e.text}) for e in claim.expects]))
    if claim.note:
        parts.append(f"!!! note\n    {text(claim.note)}")
    if measured:
        parts.append(
            "An effect of at least 0 meets its expectation; see [how verdicts are made](../ideas.md#verdicts)."
        )
    return "\n\n".join(parts)


def _expectations(judged: Sequence[dict[str, Any]]) -> str:
    if not any("outcome" in e for e in judged):
        return "\n".join(["| expectation |", "|---|", *(f"| {cell(e['text'])} |" for e in judged)])
    lines = ["| expectation | outcome | effect | one-sided 95 % bounds | observations |", "|---|---|---:|---|---:|"]
    for e in judged:
        count = str(e.get("observations", "")) + (f" ({cell(e['missing'])})" if e.get("missing") else "")
        lines.append(f"| {cell(e['text'])} | {mark(e.get('outcome', ''))} | {number(e.get('effect'))} "
                     f"| {bounds(e)} | {count} |")  # fmt: skip
    return "\n".join(lines)


def _when(verdict: dict[str, Any] | None) -> str:
    if not verdict:
        return "."
    date = str(verdict.get("about", {}).get("date", ""))[:10]
    return f", {verdict['seeds']} seeds" + (f", {date}." if date else ".")


def _index(verdicts: dict[str, dict[str, Any]]) -> str:
    parts = [
        "# Methods",
        "Every method that is registered, by family. The verdict is that of the last full run of its "
        "[claim](../claims.md). A method without one has a dash; one that is judged in another's claim names it.",
    ]
    for family, methods in _by_family().items():
        lines = ["| method | what it does | paper | verdict |", "|---|---|---|---|"]
        for cls in methods:
            paper = f"{cls.card.paper.authors}, {cls.card.paper.year}" if cls.card.paper else "baseline"
            found = outcome(verdicts.get(cls.card.slug)) if cls.claim else "–"
            if not cls.claim and cls.card.part_of:
                found = f"in {_link(cls.card.part_of)}"
            lines.append(f"| [{cls.card.slug}]({cls.card.slug}.md) | {cell(cls.summary())} | {cell(paper)} | {found} |")
        parts += [f"## {family.title}", text(family.summary[:1].upper() + family.summary[1:]) + ".", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _claims(verdicts: dict[str, dict[str, Any]]) -> str:
    claiming = [m for methods in _by_family().values() for m in methods if m.claim]
    counts = dict.fromkeys(("holds", "fails", "undecided", "not run yet"), 0)
    for cls in claiming:
        counts[verdicts.get(cls.card.slug, {}).get("outcome", "not run yet")] += 1
    summary = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "none yet"
    parts = [
        "# Claims",
        "What each paper's central sentence came to when it was measured here, at the scale of the embedded problems. "
        "A claim that fails is a result too. See [how verdicts are made](ideas.md#verdicts).",
        f"{len(claiming)} claim{'s' if len(claiming) != 1 else ''}: {summary}.",
    ]
    for cls in claiming:
        slug, verdict = cls.card.slug, verdicts.get(cls.card.slug)
        assert cls.claim is not None
        judged = (verdict or {}).get("expectations") or [{"text": e.text} for e in cls.claim.expects]
        parts += [f"## {slug}", f"**Verdict:** {outcome(verdict)}{_when(verdict)} [The method](methods/{slug}.md) "
                  f"on {', '.join(code(p) for p in cls.claim.problems)}.", f"> {text(cls.claim.sentence)}"]  # fmt: skip
        parts.append(_expectations(judged))
        if cls.claim.note:
            parts.append(f"!!! note\n    {text(cls.claim.note)}")
    return "\n\n".join(parts) + "\n"


def outcome(verdict: dict[str, Any] | None) -> str:
    return mark(verdict["outcome"]) if verdict else "not&nbsp;run&nbsp;yet"


def mark(word: str) -> str:
    return f'<span class="verdict verdict-{word}">{word}</span>' if word else ""


def number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:+.3f}"


def bounds(judged: dict[str, Any]) -> str:
    low, high = number(judged.get("low")), number(judged.get("high"))
    return f"[{low}, {high}]" if low and high and low != high else ""


# -- text that becomes Markdown ----------------------------------------------------------------------------------------


def docstring(doc: str) -> str:
    """A plain-text docstring as Markdown: its paragraphs, and labelled lines such as "Cost:" as paragraphs."""
    clean = inspect.cleandoc(doc)
    clean = re.sub(rf"\n(?=(?:{'|'.join(LABELS)}): )", "\n\n", clean)
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", clean)]
    return "\n\n".join(_paragraph(part) for part in parts if part)


def _paragraph(part: str) -> str:
    if part.startswith("    "):
        return part  # an indented block is code
    label, colon, rest = part.partition(":")
    if colon and label in LABELS:
        return f"**{label}.** {text(rest.strip())}"
    return text(part)


def text(words: str) -> str:
    """Plain text with `code` in backticks: outside those, nothing may be taken for Markdown or HTML."""
    pieces = re.split(r"(`+[^`]+`+)", words)
    return "".join(piece if piece.startswith("`") else _escaped(piece) for piece in pieces)


def _escaped(words: str) -> str:
    words = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\*_\[\]])", r"\\\1", words)


def cell(words: str) -> str:
    """Text in a cell of a table."""
    pieces = re.split(r"(`+[^`]+`+)", " ".join(words.split()))
    return "".join(code(p.strip("`")) if p.startswith("`") else _escaped(p).replace("|", "&#124;") for p in pieces)


def code(words: str) -> str:
    """Code that may hold a pipe, also in a table."""
    safe = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")
    safe = re.sub(r"[*`]|(?<!\w)_|_(?!\w)", lambda found: f"&#{ord(found[0])};", safe)
    return f"<code>{safe}</code>" if words else ""

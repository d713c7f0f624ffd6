"""Docstrings as HTML: paragraphs, labelled paragraphs ("Cost:"), code in backticks and indented examples."""

from __future__ import annotations

import inspect
import re

from markupsafe import Markup, escape

#: beginnings of docstring lines that stand as paragraphs of their own
LABELS = ("Errors", "Cost", "Reference", "References", "Raises", "Shapes", "Units", "Memory", "Time", "Needs")


def docstring(doc: str) -> Markup:
    clean = re.sub(rf"\n(?=(?:{'|'.join(LABELS)}): )", "\n\n", inspect.cleandoc(doc))
    parts = [part.strip("\n") for part in re.split(r"\n\s*\n", clean)]
    return Markup("\n").join(_paragraph(part) for part in parts if part)


def inline(words: str) -> Markup:
    """Text with `code` in backticks and *stress* between stars."""
    pieces = re.split(r"(`+[^`]+`+|(?<!\w)\*\w[^*\n]*\*(?!\w))", words)
    return Markup("").join(map(_piece, pieces))


def _piece(piece: str) -> Markup:
    if piece.startswith("`"):
        return Markup("<code>{}</code>").format(piece.strip("`"))
    if re.fullmatch(r"\*\w[^*\n]*\*", piece):
        return Markup("<em>{}</em>").format(piece.strip("*"))
    return escape(piece)


def _paragraph(part: str) -> Markup:
    if part.startswith("    "):
        return Markup("<pre tabindex=0><code>{}</code></pre>").format(inspect.cleandoc("\n" + part))
    label, colon, rest = part.partition(":")
    if colon and label in LABELS:
        return Markup("<p><strong>{}.</strong> {}</p>").format(label, inline(rest.strip()))
    lines = part.split("\n")
    if all(line.lstrip().startswith(("- ", "* ")) or line.startswith("  ") for line in lines) and len(lines) > 1:
        return _items(lines)
    return Markup("<p>{}</p>").format(inline(part))


def _items(lines: list[str]) -> Markup:
    items: list[str] = []
    for line in lines:
        if line.lstrip().startswith(("- ", "* ")):
            items.append(line.lstrip()[2:])
        elif items:
            items[-1] += " " + line.strip()
    return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(inline(i)) for i in items))

"""Filling in templates: one Jinja environment, and what every page needs (who is signed in, the CSRF token)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from didact import __version__
from didact.engine.words import amount
from didact.web.board.prose import inline
from didact.web.board.reader import moment
from didact.web.security import csrf_token, current_user
from didact.web.static import has_htmx


def render(
    request: Request, template: str, status: int = 200, /, *, headers: Mapping[str, str] | None = None, **context: Any
) -> HTMLResponse:
    """A page, or a part of one when HTMX asked for it (`template` then is that of the part)."""
    try:
        user = current_user(request)
    except Exception:  # an error page for a bad token must itself be shown
        user = None
    shared = {
        "request": request,
        "path": request.url.path,
        "user": user,
        "status": status,
        "csrf": csrf_token(request),
        "htmx": has_htmx(),
        "version": __version__,
    }
    return HTMLResponse(templates().get_template(template).render({**shared, **context}), status, headers)


def wants_part(request: Request) -> bool:
    """Did HTMX ask for the part of a page that changes? (Going back in history asks for the whole page.)"""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-history-restore-request") != "true"


@cache
def templates() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(_source)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "amount": amount,
        "date": date,
        "day": day,
        "inline": inline,
        "query": with_query,
        "share": lambda value: f"{100 * value:.0f}\u00a0%",
        "size": lambda value: amount(float(value), "B"),
        "shape": lambda shape: " × ".join(map(str, shape)) or "one value",
    }
    return environment


def date(text: str) -> str:
    """`2026-11-20 11:14`, in UTC."""
    found = moment(text)
    return f"{found:%Y-%m-%d %H:%M}" if found else text


def day(text: str) -> str:
    return date(text)[:10]


def with_query(given: Mapping[str, Any], **changes: Any) -> str:
    """The query string of this page with some parts changed; empty parts are left out."""
    parts = {key: value for key, value in {**given, **changes}.items() if value not in (None, "", [], ())}
    return "?" + urlencode(parts, doseq=True) if parts else "?"


def _source(name: str) -> str | None:
    file = files("didact.web") / "templates" / name
    return file.read_text(encoding="utf-8") if file.is_file() else None

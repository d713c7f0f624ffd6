"""The style sheet, the script and the icon that pages load, and HTMX from the package that carries it."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response

from didact.reusing.dock.errors import NotFound

KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
NAMES = ("style.css", "app.js", "icon.svg")

router = APIRouter()


@router.get("/static/{name}")
def static_file(name: str, request: Request) -> Response:
    """A file by name. Browsers keep it and ask whether it has changed."""
    content = _content(name)
    if content is None:
        raise NotFound("not-found", f"There is no file {name!r}.")
    tag = f'"{sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=KINDS[Path(name).suffix], headers=headers)


@cache
def has_htmx() -> bool:
    """Pages work without HTMX; with it, parts of them are renewed in place."""
    return _htmx() is not None


@cache
def _content(name: str) -> bytes | None:
    if name in NAMES:
        return (files(__package__) / name).read_bytes()
    htmx = _htmx()
    return htmx.read_bytes() if name == "htmx.js" and htmx is not None else None


def _htmx() -> Path | None:
    # Found without importing it: the package itself needs Django, its script does not.
    spec = find_spec("django_htmx")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / "static" / "django_htmx" / "htmx-2.min.js"
    return file if file.is_file() else None

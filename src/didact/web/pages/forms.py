"""What the forms of several pages share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Form, Query
from fastapi.responses import RedirectResponse

from didact.reusing.dock.service import LearnwareInfo
from didact.web.security import check_csrf

#: for routes that change something
OWN_PAGE = [Depends(check_csrf)]

Text = Annotated[str, Form(max_length=20_000)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]


def see(path: str) -> RedirectResponse:
    """After a form: go and look (so that a reload does not send it again)."""
    return RedirectResponse(path, 303)


def local(path: str) -> str:
    """A path on this site, or "/" when it would lead elsewhere."""
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if inside else "/"


def state_of(info: LearnwareInfo) -> tuple[str, str]:
    """How a learnware stands, in words, and the class they are drawn with."""
    if info.visible:
        return "usable", "usable"
    if info.status in ("SUCCESS", "FAIL"):
        return "invalid" if info.usable == -1 else "not usable", "failed"
    return {"WAITING": "waiting", "QUEUE": "in the queue"}.get(info.status, "being checked"), "pending"

"""The pages for people: the dock's, the board's, the digest's. Rendered here, good without JavaScript."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from didact.web import static
from didact.web.board import routes as board
from didact.web.pages import account, admin, browse, digest, learnware, submit
from didact.web.rendering import render

if TYPE_CHECKING:
    from didact.reusing.dock.service import Dock
    from didact.web.mail import MailSettings

HEADINGS = {
    401: "Sign in first",
    403: "This is not yours to do",
    404: "Not here",
    409: "That does not go together",
    413: "Too large",
    422: "Something is not as expected",
    429: "Too many requests",
    500: "Something broke",
}


def router(dock: Dock, ledger_url: str | None, mail: MailSettings | None) -> APIRouter:
    """Every page. They read `dock`, `ledger_url` and `mail` from the application's state, where the app put them."""
    pages = APIRouter()
    for part in (static, browse, learnware, submit, account, admin, digest, board):
        pages.include_router(part.router)
    return pages


def error_page(request: Request, status: int, code: str, message: str) -> Response:
    """A refusal as a page. Whoever is not signed in and follows a link is asked to, and then brought there."""
    if status == 401 and request.method == "GET" and request.url.path != "/sign-in":
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(there)}", 303)
    heading = HEADINGS.get(status, "This did not work")
    back = request.url.path if request.method == "GET" else "/"
    return render(request, "error.html", status, heading=heading, message=message, code=code, back=back)

"""Submitting a package, and one's own learnwares."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from didact.core.errors import BadInput, DidactError
from didact.reusing.dock.errors import DockError
from didact.reusing.dock.service import Duplicate
from didact.web.pages.forms import PageNumber, see, state_of
from didact.web.rendering import render
from didact.web.security import SignedIn, TheDock, check_csrf

router = APIRouter()


@router.get("/submit")
def submit_form(request: Request, dock: TheDock, user: SignedIn) -> Response:
    return _page(request, dock.settings.max_upload)


@router.post("/submit")
async def submit(request: Request, dock: TheDock, user: SignedIn) -> Response:
    """The whole package in one form, for browsers without JavaScript: with it, the page sends pieces to the API.

    The form is read here and not by FastAPI, which would take in the file before it asks who sends it.
    """
    await check_csrf(request)
    try:
        async with request.form(max_files=1) as form:
            package = form.get("package")
            if not isinstance(package, UploadFile) or not package.filename:
                raise BadInput("Choose a package first: a zip file that write_package made.")
            info = await run_in_threadpool(dock.submit, package.file, user)
    except Duplicate as error:
        if error.learnware:
            return see(f"/learnwares/{error.learnware}")
        return _page(request, dock.settings.max_upload, str(error), error.status)
    except DidactError as error:
        status = error.status if isinstance(error, DockError) else 400
        return _page(request, dock.settings.max_upload, str(error), status)
    return see(f"/learnwares/{info.id}")


@router.get("/mine")
def mine(request: Request, dock: TheDock, user: SignedIn, page: PageNumber = 1) -> Response:
    found = dock.list(mine=user, page=page, limit=20)
    return render(
        request, "dock/mine.html", shown=found, page=page, uploads=dock.uploads(user), state_of=state_of, given={}
    )


def _page(request: Request, largest: int, alert: str = "", status: int = 200) -> Response:
    return render(request, "dock/submit.html", status, largest=largest, alert=alert)

"""Learnwares: look, download, change, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse

from didact.reusing.dock.errors import NotFound, NotSignedIn
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.service import Status
from didact.web.api.readers import Reader
from didact.web.api.schemas import ChangeIn, Id, LearnwareOut, LearnwaresOut, Limit, LogOut, PageNumber, errors
from didact.web.security import SignedIn, TheDock

router = APIRouter(prefix="/learnwares", tags=["learnwares"])
ZIP = "application/zip"


@router.get("")
def listed(
    dock: TheDock,
    reader: Reader,
    mine: Annotated[bool, Query(description="Only one's own, in whatever state.")] = False,
    status: Annotated[Status | None, Query()] = None,
    page: Annotated[PageNumber, Query()] = 1,
    limit: Annotated[Limit, Query()] = 20,
) -> LearnwaresOut:
    """Learnwares, newest first. Only usable ones, except for one's own and for admins."""
    if mine and reader is None:
        raise NotSignedIn("missing-token", "Your own learnwares are known when you are signed in: send a token.")
    found = dock.list(mine=reader if mine else None, status=status, page=page, limit=limit, reader=reader)
    return LearnwaresOut.of(found)


@router.get("/{id}", responses=errors(404))
def info(dock: TheDock, reader: Reader, id: Id) -> LearnwareOut:
    """Everything that is known about a learnware."""
    return LearnwareOut.of(dock.info(id, reader))


@router.get(
    "/{id}/download",
    response_class=FileResponse,
    responses={200: {"content": {ZIP: {"schema": {"type": "string", "format": "binary"}}}}, **errors(404)},
)
def download(dock: TheDock, reader: Reader, id: Id) -> FileResponse:
    """The package, a zip file. Its SHA-256 is the ETag; parts can be asked for with Range."""
    known = dock.info(id, reader)
    path = dock.download(id, reader)
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise NotFound("no-learnware", f"The learnware {id!r} was just removed.") from None
    headers = {"ETag": f'"{known.sha256}"'}
    return FileResponse(path, media_type=ZIP, filename=f"{id}.zip", headers=headers, stat_result=stat)


@router.get("/{id}/log", responses=errors(404))
def log(dock: TheDock, reader: Reader, id: Id) -> LogOut:
    """What the check of a learnware wrote."""
    return LogOut(id=id, log=dock.log(id, reader))


@router.put("/{id}", responses=errors(404, 409, 413))
def update(dock: TheDock, user: SignedIn, id: Id, change: ChangeIn) -> LearnwareOut:
    """Give one's learnware other words."""
    return LearnwareOut.of(dock.update(id, semantic=SemanticSpecification.parse(change.semantic), by=user))


@router.post("/{id}/check", status_code=202, responses=errors(404, 409, 413))
def recheck(dock: TheDock, user: SignedIn, id: Id) -> LearnwareOut:
    """Put one's learnware into the checking queue once more."""
    return LearnwareOut.of(dock.recheck(id, by=user))


@router.delete("/{id}", status_code=204, response_class=Response, responses=errors(404, 409, 413))
def delete(dock: TheDock, user: SignedIn, id: Id) -> None:
    """Remove one's learnware for good."""
    dock.delete(id, by=user)

"""Submitting: announce a package by its hash, send it piece by piece, then make it a learnware.

Every step may be repeated. After a broken connection, announce again: the answer says where to go on.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from didact.reusing.dock.service import Upload
from didact.web.api.schemas import LearnwareOut, SubmissionIn, UploadIn, UploadOut, errors
from didact.web.security import SignedIn, TheDock
from didact.web.settings import MEGABYTE

router = APIRouter(tags=["submit"])
PIECE = MEGABYTE  # what is written at once; memory per upload stays at about this
HashInPath = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/uploads", status_code=201, responses=errors(409, 413))
def begin(request: Request, dock: TheDock, user: SignedIn, upload: UploadIn) -> UploadOut:
    """Announce a package. When some of it is here already, `offset` says where to go on."""
    return _out(request, dock.begin_upload(user, upload.sha256, upload.size))


@router.get("/uploads")
def under_way(request: Request, dock: TheDock, user: SignedIn) -> list[UploadOut]:
    """One's own uploads that have not become learnwares yet."""
    return [_out(request, upload) for upload in dock.uploads(user)]


@router.put("/uploads/{sha256}", openapi_extra=BODY, responses=errors(404, 409, 413))
async def send(
    request: Request,
    dock: TheDock,
    user: SignedIn,
    sha256: HashInPath,
    offset: Annotated[int, Query(ge=0, le=2**53)],
) -> UploadOut:
    """Send the next piece of a package as the raw body. What has arrived is kept even if the connection breaks."""
    held = bytearray()
    upload: Upload | None = None
    try:
        async for part in request.stream():
            held += part
            if len(held) >= PIECE:
                upload = await run_in_threadpool(dock.write_chunk, user, sha256, offset, bytes(held))
                offset = upload.offset
                held.clear()
    except ClientDisconnect:
        if held:
            await run_in_threadpool(dock.write_chunk, user, sha256, offset, bytes(held))
        raise
    if held or upload is None:
        upload = await run_in_threadpool(dock.write_chunk, user, sha256, offset, bytes(held))
    return _out(request, upload)


@router.delete("/uploads/{sha256}", status_code=204, response_class=Response, responses=errors(404, 409, 413))
def cancel(dock: TheDock, user: SignedIn, sha256: HashInPath) -> None:
    """Forget an upload that is under way."""
    dock.cancel_upload(user, sha256)


@router.post("/learnwares", status_code=201, responses=errors(404, 409, 413))
def submit(dock: TheDock, user: SignedIn, submission: SubmissionIn) -> LearnwareOut:
    """Make a complete upload a learnware. It is visible to others once its check has found it usable."""
    return LearnwareOut.of(dock.submit_upload(user, submission.sha256))


def _out(request: Request, upload: Upload) -> UploadOut:
    return UploadOut.of(upload, request.app.state.settings.max_chunk)

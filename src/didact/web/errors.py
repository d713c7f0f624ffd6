"""Every refusal as {"error": code, "message": sentence} with its status; for a browser, as a page."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from didact.core.errors import DidactError
from didact.reusing.dock.errors import DockError
from didact.web.security import SecurityHeaders

CODES = {400: "bad-request", 404: "not-found", 405: "method-not-allowed", 406: "not-acceptable"}
DETAILS = ("offset", "learnware")  # what some refusals say for machines beyond their code

log = logging.getLogger("didact.web")


def install(app: FastAPI) -> None:
    """Give the application one handler for each kind of error."""
    app.add_exception_handler(DidactError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)


def error_json(
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, object] | None = None,
) -> JSONResponse:
    """The one shape of an error."""
    extra = dict(headers or {})
    if status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse({"error": code, "message": message, **(details or {})}, status, headers=extra)


def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, DockError):
        wait = getattr(error, "retry_after", None)
        headers = {"Retry-After": str(max(1, math.ceil(wait)))} if wait is not None else None
        known = {name: getattr(error, name, None) for name in DETAILS}
        details = {name: value for name, value in known.items() if value not in (None, "")}
        return _answer(request, error.status, error.code, str(error), headers, details)
    return _answer(request, 400, "bad-input", str(error))


def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return _answer(request, 422, "invalid-request", "The request is not as expected. " + "; ".join(parts))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, f"http-{error.status_code}")
    return _answer(request, error.status_code, code, str(error.detail), error.headers)


def _failed(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    about = (500, "internal-error", "The server met an error of its own. It is in the server's log.")
    try:
        response = _answer(request, *about)
    except Exception:  # what is broken may be the pages themselves
        response = error_json(*about)
    response.headers.update(SecurityHeaders.HEADERS)  # the handler of last resort stands outside the middleware
    return response


def _answer(
    request: Request,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str] | None = None,
    details: Mapping[str, object] | None = None,
) -> Response:
    if request.url.path.startswith("/v1/"):
        return error_json(status, code, message, headers, details)
    response: Response = request.app.state.error_page(request, status, code, message)
    response.headers.update(headers or {})
    return response

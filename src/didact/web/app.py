"""The application: one dock, its API under /v1, its pages and the board."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI

from didact import __version__
from didact.reusing.dock.accounts import RateLimit
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.service import Dock
from didact.web import api, errors, pages
from didact.web.limits import BodyLimit
from didact.web.security import SecurityHeaders, limit_requests
from didact.web.settings import WebSettings

if TYPE_CHECKING:
    from didact.web.mail import MailSettings


def create_app(
    dock: Dock,
    ledger_url: str | None = None,
    mail: MailSettings | None = None,
    *,
    settings: WebSettings | None = None,
) -> FastAPI:
    """The FastAPI application over a dock.

    Pages and API find what they need in `app.state`: `dock`, `settings`, `ledger_url`, `mail`. Refusals reach
    programs as JSON and browsers through `pages.error_page(request, status, code, message)`.
    """
    settings = settings or WebSettings()
    app = FastAPI(
        title="didact learnware dock",
        version=__version__,
        summary="Models that describe themselves: submit, search by specification, reuse.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # the usual pages load scripts from elsewhere, which the content policy forbids
        redoc_url=None,
        lifespan=_lifespan,
    )
    app.state.dock = dock
    app.state.settings = settings
    app.state.ledger_url = ledger_url
    app.state.mail = mail
    app.state.error_page = pages.error_page
    app.state.search_limit = CapacityLimiter(settings.searches_at_once)
    app.state.request_limit = RateLimit(settings.requests_per_minute, settings.burst)
    app.state.sign_in_limit = RateLimit(settings.sign_ins_per_minute, settings.sign_in_burst)

    app.add_middleware(BodyLimit, dock=dock, settings=settings)
    app.add_middleware(SecurityHeaders)
    errors.install(app)
    app.include_router(api.router, prefix="/v1")
    app.add_api_route("/healthz", health, include_in_schema=False)
    app.include_router(
        pages.router(dock, ledger_url, mail), include_in_schema=False, dependencies=[Depends(limit_requests)]
    )
    return app


def health() -> dict[str, str]:
    """For a supervisor: the process answers."""
    return {"status": "ok"}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the checking queue beside the server. What is being checked when the server stops goes back to the queue."""
    stop = threading.Event()
    checker = threading.Thread(target=Checker(app.state.dock).run_forever, args=(stop,), name="checker", daemon=True)
    if app.state.settings.checker:
        checker.start()
    try:
        yield
    finally:
        stop.set()
        if checker.is_alive():
            checker.join(timeout=5.0)

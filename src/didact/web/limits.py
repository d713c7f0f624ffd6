"""No request is read further than its limit, whatever its headers promise."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from didact.reusing.dock.service import Dock
from didact.web.errors import error_json
from didact.web.settings import MEGABYTE, WebSettings


class BodyLimit:
    """ASGI middleware: 413 as soon as a request's body is, or claims to be, longer than its path allows."""

    def __init__(self, app: ASGIApp, dock: Dock, settings: WebSettings) -> None:
        self.app = app
        self.dock = dock
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        limit = self.limit(scope["path"])
        if _promised(scope) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        counter = _Counter(receive, send, limit)
        try:
            await self.app(scope, counter.receive, counter.send)
        except Exception:
            if not counter.exceeded:
                raise
        if counter.exceeded and not counter.started:
            await _too_large(limit)(scope, receive, send)

    def limit(self, path: str) -> int:
        """How many bytes a request to this path may bring."""
        if path == "/v1/search":
            return self.settings.max_search
        if path.startswith("/v1/uploads/"):
            return self.settings.max_chunk
        if path == "/submit":  # the page's form without JavaScript brings a whole package
            return self.dock.settings.max_upload + MEGABYTE
        return self.settings.max_body


class _Counter:
    """Counts what comes in. Beyond the limit the application sees a closed connection and its answer is dropped."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._seen = 0
        self.exceeded = False
        self.started = False

    async def receive(self) -> Message:
        if self.exceeded:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            self.exceeded = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.exceeded and not self.started:
            return
        self.started = True
        await self._send(message)


def _promised(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def _too_large(limit: int) -> ASGIApp:
    return error_json(413, "oversize", f"A request to this address may bring at most {limit} bytes.")

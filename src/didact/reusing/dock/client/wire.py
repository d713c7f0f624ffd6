"""HTTP with patience: requests that may be repeated are, errors become the dock's own, and bytes that leave count."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from didact.reusing.dock.errors import (
    BadSpecification,
    Conflict,
    DockError,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooLarge,
    TooMany,
)
from didact.reusing.dock.records import Duplicate, WrongOffset

KINDS: dict[int, type[DockError]] = {
    401: NotSignedIn,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: BadSpecification,
    429: TooMany,
}
BUSY = (502, 503, 504)  # worth trying again later, like a 429 that says when
FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0  # seconds


class Unreachable(DockError):
    """No dock answers at this address."""

    status = 503


class Wire:
    """One dock's address, the token that is shown there, and a count of the bytes that were sent."""

    def __init__(
        self, url: str, token: str | None, patience: float, timeout: float, transport: httpx.BaseTransport | None
    ) -> None:
        self.url = url.rstrip("/")
        self.token = token
        self.patience = patience
        self.bytes_sent = 0
        self._http = httpx.Client(
            base_url=self.url, timeout=httpx.Timeout(timeout, connect=10.0), transport=transport, follow_redirects=False
        )

    def close(self) -> None:
        self._http.close()

    def json(self, method: str, path: str, *, repeat: bool = True, **content: Any) -> Any:
        """The answer as JSON; None when there is none. `repeat=False` for what must not happen twice."""
        response = self._send(method, path, repeat=repeat, **content)
        return response.json() if response.content else None

    @contextmanager
    def stream(self, path: str, start: int) -> Iterator[httpx.Response]:
        """A download from byte `start` on. Broken connections are the caller's to continue."""
        # Bytes are counted as they are in the file, so they may not be compressed on the way.
        headers = {**self._headers(), "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _refusal(response)
                yield response
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, *, repeat: bool, **content: Any) -> httpx.Response:
        deadline = time.monotonic() + self.patience
        wait = FIRST_WAIT
        while True:
            try:
                response = self._once(method, path, **content)
                if response.status_code < 400:
                    return response
                refusal = _refusal(response)
                again = response.status_code in BUSY or "Retry-After" in response.headers
                wait = max(wait, _asked_to_wait(response))
            except httpx.TransportError as error:
                refusal = self._unreachable(error)
                # A request that never arrived may be repeated, whatever it was.
                again = repeat or isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            if not again or time.monotonic() + wait > deadline:
                raise refusal
            time.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT)

    def _once(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **content: Any
    ) -> httpx.Response:
        request = self._http.build_request(method, path, headers={**self._headers(), **(headers or {})}, **content)
        self.bytes_sent += len(request.read())
        return self._http.send(request)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(
            "unreachable", f"The dock at {self.url} does not answer ({reason}). Check address and server."
        )


def _refusal(response: httpx.Response) -> DockError:
    """The error that the dock meant."""
    try:
        about = response.json()
        code, message = str(about["error"]), str(about["message"])
    except (ValueError, TypeError, KeyError):
        about, code = {}, f"http-{response.status_code}"
        message = f"The dock answered {response.status_code} {response.reason_phrase}. Is this a dock's address?"
    if code == "wrong-offset" and "offset" in about:
        return WrongOffset(message, int(about["offset"]))
    if code == "duplicate":
        return Duplicate(message, str(about.get("learnware") or ""))
    return KINDS.get(response.status_code, DockError)(code, message)


def _asked_to_wait(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0

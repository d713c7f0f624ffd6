"""Class DockClient: submit, search, download, reuse over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx

from didact.core.cache import cache_folder
from didact.core.errors import BadInput
from didact.reusing.dock.accounts import User
from didact.reusing.dock.client import answers
from didact.reusing.dock.client.transfer import Progress, fetch, send
from didact.reusing.dock.client.wire import Wire
from didact.reusing.dock.errors import DockError
from didact.reusing.dock.paging import Page
from didact.reusing.dock.records import Duplicate, LearnwareInfo, SearchResult, Status
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification

if TYPE_CHECKING:
    from didact.reusing.dock.specification import Gamma, Specification
    from didact.reusing.result import ReuseResult


class DockClient:
    """A learnware dock behind a URL.

    Searching with data builds a specification here and sends only that; `bytes_sent` counts every byte of every
    request's content since this client was made. Connections that break are tried again for `patience` seconds, and
    uploads and downloads go on where they broke off. The methods are those of `LocalDock`.

        dock = DockClient("https://dock.example.org", token=...)
        found = dock.search(X)
        answer = dock.reuse(X)

    Errors: the dock's refusals (`DockError` with a code), and `unreachable` when no dock answers.
    Cost: a search sends about 10 bytes for each number of the specification (100 x columns numbers for a table).
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        patience: float = 30.0,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput(f"A dock's address begins with http:// or https://, but {url!r} was given.")
        self._wire = Wire(url, token, patience, timeout, transport)

    def __enter__(self) -> DockClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    @property
    def url(self) -> str:
        return self._wire.url

    @property
    def token(self) -> str | None:
        return self._wire.token

    @property
    def bytes_sent(self) -> int:
        """Bytes of content that have left this machine through this client."""
        return self._wire.bytes_sent

    def register(self, name: str, email: str, password: str) -> User:
        """Make an account. Sign in with `login` afterwards."""
        account = {"name": name, "email": email, "password": password}
        return answers.user(self._wire.json("POST", "/v1/users", json=account, repeat=False))

    def login(self, name: str, password: str, label: str = "client") -> str:
        """Get a token, use it from now on, and return it."""
        answer = self._wire.json("POST", "/v1/login", json={"name": name, "password": password, "label": label})
        self._wire.token = str(answer["token"])
        return self._wire.token

    def issue_token(self, label: str = "", days: float | None = None) -> str:
        """A further token of the same account."""
        answer = self._wire.json("POST", "/v1/tokens", json={"label": label, "days": days}, repeat=False)
        return str(answer["token"])

    def me(self) -> User:
        """The owner of the token."""
        return answers.user(self._wire.json("GET", "/v1/users/me"))

    def semantics(self) -> dict[str, Any]:
        """The words that specifications may use here, and this dock's kernel widths."""
        answer: dict[str, Any] = self._wire.json("GET", "/v1/semantics")
        return answer

    def submit(self, package: str | Path, progress: Progress | None = None) -> LearnwareInfo:
        """Send a package. It is checked soon; `wait` returns when that is done.

        `progress(done, size)` is called as bytes arrive. Interrupted at any point, the same call goes on.
        """
        package = Path(package)
        if not package.is_file():
            raise BadInput(f"A package is a zip file, but there is no file {package}. Make one with write_package.")
        sha256 = send(self._wire, package, progress)
        try:
            return answers.learnware(self._wire.json("POST", "/v1/learnwares", json={"sha256": sha256}))
        except Duplicate as known:
            # The upload was ours to begin, so this is the answer to our own request, which got lost on the way.
            if not known.learnware:
                raise
            return self.info(known.learnware)

    def search(
        self,
        data: Any = None,
        *,
        specification: Specification | None = None,
        query: SemanticQuery | Mapping[str, Any] | None = None,
        kind: Literal["Table", "Image", "Text"] = "Table",
        limit: int = 20,
        page: int = 1,
        mixture: Literal["greedy", "auto"] | None = "greedy",
        encoder: Any = None,
        columns: Mapping[int, str] | Sequence[str] | None = None,
        across: bool = False,
        seed: int = 0,
    ) -> SearchResult:
        """The learnwares that fit one's data (or a specification of them), a query in words, or both.

        `data` (samples, ...) never leaves this machine: its specification does. `columns` says what the columns of
        one's table mean, and is sent too: then tables with other columns are found when there are none with as many,
        or at once with `across`.
        """
        if data is not None:
            if specification is not None:
                raise BadInput("Search with data or with a specification of them, not with both.")
            specification = self.specify(data, kind, encoder=encoder, seed=seed)
        form: dict[str, Any] = {"limit": limit, "page": page, "mixture": mixture or "none"}
        if query is not None:
            parsed = query if isinstance(query, SemanticQuery) else SemanticQuery.parse(query)
            form["semantic"] = parsed.model_dump_json(exclude_defaults=True)
        if columns is not None:
            form["columns"] = json.dumps(dict(columns) if isinstance(columns, Mapping) else list(columns))
        if across:
            form["across"] = "true"
        files: dict[str, Any] = {name: (None, str(value)) for name, value in form.items()}
        if specification is not None:
            files["specification"] = ("stat.json", _compact(specification.to_json()))
        return answers.search_result(self._wire.json("POST", "/v1/search", files=files))

    def specify(
        self,
        data: Any,
        kind: Literal["Table", "Image", "Text"] = "Table",
        *,
        encoder: Any = None,
        seed: int = 0,
    ) -> Specification:
        """The specification of data, made here with this dock's kernel width."""
        from didact.reusing.dock.specification import specify
        from didact.reusing.dock.specification.encoders import encoder_for

        made_by = encoder_for(kind, encoder)
        gamma = self._gamma.of(f"rkme-{kind.lower()}", made_by.id if made_by else "")
        return specify(data, kind, encoder=made_by, gamma=gamma, seed=seed)

    @cached_property
    def _gamma(self) -> Gamma:
        from didact.reusing.dock.specification import Gamma

        return Gamma.from_json(self.semantics()["gamma"])

    def info(self, id: str) -> LearnwareInfo:
        """What is known about a learnware."""
        return answers.learnware(self._wire.json("GET", f"/v1/learnwares/{id}"))

    def list(
        self, *, mine: bool = False, status: Status | None = None, page: int = 1, limit: int = 20
    ) -> Page[LearnwareInfo]:
        """Learnwares, newest first; one's own in whatever state with `mine`."""
        asked = {"mine": mine, "status": status, "page": page, "limit": limit}
        given = {name: value for name, value in asked.items() if value is not None}
        return answers.learnwares(self._wire.json("GET", "/v1/learnwares", params=given))

    def mine(self, page: int = 1, limit: int = 20) -> Page[LearnwareInfo]:
        """One's own learnwares."""
        return self.list(mine=True, page=page, limit=limit)

    def log(self, id: str) -> str:
        """What the check of a learnware wrote."""
        return str(self._wire.json("GET", f"/v1/learnwares/{id}/log")["log"])

    def wait(self, id: str, timeout: float = 1800.0) -> LearnwareInfo:
        """Return when a learnware has been checked. Errors: `timeout` when that takes longer than this."""
        deadline = time.monotonic() + timeout
        pause = 0.1
        while True:
            info = self.info(id)
            if info.status in ("SUCCESS", "FAIL"):
                return info
            if time.monotonic() + pause > deadline:
                raise DockError("timeout", f"The check of {id} has not ended after {timeout:g} s; it is {info.status}.")
            time.sleep(pause)
            pause = min(1.5 * pause, 5.0)

    def download(self, id: str, to: str | Path | None = None, progress: Progress | None = None) -> Path:
        """The package of a learnware, as a file whose hash was checked.

        `to` is a file or a folder; left out, a cache, where what is there already is not fetched again.
        """
        info = self.info(id)
        if to is None:
            target = cache_folder() / "learnwares" / f"{info.sha256}.zip"
        else:
            target = Path(to) / f"{id}.zip" if Path(to).is_dir() else Path(to)
        return fetch(self._wire, f"/v1/learnwares/{id}/download", target, info.sha256, info.size, progress)

    def update(self, id: str, semantic: SemanticSpecification | Mapping[str, Any]) -> LearnwareInfo:
        """Give one's learnware other words."""
        words = semantic if isinstance(semantic, SemanticSpecification) else SemanticSpecification.parse(semantic)
        return answers.learnware(self._wire.json("PUT", f"/v1/learnwares/{id}", json={"semantic": words.to_json()}))

    def recheck(self, id: str) -> LearnwareInfo:
        """Have one's learnware checked again, and return when that is done."""
        self._wire.json("POST", f"/v1/learnwares/{id}/check", repeat=False)
        return self.wait(id)

    def delete(self, id: str) -> None:
        """Remove one's learnware for good."""
        self._wire.json("DELETE", f"/v1/learnwares/{id}", repeat=False)

    def reuse(self, data: Any, labelled: Any = None, how: str = "auto", **options: Any) -> ReuseResult:
        """Search with data, download what fits, and make a predictor of it. See `reuse_from` for the options."""
        from didact.reusing.learnware_dock import reuse_from

        return reuse_from(self, data, labelled, how=how, **options)


def _compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

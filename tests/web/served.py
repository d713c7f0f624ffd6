"""A dock with people and learnwares in it, for the tests of the web side."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from starlette.testclient import TestClient

from didact.reusing.dock.accounts import User
from didact.reusing.dock.package import write_package
from didact.reusing.dock.records import DockSettings, LearnwareInfo
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.service import Dock
from didact.reusing.dock.specification import Specification, specify
from didact.reusing.dock.storage.work import Outcome
from didact.web.app import create_app
from didact.web.settings import WebSettings

ROLES = ("none", "unknown", "revoked", "expired", "foreign", "owner", "admin")
PASSWORD = "correct horse battery"
FREELY = WebSettings(checker=False, requests_per_minute=1e6, burst=10**6, sign_ins_per_minute=1e6, sign_in_burst=10**6)

_numbers = count()


def table(n: int = 40, seed: int = 0, centre: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 4) in two classes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(centre, 1.0, (n, 4))
    return x, (x[:, 0] > centre).astype(int)


def semantic(name: str) -> SemanticSpecification:
    return SemanticSpecification(
        name=name,
        description="Tells which side a point is on.",
        data="Table",
        task="Classification",
        library="scikit-learn",
        scenario=("Education",),
        licence="MIT",
        input={"dimension": 4},
        output={"dimension": 2, "description": {0: "left", 1: "right"}},
    )


def specification(seed: int = 0, centre: float = 0.0) -> Specification:
    return specify(table(seed=seed, centre=centre)[0], "Table", k=5)


def package(folder: Path, name: str | None = None, centre: float = 0.0) -> Path:
    """A package that no other call makes."""
    number = next(_numbers)
    x, y = table(seed=number, centre=centre)
    return write_package(
        folder / f"package-{number}.zip",
        LogisticRegression().fit(x, y),
        semantic=semantic(name or f"sides {number}"),
        specification=specification(number, centre),
        input_shape=(4,),
        output_shape=(2,),
    )


@dataclass
class Served:
    """A dock behind its application, and the people who use it."""

    folder: Path
    client: TestClient
    dock: Dock
    users: dict[str, User]
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # by role

    def submit(self, owner: str = "owner", usable: bool = False, **options: object) -> LearnwareInfo:
        info = self.dock.submit(package(self.folder, **options), self.users[owner])
        return self.judge(info.id) if usable else info

    def judge(self, id: str, usable: int = 1) -> LearnwareInfo:
        """As if the check had come to this end."""
        held = []
        while (item := self.dock.work.take("test", 60.0)) is not None and item.id != id:
            held.append(item.id)
        assert item is not None, f"{id} is not in the queue"
        self.dock.work.finish(id, "test", Outcome(usable, "", "judged by a test"))
        for other in held:
            self.dock.work.give_back(other, "test")
        return self.dock.info(id, self.users["admin"])


def serve(folder: Path, web: WebSettings = FREELY, **settings: object) -> Served:
    """A dock with users `owner`, `foreign` and `admin`, and a token for every role."""
    options = {"queue_per_owner": 1000, **settings}
    dock = Dock(DockSettings(folder=folder / "dock", **options))
    accounts = dock.accounts
    users = {"admin": accounts.ensure_admin("root")[0]}
    for role, name in (("owner", "ann"), ("foreign", "bob")):
        users[role] = accounts._create(name, f"{name}@example.org", PASSWORD, "user")
    secrets = {role: accounts.issue(users[role]).secret for role in users}
    expired = accounts.issue(users["admin"], days=1e-9).secret
    revoked = accounts.issue(users["admin"])
    accounts.revoke(revoked.id, by=users["admin"])
    secrets |= {"expired": expired, "revoked": revoked.secret, "unknown": "didact_never_issued"}
    headers = {role: {"Authorization": f"Bearer {secret}"} for role, secret in secrets.items()}
    client = TestClient(create_app(dock, settings=web), raise_server_exceptions=True)
    time.sleep(0.001)
    return Served(folder, client, dock, users, {"none": {}, **headers})


class Background:
    """An application served over real HTTP by a thread of this process."""

    def __init__(self, app: object) -> None:
        import socket

        import uvicorn

        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        deadline = time.monotonic() + 10
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.url

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()

"""Kill a serving dock at random moments: nothing acknowledged is lost, nothing is there twice or by half.

The process that is killed holds a dock, a checker and clients that upload packages in chunks and remove some of them
again. It notes what was acknowledged in a file. What it leaves is inspected with SQL and hashes, not with the dock.
"""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from wares import write

from didact.reusing.dock.accounts import User
from didact.reusing.dock.checking import CheckReport
from didact.reusing.dock.errors import NotFound
from didact.reusing.dock.package import open_package
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.service import Dock, DockSettings, Duplicate

ADMIN = User(1, "root", "a@b", "admin", "")
MOMENTS = ("any", "checking", "uploading")
KINDS = ("good", "bad", "gone")  # usable, refused by the check, removed again by its owner


def test_six_kills_lose_nothing(tmp_path):
    kill_and_go_on(tmp_path, kills=6, seed=1)


@pytest.mark.slow
def test_fifty_kills_lose_nothing(tmp_path):
    kill_and_go_on(tmp_path, kills=50, seed=2)


def kill_and_go_on(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    packages = [folder / f"{kind} {i}.zip" for i in range(kills) for kind in KINDS]
    for path in packages:
        write(path.stem, weights=rng.randbytes(2000), folder=folder)
    during = []
    for i in range(kills):
        server = start(folder, packages, slow=True)
        wait_for(MOMENTS[i % len(MOMENTS)], folder, rng)
        os.kill(server.pid, signal.SIGKILL)
        server.join()
        assert server.exitcode == -signal.SIGKILL, "it ended by itself"
        during.append(inspect(folder))
    assert any(found["PROCESSING"] for found in during), "no check was ever interrupted"
    server = start(folder, packages)
    deadline = time.monotonic() + 60 + kills
    try:
        while not finished(folder, packages):
            assert server.is_alive()
            assert time.monotonic() < deadline, f"the queue does not go on: {states(folder)}"
            time.sleep(0.1)
    finally:
        os.kill(server.pid, signal.SIGKILL)
        server.join()
    inspect(folder)
    check_the_end(folder, packages)


def start(folder: Path, packages: list[Path], slow: bool = False) -> multiprocessing.Process:
    server = multiprocessing.get_context("fork").Process(target=serve, args=(folder, packages, slow))
    server.start()
    return server


def wait_for(moment: str, folder: Path, rng: random.Random) -> None:
    if moment == "any":
        time.sleep(rng.uniform(0.0, 1.0))
        return
    happening = {
        "checking": lambda: states(folder)["PROCESSING"],
        "uploading": lambda: any((folder / "dock" / "uploads" / "1").glob("*")),
    }[moment]
    deadline = time.monotonic() + 30
    while not happening() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, 0.02))


# -- in the process that is killed -------------------------------------------------------------------------------------


def serve(folder: Path, packages: list[Path], slow: bool) -> None:
    pause = Pause(slow)
    much = {"max_attempts": 1000, "queue_per_owner": 1000, "open_uploads": 1000}
    dock = Dock(DockSettings(folder=folder / "dock", lease=5, **much))
    owner = dock.accounts.find("root") or dock.accounts.ensure_admin("root")[0]
    checker = Checker(dock, partial(check, pause))
    threading.Thread(target=checker.run_forever, args=(threading.Event(),), daemon=True).start()
    todo = [path for path in packages if path.name not in acknowledged(folder, "removed")]
    random.shuffle(todo)
    with ThreadPoolExecutor(3) as clients:
        list(clients.map(lambda path: be_a_client(dock, folder, owner, path, pause), todo))
    time.sleep(3600)


class Pause:
    """Random pauses, so that a kill finds the server in the midst of everything; none when it is left in peace."""

    def __init__(self, slow: bool) -> None:
        self.slow = slow

    def __call__(self, least: float, most: float) -> None:
        if self.slow:
            time.sleep(random.uniform(least, most))


def check(pause: Pause, path: Path) -> CheckReport:
    pause(0.05, 0.2)
    if open_package(path).semantic.name.startswith("bad"):
        return CheckReport(0, "nan-output", "it gave NaN")
    return CheckReport(1, "", "all is well", (4,), (3,))


def be_a_client(dock: Dock, folder: Path, owner: User, path: Path, pause: Pause) -> None:
    pause(0.0, 0.3)
    contents = path.read_bytes()
    sha256 = hashlib.sha256(contents).hexdigest()
    try:
        at = dock.begin_upload(owner, sha256, len(contents)).offset
        while at < len(contents):
            at = dock.write_chunk(owner, sha256, at, contents[at : at + 700]).offset
            pause(0.0, 0.02)
        id = dock.submit_upload(owner, sha256).id
    except Duplicate as known:
        id = known.learnware
    acknowledge(folder, "submitted", path, id)
    if path.name.startswith("gone"):
        pause(0.0, 0.2)
        acknowledge(folder, "removing", path, id)
        try:
            dock.delete(id, by=owner)
        except NotFound:
            return
        acknowledge(folder, "removed", path, id)


def acknowledge(folder: Path, what: str, path: Path, id: str) -> None:
    with (folder / "acknowledged").open("ab", buffering=0) as file:
        file.write(json.dumps([what, path.name, id]).encode() + b"\n")  # one write: it is there whole or not


def acknowledged(folder: Path, what: str) -> dict[str, str]:
    """Package -> id, of what was acknowledged so."""
    file = folder / "acknowledged"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else []
    return {package: id for said, package, id in lines if said == what}


# -- after the kill ----------------------------------------------------------------------------------------------------


def rows(folder: Path, query: str) -> list[tuple]:
    database = sqlite3.connect(folder / "dock" / "dock.sqlite")
    try:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return database.execute(query).fetchall() if tables else []  # killed before all tables were made at once
    finally:
        database.close()


def states(folder: Path) -> Counter[str]:
    """How many learnwares are in which state, also while a server works."""
    if not (folder / "dock" / "dock.sqlite").exists():
        return Counter()
    return Counter(status for (status,) in rows(folder, "SELECT status FROM learnware"))


def inspect(folder: Path) -> Counter[str]:
    """What must hold whenever a server was killed; returns the states."""
    if not (folder / "dock" / "dock.sqlite").exists():
        return Counter()
    found = rows(folder, "SELECT id, blob_sha256, size, status, usable FROM learnware")
    logs = dict(rows(folder, "SELECT learnware_id, count(*) FROM verify_log GROUP BY learnware_id"))
    specifications = dict(rows(folder, "SELECT learnware_id, length(z) FROM specification"))
    for id, sha256, size, status, usable in found:
        blob = folder / "dock" / "blobs" / sha256[:2] / sha256
        contents = blob.read_bytes()
        assert (hashlib.sha256(contents).hexdigest(), len(contents)) == (sha256, size), "a package by half"
        assert specifications.get(id) == 5 * 4 * 8, "a learnware without its whole specification"
        judged = status in ("SUCCESS", "FAIL")
        assert (usable is not None) == judged
        assert logs.get(id, 0) == judged, "a verdict without its log, or two"
    assert len({sha256 for _, sha256, *_ in found}) == len(found), "a learnware twice"
    there = {id for id, *_ in found}
    leaving = set(acknowledged(folder, "removing").values())
    assert set(acknowledged(folder, "submitted").values()) - leaving <= there, "an acknowledged learnware is lost"
    assert not set(acknowledged(folder, "removed").values()) & there, "a removed learnware is back"
    return Counter(status for *_, status, _ in found)


def finished(folder: Path, packages: list[Path]) -> bool:
    counts = states(folder)
    kept = sum(not path.name.startswith("gone") for path in packages)
    removed = len(acknowledged(folder, "removed"))
    return counts["SUCCESS"] + counts["FAIL"] == counts.total() == kept and removed == len(packages) - kept


def check_the_end(folder: Path, packages: list[Path]) -> None:
    verdicts = dict(rows(folder, "SELECT blob_sha256, usable FROM learnware"))
    expected = {
        hashlib.sha256(path.read_bytes()).hexdigest(): int(path.name.startswith("good"))
        for path in packages
        if not path.name.startswith("gone")
    }
    assert verdicts == expected
    dock = Dock(DockSettings(folder=folder / "dock"))
    assert dock.search().total == sum(expected.values())
    assert set(dock.blobs.hashes()) == set(expected), "packages without a learnware were not swept"
    assert dock.uploads(ADMIN) == []
    dock.close()

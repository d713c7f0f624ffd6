"""Packages up and down: in pieces, continued where they broke off, checked by hash."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from didact.core.errors import BadInput
from didact.reusing.dock.client.wire import FIRST_WAIT, Unreachable, Wire
from didact.reusing.dock.errors import DockError
from didact.reusing.dock.records import WrongOffset

Progress = Callable[[int, int], None]  # bytes that have arrived, bytes in all

CHUNK = 4 * 2**20  # bytes; a broken connection costs at most this much again


def send(wire: Wire, package: Path, progress: Progress | None) -> str:
    """Send a package; returns its SHA-256, under which it now waits at the dock."""
    sha256, size = hash_of(package)
    offset, most = _begin(wire, sha256, size)
    with package.open("rb") as file:
        while offset < size:
            if progress:
                progress(offset, size)
            file.seek(offset)
            piece = file.read(min(CHUNK, most))
            if not piece:
                raise BadInput(f"{package} became shorter while it was being sent. Submit it again.")
            try:
                path = f"/v1/uploads/{sha256}?offset={offset}"
                headers = {"Content-Type": "application/octet-stream"}
                offset = int(wire.json("PUT", path, content=piece, headers=headers)["offset"])
            except WrongOffset as elsewhere:
                # Part of an interrupted piece had arrived, or another process sends the same package.
                offset = elsewhere.offset
    if progress:
        progress(size, size)
    return sha256


def fetch(wire: Wire, path: str, to: Path, sha256: str, size: int, progress: Progress | None = None) -> Path:
    """Download to a file, which appears only when it is complete and its hash is right."""
    if to.is_file() and hash_of(to) == (sha256, size):
        return to
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        _fill(wire, path, part, size, progress)
        found, _ = hash_of(part)
        if found != sha256:
            raise DockError(
                "wrong-hash",
                f"The package should have the SHA-256 {sha256}, but what came has {found}. It was not kept. Try again.",
            )
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    return to


def hash_of(file: Path) -> tuple[str, int]:
    """SHA-256 and size. Cost: one pass over the file."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return digest, opened.tell()


def _begin(wire: Wire, sha256: str, size: int) -> tuple[int, int]:
    answer = wire.json("POST", "/v1/uploads", json={"sha256": sha256, "size": size})
    return int(answer["offset"]), int(answer["max_chunk"])


def _fill(wire: Wire, path: str, part: Path, size: int, progress: Progress | None) -> None:
    deadline = time.monotonic() + wire.patience
    wait = FIRST_WAIT
    with part.open("wb") as file:
        while file.tell() < size:
            try:
                with wire.stream(path, file.tell()) as response:
                    if response.status_code != 206:
                        file.seek(0)  # a server that does not continue begins again
                        file.truncate()
                    for piece in response.iter_bytes():
                        file.write(piece)
                        if file.tell() > size:
                            return
                        if progress:
                            progress(file.tell(), size)
                return
            except Unreachable:
                if time.monotonic() + wait > deadline:
                    raise
                time.sleep(wait)
                wait *= 2

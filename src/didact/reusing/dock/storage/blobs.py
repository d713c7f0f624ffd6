"""Packages on disk, by the SHA-256 of their contents."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from filelock import FileLock

from didact.reusing.dock.errors import Conflict, DockError, NotFound, TooLarge

_HASH = re.compile(r"[0-9a-f]{64}\Z")
_CHUNK = 1 << 20
_STALE_HOURS = 1.0  # a file that is being written grows; one untouched for so long was left by a killed process


class OutOfSpace(DockError):
    """The disk is full, or not writable."""

    status = 507


@dataclass(frozen=True)
class Staged:
    """A file that is complete and on disk, but not yet a blob."""

    path: Path
    sha256: str
    size: int


class Blobs:
    """A folder of files named by their hash. A file has its name only when it is whole and safely on disk."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self._scratch = self.folder / "incoming"
        self._scratch.mkdir(parents=True, exist_ok=True)

    def put(self, stream: IO[bytes], expected_sha256: str | None = None) -> tuple[str, int]:
        """Store a stream and give its hash and size. Errors: `Conflict` "wrong-hash" when it is not as expected."""
        staged = self.stage(stream)
        try:
            if expected_sha256 is not None and staged.sha256 != expected_sha256:
                raise Conflict(
                    "wrong-hash", f"The contents have SHA-256 {staged.sha256}; {expected_sha256} was expected."
                )
            self.place(staged.path, staged.sha256)
        finally:
            staged.path.unlink(missing_ok=True)
        return staged.sha256, staged.size

    def stage(self, stream: IO[bytes], limit: int | None = None) -> Staged:
        """Copy a stream to disk beside the blobs. The caller places it and then removes it."""
        path = self._scratch / secrets.token_hex(16)
        digest, size = hashlib.sha256(), 0
        try:
            with path.open("xb") as file, naming_a_full_disk():
                while chunk := stream.read(_CHUNK):
                    size += len(chunk)
                    if limit is not None and size > limit:
                        raise TooLarge("oversize", f"The package is larger than this dock takes ({limit:,} bytes).")
                    digest.update(chunk)
                    file.write(chunk)
                synchronise(file)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Staged(path, digest.hexdigest(), size)

    def place(self, path: Path, sha256: str) -> None:
        """Give a whole, synchronised file its place; its old name stays until the caller removes it."""
        target = self._place(sha256)
        with naming_a_full_disk():
            target.parent.mkdir(exist_ok=True)
            if not target.exists():
                self._link(path, target)
                target.chmod(0o444)
            _synchronise_folder(target.parent)
            _synchronise_folder(self.folder)

    def path(self, sha256: str) -> Path:
        """Where a blob is. Errors: `NotFound` "no-blob"."""
        path = self._place(sha256)
        if not path.is_file():
            raise NotFound("no-blob", f"No package with SHA-256 {sha256} is stored here.")
        return path

    def remove(self, sha256: str) -> None:
        """Remove a blob. Whoever is reading it reads on to its end."""
        self._place(sha256).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held by whoever places or removes a blob together with its row, in any thread and process."""
        with FileLock(self.folder / "lock"):
            yield

    def hashes(self) -> Iterator[str]:
        """The hashes of all blobs."""
        for shelf in self.folder.iterdir():
            if len(shelf.name) == 2 and shelf.is_dir():
                yield from (file.name for file in shelf.iterdir() if _HASH.match(file.name))

    def sweep(self, referenced: Callable[[], set[str]], stale_hours: float = _STALE_HOURS) -> set[str]:
        """Remove what killed processes left: files never finished, and blobs that no row refers to (returned)."""
        for file in self._scratch.iterdir():
            remove_if_untouched(file, stale_hours)
        if not (orphans := set(self.hashes()) - referenced()):
            return orphans
        with self.lock():  # now nobody is between placing a blob and writing its row
            orphans -= referenced()
            for sha256 in orphans:
                self.remove(sha256)
        return orphans

    def _link(self, path: Path, target: Path) -> None:
        with suppress(FileExistsError):
            try:
                os.link(path, target)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                copy = self._scratch / secrets.token_hex(16)
                try:
                    shutil.copyfile(path, copy)
                    with copy.open("r+b") as file:
                        synchronise(file)
                    copy.replace(target)
                finally:
                    copy.unlink(missing_ok=True)

    def _place(self, sha256: str) -> Path:
        check_hash(sha256)
        return self.folder / sha256[:2] / sha256


def check_hash(sha256: str) -> str:
    """Refuse what is not a SHA-256 (it becomes part of a path)."""
    if not _HASH.match(sha256):
        raise DockError("bad-hash", "A SHA-256 is written as 64 digits and letters from a to f.")
    return sha256


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(file: IO[bytes]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def remove_if_untouched(path: Path, hours: float) -> bool:
    """Remove a file that nobody wrote to for so long."""
    with suppress(FileNotFoundError):
        if time.time() - path.stat().st_mtime > hours * 3600:
            path.unlink()
            return True
    return False


@contextmanager
def naming_a_full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise OutOfSpace("out-of-space", "The dock has no room left on its disk. Tell its operator.") from error
        raise


def _synchronise_folder(folder: Path) -> None:
    # A new name is on the disk only when its folder is. Windows cannot open folders and does not need it.
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

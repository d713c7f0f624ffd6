"""Packages on their way: sent in chunks, continued after a break, complete when the hash is right.

What has arrived is a file whose length is the offset at which to go on, so nothing else has to be remembered, and
nothing is lost when the server is killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from didact.reusing.dock.accounts import User
from didact.reusing.dock.errors import Conflict, DockError, NotFound, TooMany
from didact.reusing.dock.records import Upload, WrongOffset
from didact.reusing.dock.storage.blobs import (
    check_hash,
    file_hash,
    naming_a_full_disk,
    remove_if_untouched,
    synchronise,
)


class Uploads:
    """The folder of unfinished uploads, one folder inside for every user."""

    def __init__(self, folder: Path, most_at_once: int, hours: float) -> None:
        self.folder = folder
        self.most_at_once = most_at_once
        self.hours = hours
        self._locks = folder / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)

    def begin(self, owner: User | None, sha256: str, size: int) -> Upload:
        """Begin an upload, or find out where to continue one."""
        with self._lock(owner, sha256):
            shelf = self._shelf(owner)
            shelf.mkdir(exist_ok=True)
            path = _file(shelf, sha256, size)
            if not path.exists():
                for other in shelf.glob(f"{sha256}.*"):  # begun with another size: one of the two was wrong
                    other.unlink(missing_ok=True)
                if sum(1 for _ in shelf.iterdir()) >= self.most_at_once:
                    raise TooMany(
                        "too-many-uploads",
                        f"You have {self.most_at_once} unfinished uploads. Finish or cancel one before you begin more.",
                    )
                path.touch()
            return Upload(sha256, size, path.stat().st_size)

    def write(self, owner: User | None, sha256: str, offset: int, chunk: bytes) -> Upload:
        """Append a chunk. Errors: `NotFound` "no-upload", `WrongOffset`, `DockError` "beyond-size"."""
        with self._lock(owner, sha256):
            path, upload = self._find(owner, sha256)
            if offset != upload.offset:
                raise WrongOffset(
                    f"The next chunk of this upload begins at {upload.offset}; one at {offset} was sent. "
                    f"Go on at {upload.offset}.",
                    upload.offset,
                )
            if offset + len(chunk) > upload.size:
                raise DockError(
                    "beyond-size",
                    f"The upload was begun with {upload.size} bytes, but this chunk ends at {offset + len(chunk)}. "
                    "Begin it again with the right size.",
                )
            if chunk:
                with path.open("ab") as file, naming_a_full_disk():
                    file.write(chunk)
            return Upload(sha256, upload.size, offset + len(chunk))

    @contextmanager
    def complete(self, owner: User | None, sha256: str) -> Iterator[Path]:
        """The file of a complete upload, on disk and with the right hash; nobody else touches it meanwhile.

        Errors: `NotFound` "no-upload", `Conflict` "incomplete-upload" or "wrong-hash" (the upload is then gone).
        """
        with self._lock(owner, sha256):
            path, upload = self._find(owner, sha256)
            if not upload.complete:
                raise Conflict(
                    "incomplete-upload",
                    f"{upload.offset} of {upload.size} bytes have arrived. Send the rest from {upload.offset} on.",
                )
            with path.open("rb") as file:
                synchronise(file)
            if (found := file_hash(path)) != sha256:
                path.unlink()
                raise Conflict(
                    "wrong-hash",
                    f"What arrived has SHA-256 {found}, but {sha256} was announced. Begin the upload again.",
                )
            yield path

    def cancel(self, owner: User | None, sha256: str) -> None:
        """Errors: `NotFound` "no-upload"."""
        with self._lock(owner, sha256):
            self._find(owner, sha256)[0].unlink(missing_ok=True)

    def of(self, owner: User | None) -> list[Upload]:
        """A user's unfinished uploads."""
        shelf = self._shelf(owner)
        return [_upload(path) for path in sorted(shelf.iterdir())] if shelf.exists() else []

    def forget(self, owner: User) -> None:
        """Remove all of a user's unfinished uploads."""
        shutil.rmtree(self._shelf(owner), ignore_errors=True)

    def sweep(self, stored: set[str]) -> None:
        """Remove the uploads that nobody continued for `hours`, and those of packages that are stored already."""
        for path in self.folder.glob("*/*"):
            if path.parent == self._locks:
                continue
            if path.name.partition(".")[0] in stored:  # killed after its row was written
                path.unlink(missing_ok=True)
            else:
                remove_if_untouched(path, self.hours)

    def _find(self, owner: User | None, sha256: str) -> tuple[Path, Upload]:
        for path in self._shelf(owner).glob(f"{sha256}.*"):
            return path, _upload(path)
        raise NotFound("no-upload", "You have begun no upload with this hash, or it is finished. Begin it first.")

    def _shelf(self, owner: User | None) -> Path:
        return self.folder / ("nobody" if owner is None else str(owner.id))

    @contextmanager
    def _lock(self, owner: User | None, sha256: str) -> Iterator[None]:
        # A fixed set of lock files: removing one that another process waits for would let two in.
        with FileLock(self._locks / check_hash(sha256)[:2]):
            yield


def _file(shelf: Path, sha256: str, size: int) -> Path:
    return shelf / f"{sha256}.{size}"


def _upload(path: Path) -> Upload:
    sha256, _, size = path.name.partition(".")
    return Upload(sha256, int(size), path.stat().st_size)

"""Class Dock: submitting, finding, changing and removing learnwares."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import IO, Any, Literal

import sqlalchemy as sa

from didact.core.errors import BadInput
from didact.reusing.dock.accounts import Accounts, User
from didact.reusing.dock.errors import (
    BadPackage,
    BadSpecification,
    Conflict,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooLarge,
)
from didact.reusing.dock.package import Package, PackageLimits, open_package
from didact.reusing.dock.records import DockSettings, Duplicate, LearnwareInfo, Upload
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.service.across import Across
from didact.reusing.dock.service.catalogue import Catalogue
from didact.reusing.dock.service.reading import Reading, owns
from didact.reusing.dock.service.uploads import Uploads
from didact.reusing.dock.specification import Gamma
from didact.reusing.dock.storage import Blobs, Learnwares, Store, Work
from didact.reusing.dock.storage.blobs import check_hash
from didact.reusing.dock.storage.store import happened

_RELATED = 25  # nearest learnwares whose inner products are kept


class Dock(Reading):
    """A learnware dock. Every refusal is a `DockError` with a code, a sentence and an HTTP status.

    A learnware is found, shown and given to everybody once its check succeeded and found it usable; before that, and
    if it failed, only its owner and admins know of it. Methods that read take the `reader` (None: not signed in),
    methods that change take `by`.
    """

    def __init__(self, settings: DockSettings) -> None:
        """Open the dock: make or update its tables, sweep what killed servers left, load the search index."""
        self.settings = settings
        self.gamma = _gamma(settings.gamma)
        folder = Path(settings.folder).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self.store = Store(settings.url or folder / "dock.sqlite")
        self.blobs = Blobs(folder / "blobs")
        self.accounts = Accounts(self.store, registration=settings.registration, token_days=settings.token_days)
        self.learnwares = Learnwares(self.store)
        self.work = Work(self.store, settings.queue_per_owner)
        self.submitted = threading.Event()  #: set when there may be something to check
        self._uploads = Uploads(folder / "uploads", settings.open_uploads, settings.upload_hours)
        self.sweep()
        self._catalogue = Catalogue(self.learnwares)
        self.across = Across(folder / "table-map", self._catalogue, settings.table_map, settings.map_wait)

    def close(self) -> None:
        self.across.close()
        self.store.close()

    def sweep(self) -> None:
        """Remove what nobody refers to any more. Safe while others work."""
        self.blobs.sweep(self.learnwares.hashes)
        self._uploads.sweep(self.learnwares.hashes())
        self.store.prune()

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, package: Path | str | IO[bytes], owner: User | None = None) -> LearnwareInfo:
        """Take a package in and queue it to be checked.

        Errors: `BadPackage`, `BadSpecification`, `TooLarge` "oversize" or "quota", `Duplicate`; nothing is stored then.
        """
        if isinstance(package, (str, Path)):
            try:
                with Path(package).open("rb") as stream:
                    return self.submit(stream, owner)
            except (FileNotFoundError, IsADirectoryError):
                raise BadInput(f"{str(package)!r} is not a file. Give the path of a package.") from None
        staged = self.blobs.stage(package, self.settings.max_upload)
        try:
            return self._accept(staged.path, staged.sha256, staged.size, owner)
        finally:
            staged.path.unlink(missing_ok=True)

    def begin_upload(self, owner: User | None, sha256: str, size: int) -> Upload:
        """Begin to send a package in chunks, or find out where to continue.

        Errors: `DockError` "bad-hash" or "bad-size", `TooLarge`, `Duplicate`, `TooMany` "too-many-uploads".
        """
        check_hash(sha256)
        if size < 1:
            raise BadPackage("bad-size", f"A package of {size} bytes was announced; it must have some.")
        self._refuse_duplicate(sha256, owner)
        self._refuse_size(size, owner)
        return self._uploads.begin(owner, sha256, size)

    def write_chunk(self, owner: User | None, sha256: str, offset: int, chunk: bytes) -> Upload:
        """Append a chunk; the answer says where to go on.

        Errors: `NotFound` "no-upload", `DockError` "beyond-size", `WrongOffset` (a `Conflict` with the right `offset`).
        """
        return self._uploads.write(owner, sha256, offset, chunk)

    def uploads(self, owner: User | None) -> list[Upload]:
        """Uploads of a user that are under way."""
        return self._uploads.of(owner)

    def cancel_upload(self, owner: User | None, sha256: str) -> None:
        """Drop an upload. Errors: `NotFound` "no-upload"."""
        self._uploads.cancel(owner, sha256)

    def submit_upload(self, owner: User | None, sha256: str) -> LearnwareInfo:
        """Take in what was uploaded. After a refusal the upload is gone, unless it was for the quota.

        Errors: as `submit`, and `NotFound` "no-upload", `Conflict` "incomplete-upload" or "wrong-hash". A second call
        after one whose answer was lost raises `Duplicate`, which names the learnware.
        """
        self._refuse_duplicate(check_hash(sha256), owner)
        with self._uploads.complete(owner, sha256) as path:
            try:
                info = self._accept(path, sha256, path.stat().st_size, owner)
            except (BadPackage, BadSpecification, Conflict):
                path.unlink(missing_ok=True)
                raise
            path.unlink(missing_ok=True)
            return info

    # -- changing --------------------------------------------------------------------------------------------------

    def update(self, id: str, *, semantic: SemanticSpecification, by: User) -> LearnwareInfo:
        """Change what a learnware says about itself.

        Errors: `NotFound`, `NotAllowed` "not-owner"; `Conflict` "checked-field" for what the check relied on (data,
        task, the dimensions of input and output).
        """
        info = self._owned(id, by)
        if _checked(semantic) != _checked(info.semantic):
            raise Conflict(
                "checked-field",
                "Data, task and dimensions were checked with the package and stay as they are. Submit another package.",
            )
        if not self.learnwares.set_semantic(id, semantic, by.name):
            raise NotFound("no-learnware", f"The learnware {id!r} was just removed.")
        return self.info(id, by)

    def recheck(self, id: str, *, by: User) -> LearnwareInfo:
        """Check a learnware again; until that is done only its owner sees it. Errors: `Conflict` "in-queue"."""
        self._owned(id, by)
        if not self.work.again(id, by.name):
            raise Conflict("in-queue", f"The learnware {id!r} is being checked, or waits for it.")
        self.submitted.set()
        return self.info(id, by)

    def delete(self, id: str, *, by: User) -> None:
        """Remove a learnware and its package. Errors: `NotFound` "no-learnware", `NotAllowed` "not-owner"."""
        self._owned(id, by)
        with self.blobs.lock():
            sha256 = self.learnwares.delete(id, by.name)
            if sha256 is not None:
                self.blobs.remove(sha256)

    def delete_user(self, id: int, *, by: User, learnwares: Literal["keep", "delete"] = "keep") -> None:
        """Remove an account, and what it submitted or not.

        Errors: `NotAllowed` "not-admin", `NotFound` "no-user", `Conflict` "last-admin".
        """
        user = self.accounts.user(id)
        self.accounts.may_delete(id, by=by)
        if learnwares == "delete":
            while found := self.learnwares.list(owner_id=id, limit=100)[0]:
                for info in found:
                    self.delete(info.id, by=user)
        self.accounts.delete(id, by=by)
        self._uploads.forget(user)

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _accept(self, path: Path, sha256: str, size: int, owner: User | None) -> LearnwareInfo:
        """Read a whole file that is safely on disk, and give it a place and a row."""
        self._refuse_duplicate(sha256, owner)
        self._refuse_size(size, owner)
        package = open_package(path, PackageLimits(archive=self.settings.max_upload))
        if package.tier == "code" and not self.settings.code:
            raise BadPackage("no-code", "This dock takes no packages with code of their own. Use a safe runtime.")
        for specification in package.specifications:
            self.gamma.check(specification)
        with self.blobs.lock():
            self.blobs.place(path, sha256)
            try:
                with self.store.writing() as connection:
                    id = self.learnwares.insert(
                        connection,
                        owner_id=owner.id if owner else None,
                        semantic=package.semantic,
                        tier=package.tier,
                        specifications=package.specifications,
                        shapes={"input": _input_shape(package), "output": package.output_shape or ()},
                        sha256=sha256,
                        size=size,
                    )
                    self.work.admit(connection, owner.id if owner else None)
                    happened(connection, "submit", user=owner.name if owner else "", learnware=id, size=size)
            except BaseException as error:
                self._undo_place(sha256)
                if isinstance(error, sa.exc.IntegrityError):
                    self._refuse_duplicate(sha256, owner)
                    raise NotSignedIn("unknown-token", "This account was removed.") from None
                raise
        self.submitted.set()
        info = self.learnwares.get(id)
        if info is None:
            raise NotFound("no-learnware", "The learnware was removed at once.")
        return info

    def _undo_place(self, sha256: str) -> None:
        if sha256 not in self.learnwares.hashes():
            self.blobs.remove(sha256)

    def _refuse_duplicate(self, sha256: str, owner: User | None) -> None:
        found = self.learnwares.with_hash(sha256)
        if found is None:
            return
        if found.visible or owns(owner, found):
            raise Duplicate(f"This package is here already, as learnware {found.id!r}.", found.id)
        raise Duplicate("This package is here already, submitted by somebody else and not (yet) found usable.")

    def _refuse_size(self, size: int, owner: User | None) -> None:
        if size > self.settings.max_upload:
            raise TooLarge(
                "oversize", f"The package has {size:,} bytes; this dock takes up to {self.settings.max_upload:,}."
            )
        if owner and self.learnwares.bytes_of(owner.id) + size > self.settings.quota:
            raise TooLarge(
                "quota", f"You would have more than {self.settings.quota:,} bytes here. Delete something first."
            )

    def _owned(self, id: str, by: User) -> LearnwareInfo:
        info = self.info(id, by)
        if not owns(by, info):
            raise NotAllowed("not-owner", f"The learnware {id!r} belongs to somebody else.")
        return info


def _checked(semantic: SemanticSpecification) -> tuple[Any, ...]:
    dimensions = (part.dimension if part else None for part in (semantic.input, semantic.output))
    return (semantic.data, semantic.task, *dimensions)


def _input_shape(package: Package) -> tuple[int, ...]:
    words = package.semantic.input
    return package.input_shape or ((words.dimension,) if words and package.semantic.data == "Table" else ())


def _gamma(given: Gamma | float | None) -> Gamma:
    if isinstance(given, Gamma):
        return given
    return Gamma() if given is None else Gamma({("rkme-table", ""): float(given)})

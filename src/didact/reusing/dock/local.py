"""A dock in a folder: the same methods as `DockClient`, without a server, accounts or a thread in the background."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from didact.core.errors import BadInput
from didact.reusing.dock.accounts import User
from didact.reusing.dock.paging import Page
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.records import DockSettings, Duplicate, LearnwareInfo, SearchResult, Status
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.service import Dock
from didact.reusing.dock.specification import Gamma, Specification, specify
from didact.reusing.dock.storage.blobs import file_hash

if TYPE_CHECKING:
    from didact.reusing.dock.checking import CheckReport
    from didact.reusing.dock.sandbox import Sandbox
    from didact.reusing.dock.specification.heterogeneous import FitTableMap
    from didact.reusing.result import ReuseResult

_OWNER = User(0, "", "", "admin", "")  # of a folder one can write to, everything is one's own


class LocalDock:
    """A learnware dock in a folder of this machine.

    What is submitted is checked at once, in the sandbox that a served dock uses. Opening the same folder from several
    programs, also from a server, is fine.

        dock = LocalDock("my-dock")
        dock.submit("model.zip")
        found = dock.search(X)

    Cost: memory for the specifications of all usable learnwares, about 50 kB each.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        gamma: Gamma | float | None = None,
        sandbox: Sandbox | None = None,
        check: Callable[[Path], CheckReport] | None = None,
        table_map: FitTableMap | None = None,
    ) -> None:
        """Open the dock in a folder, or make one. `check` replaces what judges packages.

        `table_map` says how tables are made comparable across columns; the first such search waits for it.
        """
        self.path = Path(path).expanduser()
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"A local dock is a folder, but {str(path)!r} is a file. Give the path of a folder.")
        self.dock = Dock(
            DockSettings(folder=self.path, gamma=gamma, sandbox=sandbox, table_map=table_map, map_wait=math.inf)
        )
        self._checker = Checker(self.dock, check)

    def __enter__(self) -> LocalDock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.dock.close()

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, package: str | Path, progress: Callable[[int, int], None] | None = None) -> LearnwareInfo:
        """Take a package in and check it. One that was submitted before is only looked up.

        Errors: `BadPackage`, `BadSpecification`, `TooLarge`; a package whose check fails is kept, with its log.
        """
        package = Path(package)
        if not package.is_file():
            raise BadInput(f"A package is a zip file, but there is no file {str(package)!r}. Make one: write_package.")
        try:
            id = self.dock.submit(package).id
        except Duplicate:
            known = self.dock.learnwares.with_hash(file_hash(package))
            if known is None:
                raise
            id = known.id
        if progress is not None:
            size = package.stat().st_size
            progress(size, size)
        return self.wait(id)

    def wait(self, id: str, timeout: float = 1800.0) -> LearnwareInfo:
        """Check what is in the queue until this learnware has been; at once when it has been already."""
        return self._checker.check_until(id, timeout)

    # -- finding ---------------------------------------------------------------------------------------------------

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

        `columns` says what the columns of one's table mean: then tables with other columns are found when there are
        none with as many, or at once with `across`.
        """
        if data is not None:
            if specification is not None:
                raise BadInput("Search with data or with a specification of them, not with both.")
            specification = self.specify(data, kind, encoder=encoder, seed=seed)
        if query is not None and not isinstance(query, SemanticQuery):
            query = SemanticQuery.parse(query)
        return self.dock.search(
            query,
            specification,
            limit=limit,
            page=page,
            mixture=mixture,
            columns=columns,
            across=across,
            reader=_OWNER,
        )

    def specify(
        self, data: Any, kind: Literal["Table", "Image", "Text"] = "Table", *, encoder: Any = None, seed: int = 0
    ) -> Specification:
        """The specification of data, with this dock's kernel width."""
        from didact.reusing.dock.specification.encoders import encoder_for

        made_by = encoder_for(kind, encoder)
        gamma = self.dock.gamma.of(f"rkme-{kind.lower()}", made_by.id if made_by else "")
        return specify(data, kind, encoder=made_by, gamma=gamma, seed=seed)

    @property
    def bytes_sent(self) -> int:
        """Always 0: nothing leaves this machine."""
        return 0

    def semantics(self) -> dict[str, Any]:
        """The words that specifications may use, and this dock's kernel widths."""
        return self.dock.semantics()

    def info(self, id: str) -> LearnwareInfo:
        """What is known about a learnware. Errors: `NotFound`."""
        return self.dock.info(id, _OWNER)

    def list(
        self, *, mine: bool = False, status: Status | None = None, page: int = 1, limit: int = 20
    ) -> Page[LearnwareInfo]:
        """Learnwares, newest first, in whatever state. All of them are one's own."""
        return self.dock.list(status=status, page=page, limit=limit, reader=_OWNER)

    def mine(self, page: int = 1, limit: int = 20) -> Page[LearnwareInfo]:
        """The same as `list`."""
        return self.list(page=page, limit=limit)

    def log(self, id: str) -> str:
        """What the check of a learnware wrote. Errors: `NotFound`."""
        return self.dock.log(id, _OWNER)

    def download(
        self, id: str, to: str | Path | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Path:
        """The package of a learnware: copied to the file or folder `to`, or where it lies. Errors: `NotFound`."""
        path = self.dock.download(id, _OWNER)
        if to is not None:
            target = Path(to) / f"{id}.zip" if Path(to).is_dir() else Path(to)
            target.parent.mkdir(parents=True, exist_ok=True)
            path = Path(shutil.copyfile(path, target))
        if progress is not None:
            progress(path.stat().st_size, path.stat().st_size)
        return path

    # -- changing --------------------------------------------------------------------------------------------------

    def update(self, id: str, semantic: SemanticSpecification | Mapping[str, Any]) -> LearnwareInfo:
        """Give a learnware other words. Errors: `NotFound`, `Conflict` "checked-field"."""
        if not isinstance(semantic, SemanticSpecification):
            semantic = SemanticSpecification.parse(semantic)
        return self.dock.update(id, semantic=semantic, by=_OWNER)

    def recheck(self, id: str) -> LearnwareInfo:
        """Check a learnware again, now."""
        self.dock.recheck(id, by=_OWNER)
        return self.wait(id)

    def delete(self, id: str) -> None:
        """Remove a learnware for good. Errors: `NotFound`."""
        self.dock.delete(id, by=_OWNER)

    def reuse(self, data: Any, labelled: Any = None, how: str = "auto", **options: Any) -> ReuseResult:
        """Search with data and make a predictor of what fits. See `reuse_from` for the options."""
        from didact.reusing.learnware_dock import reuse_from

        return reuse_from(self, data, labelled, how=how, **options)

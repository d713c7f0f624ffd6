"""Search among tables with other columns, kept ready beside the index: one map for all, made where nobody waits."""

from __future__ import annotations

import json
import math
import secrets
import shutil
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from didact.reusing.dock.errors import Conflict
from didact.reusing.dock.search import SearchResult
from didact.reusing.dock.search.heterogeneous import HeterogeneousIndex, Table, fitted, tables_of
from didact.reusing.dock.semantics import SemanticQuery
from didact.reusing.dock.service.catalogue import Catalogue
from didact.reusing.dock.specification import Specification

if TYPE_CHECKING:
    from didact.reusing.dock.specification.heterogeneous import FitTableMap, TableMap

Marks = Mapping[str, str]  # id -> what a map learns of that learnware

_TOLERATED = 0.1  # share of the tables it was trained on that may come, go or change before a map is trained again
_ABOUT = "tables.json"


class NotReady(Conflict):
    """The first map of a dock is being trained. Ask again after `retry_after` seconds."""

    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("map-not-ready", "Tables are being made comparable across columns. Ask again in a moment.")


@dataclass(frozen=True)
class _State:
    """The tables of a dock through a map."""

    index: HeterogeneousIndex
    learned: Marks  #: what the map was trained on


class Across:
    """The usable tables of a dock, comparable whatever their columns.

    A map is trained, in the background, when more than a tenth of the tables changed since the last one; until then
    new tables are seen through the map that is there. It is kept in a folder, which several servers may share: one
    trains, the others read. A search uses what is there; only when nothing is yet does it wait, for `wait` seconds.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, how: FitTableMap | None, wait: float) -> None:
        self.folder = folder
        self.wait = wait
        self._catalogue = catalogue
        self._how = how
        self._state: _State | None = None
        self._seen = -1  # version of the catalogue that was last prepared for, in vain or not
        self._failed = False
        self._closed = False
        self._starting, self._preparing = threading.Lock(), threading.Lock()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        self._closed = True

    def search(
        self,
        specification: Specification,
        columns: Mapping[int, str],
        query: SemanticQuery | None,
        limit: int,
        mixture: str | None,
        offset: int,
    ) -> SearchResult | None:
        """As `HeterogeneousIndex.search`; None when this dock has no table to compare with.

        Errors: `NotReady` "map-not-ready"; `Conflict` "no-table-map" when there is none because training failed.
        """
        self.refresh()
        thread = self._thread
        if thread is not None and (self._state is None or math.isinf(self.wait)):
            thread.join(None if math.isinf(self.wait) else self.wait)
        state = self._state
        if state is not None:
            return state.index.search(specification, columns, query, limit, mixture, offset=offset)
        if thread is not None and thread.is_alive():
            raise NotReady
        if self._failed:
            raise Conflict("no-table-map", "This dock could not make tables comparable. Its operator's log says why.")
        return None

    def refresh(self) -> None:
        """See to it, in the background, that the tables are those of now. Quick when nothing changed."""
        with self._starting:
            busy = self._thread is not None and self._thread.is_alive()
            if busy or self._closed or self._catalogue.version() == self._seen:
                return
            self._thread = threading.Thread(target=self._in_background, name="dock-table-map", daemon=True)
            self._thread.start()

    def prepare(self) -> None:
        """Bring the tables up to date now. Cost: when a map must be trained that of `FitTableMap`."""
        with self._preparing:
            index, self._seen = self._catalogue.state()
            tables = tables_of(index)
            if all(table.specification.dimension == 1 for table in tables.values()):
                self._state = None
                return
            state = self._near(tables)
            state.index.follow(tables)
            self._state = state

    def _in_background(self) -> None:
        try:
            self._failed = False
            self.prepare()
        except Exception:  # it must not end the server; the tables are tried again when they change
            self._failed = True
            if not self._closed:
                traceback.print_exc()

    def _near(self, tables: Mapping[str, Table]) -> _State:
        """A map that was trained on about these tables: the one in use, the one on disk, or a new one."""
        marks = {id: table.mark for id, table in tables.items()}
        if self._state is not None and _similar(self._state.learned, marks):
            return self._state
        if (found := self._load(marks)) is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            if (found := self._load(marks)) is not None:  # another server was training it
                return found
            table_map = fitted(tables, self._settings())
            self._save(table_map, marks)
        return _State(HeterogeneousIndex(table_map), marks)

    def _settings(self) -> FitTableMap:
        from didact.reusing.dock.specification.heterogeneous import FitTableMap

        return self._how or FitTableMap()

    def _load(self, marks: Marks) -> _State | None:
        """What is on disk, when it was made with these settings and of about these tables."""
        from didact.reusing.dock.specification.heterogeneous import TableMap

        for path in self.folder.glob(f"*/{_ABOUT}"):
            try:
                about = json.loads(path.read_text(encoding="utf-8"))
                if about["how"] == self._settings().model_dump() and _similar(about["learned"], marks):
                    return _State(HeterogeneousIndex(TableMap.load(path.parent)), about["learned"])
            except Exception:  # damaged, or just replaced by another server: it is made again
                continue
        return None

    def _save(self, table_map: TableMap, marks: Marks) -> None:
        """Put a map in the place of what is there; whoever reads sees a whole one or none."""
        text = json.dumps({"how": self._settings().model_dump(), "learned": marks}, indent=0)
        target = self.folder / sha256(text.encode()).hexdigest()[:16]
        scratch = self.folder / f"new-{secrets.token_hex(4)}"
        table_map.save(scratch / "map")
        (scratch / "map" / _ABOUT).write_text(text, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        (scratch / "map").rename(target)
        for old in self.folder.iterdir():
            if old.is_dir() and old != target:
                shutil.rmtree(old, ignore_errors=True)


def _similar(learned: Marks, marks: Marks) -> bool:
    changed = set(learned.items()) ^ set(marks.items())
    return len(changed) <= _TOLERATED * len(learned)

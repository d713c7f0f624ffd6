"""What everybody can find, in memory, in step with the database."""

from __future__ import annotations

import threading
from collections import Counter

from didact.reusing.dock.search import Index
from didact.reusing.dock.storage import Learnwares


class Catalogue:
    """The search index of a dock. Before each use it catches up with what other threads and processes changed."""

    def __init__(self, learnwares: Learnwares) -> None:
        self._learnwares = learnwares
        self._lock = threading.Lock()
        self._counts: tuple[int, dict[str, dict[str, int]]] | None = None
        self._version = learnwares.store.version()
        self._rebuild(self._version)

    def index(self) -> Index:
        """The index as of now. It may be searched while others change it."""
        with self._lock:
            self._catch_up()
            return self._index

    def state(self) -> tuple[Index, int]:
        """The index as of now, and the version of the database that it has at least caught up with."""
        with self._lock:
            self._catch_up()
            return self._index, self._version

    def version(self) -> int:
        """A number that is raised whenever something in the index is to change."""
        return self._learnwares.store.version()

    def counts(self) -> dict[str, dict[str, int]]:
        """How many learnwares there are of each kind of data, task, library and scenario."""
        with self._lock:
            self._catch_up()
            if self._counts is None or self._counts[0] != self._version:
                self._counts = self._version, _counts(self._index)
            return self._counts[1]

    def _catch_up(self) -> None:
        if self._learnwares.store.version() == self._version:
            return
        version, ids = self._learnwares.changes_since(self._version)
        if ids is None:
            self._rebuild(version)
            return
        visible = {id: (semantic, specification) for id, semantic, specification in self._learnwares.visible(ids)}
        for id in ids - visible.keys():
            self._index.remove(id, missing_ok=True)
        for id, (semantic, specification) in visible.items():
            self._index.add(id, semantic, specification)
        self._version = version

    def _rebuild(self, version: int) -> None:
        # The version was read before the rows: what changes in between is read again, never missed.
        index = Index()
        for id, semantic, specification in self._learnwares.visible():
            index.add(id, semantic, specification)
        self._index, self._version = index, version


def _counts(index: Index) -> dict[str, dict[str, int]]:
    semantics = [index.semantic(id) for id in index.ids()]
    counts = {field: Counter(getattr(each, field) for each in semantics) for field in ("data", "task", "library")}
    counts["scenario"] = Counter(tag for each in semantics for tag in each.scenario)
    return {field: dict(sorted(counter.items())) for field, counter in counts.items()}

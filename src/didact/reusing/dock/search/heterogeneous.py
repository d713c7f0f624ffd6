"""Search among tables with other columns than the user's: everything is compared through one map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from didact.core.errors import BadInput, NotApplicable
from didact.reusing.dock.search.index import Index, search_shelf
from didact.reusing.dock.search.mixture import SEARCHES
from didact.reusing.dock.search.result import SearchResult
from didact.reusing.dock.search.semantic import semantic_hits
from didact.reusing.dock.search.single import Space, Stack
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.specification.statistical import Specification

if TYPE_CHECKING:
    from didact.reusing.dock.specification.heterogeneous import FitTableMap, TableMap


class HeterogeneousIndex:
    """The tables of an `Index` seen through a `TableMap`, so that a table finds learnwares with other inputs.

    Use it when no learnware has the user's columns. Only learnwares whose features are described are in it, and all
    at one gamma. It is a state of the index: build it again, with `built`, after many learnwares came.

    Cost: building embeds every reduced point once, O(points d^2); a search costs what one in `Index` does.
    """

    def __init__(self, table_map: TableMap) -> None:
        self.table_map = table_map
        self._id = table_map.id
        self._lock = RLock()
        self._semantics: dict[str, SemanticSpecification] = {}
        self._stacks: dict[float, Stack] = {}

    @classmethod
    def built(cls, index: Index, how: FitTableMap | None = None, seed: int = 0) -> HeterogeneousIndex:
        """A map trained on the tables of an index, and all of them in it."""
        from didact.reusing.dock.specification.heterogeneous import FitTableMap

        found = [(id, index.semantic(id), index.specification(id)) for id in index.ids()]
        tables = [(id, semantic, table) for id, semantic, table in found if table and usable(semantic, table)]
        fitted = (how or FitTableMap()).fit([(table, _columns(semantic)) for _, semantic, table in tables], seed)
        built = cls(fitted)
        for id, semantic, table in tables:
            built.add(id, semantic, table)
        return built

    def __len__(self) -> int:
        return len(self._semantics)

    def add(self, id: str, semantic: SemanticSpecification, specification: Specification) -> None:
        """Add a table that is not there. Errors: `NotApplicable` when its features are not described."""
        if not usable(semantic, specification):
            raise NotApplicable("Only tables of raw values with described features can be compared across columns.")
        embedded = self.table_map.embed(specification, _columns(semantic))
        with self._lock:
            stack = self._stacks.setdefault(embedded.gamma, Stack(Space.of(embedded)))
            stack.add(id, embedded)
            self._semantics[id] = semantic

    def search(
        self,
        specification: Specification,
        columns: Mapping[int, str],
        query: SemanticQuery | None = None,
        limit: int = 20,
        mixture: str | None = "greedy",
        *,
        offset: int = 0,
    ) -> SearchResult:
        """As `Index.search`, for a user's table whose feature i means `columns[i]`; `searched` is "heterogeneous"."""
        if not columns:
            raise BadInput("A search across columns needs the meaning of the user's features, but none was given.")
        if mixture is not None and mixture not in SEARCHES:
            raise BadInput(f"`mixture` is one of {', '.join(SEARCHES)} or None; {mixture!r} was given.")
        user = self.table_map.embed(specification, columns)
        with self._lock:
            stack = self._stacks.get(user.gamma)
            shelf = None if stack is None else stack.shelf()
            words = semantic_hits(query, dict(self._semantics))
        if shelf is None:
            return SearchResult(searched="heterogeneous")
        positions = np.array([i for i, id in enumerate(shelf.ids) if id in words], dtype=np.int64)
        result = search_shelf(shelf, user, positions, mixture, "heterogeneous")
        return replace(result, single=result.single[offset : offset + limit])


def usable(semantic: SemanticSpecification, specification: Specification) -> bool:
    """Whether a learnware can be compared across columns: a table of raw values whose features are described."""
    described = semantic.input is not None and bool(semantic.input.description)
    return described and specification.type == "rkme-table" and not specification.encoder


def _columns(semantic: SemanticSpecification) -> dict[int, str]:
    return {} if semantic.input is None else semantic.input.description

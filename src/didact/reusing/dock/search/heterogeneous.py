"""Search among tables with other columns than the user's: everything is compared through one map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np

from didact.core.errors import BadInput, NotApplicable
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.search.index import Index, search_shelf
from didact.reusing.dock.search.mixture import SEARCHES
from didact.reusing.dock.search.result import SearchResult
from didact.reusing.dock.search.semantic import semantic_hits
from didact.reusing.dock.search.single import Space, Stack
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.specification.columns import check_across
from didact.reusing.dock.specification.statistical import Specification

if TYPE_CHECKING:
    from didact.reusing.dock.specification.heterogeneous import FitTableMap, TableMap


class HeterogeneousIndex:
    """The tables of an `Index` seen through a `TableMap`, so that a table finds learnwares with other inputs.

    Use it when no learnware has the user's columns. Only learnwares whose features are described are in it, and all
    at one gamma. It is a state of the index: `follow` brings it up to date, with the map that it has.

    Cost: adding embeds every reduced point once, O(d^2) each; a search costs what one in `Index` does.
    """

    def __init__(self, table_map: TableMap) -> None:
        self.table_map = table_map
        self._lock = RLock()
        self._tables: dict[str, Table] = {}
        self._stacks: dict[float, Stack] = {}

    @classmethod
    def built(cls, index: Index, how: FitTableMap | None = None, seed: int = 0) -> HeterogeneousIndex:
        """A map trained on the tables of an index, and all of them in it."""
        tables = tables_of(index)
        built = cls(fitted(tables, how, seed))
        built.follow(tables)
        return built

    def __len__(self) -> int:
        return len(self._tables)

    def add(self, id: str, semantic: SemanticSpecification, specification: Specification) -> None:
        """Add a table that is not there. Errors: `NotApplicable` when its features are not described."""
        if not usable(semantic, specification):
            raise NotApplicable("Only tables of raw values with described features can be compared across columns.")
        table = Table(semantic, specification)
        embedded = self.table_map.embed(specification, table.columns)
        with self._lock:
            stack = self._stacks.setdefault(embedded.gamma, Stack(Space.of(embedded)))
            stack.add(id, embedded)
            self._tables[id] = table

    def remove(self, id: str) -> None:
        """Take a table out that is there."""
        with self._lock:
            gamma = self._tables.pop(id).specification.gamma
            self._stacks[gamma].remove(id)
            if not self._stacks[gamma]:
                del self._stacks[gamma]

    def follow(self, tables: Mapping[str, Table]) -> None:
        """Hold these tables, and no others. Cost: that of adding those that are new or have other columns now."""
        for id, old in list(self._tables.items()):
            new = tables.get(id)
            if new is None or new.mark != old.mark:
                self.remove(id)
            else:
                self._tables[id] = new
        for id, table in tables.items():
            if id not in self._tables:
                self.add(id, table.semantic, table.specification)

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
            words = semantic_hits(query, {id: table.semantic for id, table in self._tables.items()})
        if shelf is None:
            return SearchResult(searched="heterogeneous")
        positions = np.array([i for i, id in enumerate(shelf.ids) if id in words], dtype=np.int64)
        result = search_shelf(shelf, user, positions, mixture, "heterogeneous")
        return replace(result, single=result.single[offset : offset + limit])


@dataclass(frozen=True)
class Table:
    """A learnware that can be compared across columns."""

    semantic: SemanticSpecification
    specification: Specification

    @property
    def columns(self) -> dict[int, str]:
        """What its features mean."""
        return {} if self.semantic.input is None else self.semantic.input.description

    @cached_property
    def mark(self) -> str:
        """Equal for all that a map makes the same of."""
        columns = json.dumps(sorted(self.columns.items()))
        return sha256(f"{self.specification.digest} {columns}".encode()).hexdigest()[:16]


def tables_of(index: Index) -> dict[str, Table]:
    """The learnwares of an index that can be compared across columns."""
    return {id: Table(words, table) for id, words, table in index.items() if table and usable(words, table)}


def usable(semantic: SemanticSpecification, specification: Specification) -> bool:
    """Whether a learnware can be compared across columns: a table of raw values whose features are described.

    Not so tables with very many columns or very large values, which would cost or spoil too much.
    """
    if semantic.input is None or not semantic.input.description:
        return False
    try:
        check_across(specification)
    except BadSpecification:
        return False
    return True


def fitted(tables: Mapping[str, Table], how: FitTableMap | None = None, seed: int = 0) -> TableMap:
    """A map trained on tables. Errors: `BadInput` when none of them has two columns or more."""
    from didact.reusing.dock.specification.heterogeneous import FitTableMap

    return (how or FitTableMap()).fit([(table.specification, table.columns) for table in tables.values()], seed)

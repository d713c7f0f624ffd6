"""The usable learnwares of a dock in memory, ready to be searched."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import RLock

import numpy as np

from didact.core.errors import BadInput
from didact.reusing.dock.errors import BadSpecification, NotFound
from didact.reusing.dock.search.identifiers import Reorder
from didact.reusing.dock.search.mixture import NEAREST, SEARCHES
from didact.reusing.dock.search.result import Hit, Mixture, SearchResult
from didact.reusing.dock.search.scores import KEPT, kept, scores_of
from didact.reusing.dock.search.semantic import semantic_hits
from didact.reusing.dock.search.single import Array, Positions, Shelf, Space, Stack
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.specification.statistical import Specification


class Index:
    """Learnwares by id, with their words and specifications.

    Use it wherever learnwares are searched: a dock keeps one in step with its database. It may be used from several
    threads; a search sees the learnwares that were there when it began.

    Cost: memory O(K d) numbers per learnware; a search takes O(n K^2 d) time for the n learnwares that meet the
    query and can be compared, K reduced points each.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._semantics: dict[str, SemanticSpecification] = {}
        self._specifications: dict[str, Specification] = {}
        self._stacks: dict[Space, Stack] = {}

    def __len__(self) -> int:
        return len(self._semantics)

    def __contains__(self, id: object) -> bool:
        return id in self._semantics

    def add(self, id: str, semantic: SemanticSpecification, specification: Specification | None) -> None:
        """Add a learnware, or replace it. Without a specification it is found by words only."""
        if not id:
            raise BadInput("A learnware's id must not be empty. Give it one.")
        with self._lock:
            self.remove(id, missing_ok=True)
            self._semantics[id] = semantic
            if specification is not None:
                space = Space.of(specification)
                self._stacks.setdefault(space, Stack(space)).add(id, specification)
                self._specifications[id] = specification

    def remove(self, id: str, *, missing_ok: bool = False) -> None:
        """Take a learnware out. Errors: `NotFound` when it is not there, unless `missing_ok`."""
        with self._lock:
            if id not in self._semantics:
                if missing_ok:
                    return
                raise NotFound("unknown-learnware", f"There is no learnware {id!r} in this index.")
            del self._semantics[id]
            specification = self._specifications.pop(id, None)
            if specification is not None:
                space = Space.of(specification)
                self._stacks[space].remove(id)
                if not self._stacks[space]:
                    del self._stacks[space]

    def clear(self) -> None:
        """Take all learnwares out."""
        with self._lock:
            self._semantics.clear()
            self._specifications.clear()
            self._stacks.clear()

    def ids(self) -> list[str]:
        """The ids, in the order of adding."""
        with self._lock:
            return list(self._semantics)

    def items(self) -> list[tuple[str, SemanticSpecification, Specification | None]]:
        """The learnwares with their words and specifications, in the order of adding."""
        with self._lock:
            return [(id, semantic, self._specifications.get(id)) for id, semantic in self._semantics.items()]

    def semantic(self, id: str) -> SemanticSpecification:
        """A learnware's words."""
        return self._semantics[id]

    def specification(self, id: str) -> Specification | None:
        """A learnware's specification, when it has one."""
        return self._specifications.get(id)

    def search(
        self,
        query: SemanticQuery | None = None,
        specification: Specification | None = None,
        limit: int = 20,
        mixture: str | None = "greedy",
        *,
        offset: int = 0,
        reorder: Reorder | None = None,
    ) -> SearchResult:
        """The learnwares that meet a query, by distance to a user's specification when one is given.

        With a specification, only learnwares of its space are found (for texts: that know all of its languages),
        those with a score below 0.6 are dropped except the first, and a `mixture` is sought among the 25 nearest,
        "greedy" or "auto". `reorder` gives ids other scores, higher first. Nothing found is an empty result.

        Errors: `BadInput` for a limit, offset or mixture that is not possible; `BadSpecification` when no learnware
        whatever can be compared with the specification although there are some of its type (another encoder, gamma
        or dimension): `incompatible`.
        """
        if limit < 0 or offset < 0:
            raise BadInput(f"`limit` and `offset` are at least 0; {limit} and {offset} were given.")
        if mixture is not None and mixture not in SEARCHES:
            raise BadInput(f"`mixture` is one of {', '.join(SEARCHES)} or None; {mixture!r} was given.")
        with self._lock:
            learnwares = dict(self._semantics)
            stack = None if specification is None else self._stack(specification)
            shelf = None if stack is None else stack.shelf()
        words = semantic_hits(query, learnwares)
        if specification is None:
            result = SearchResult([Hit(id, score) for id, score in words.items()], None, len(words), "semantic")
        elif shelf is None:
            result = SearchResult(searched="statistical")
        else:
            result = search_shelf(shelf, specification, self._comparable(shelf, words, specification), mixture)
        if reorder is not None:
            result = result.reordered(reorder(result.ids))
        return replace(result, single=result.single[offset : offset + limit])

    def _stack(self, specification: Specification) -> Stack | None:
        stack = self._stacks.get(Space.of(specification))
        if stack is None:
            others = [space for space in self._stacks if space.type == specification.type]
            if others:
                asked = Space.of(specification)
                raise BadSpecification(
                    "incompatible",
                    f"No learnware here can be compared with a specification of dimension {asked.dimension}, encoder "
                    f"{asked.encoder!r} and gamma {asked.gamma:g}. There are: {_listed(others)}. Specify the data so.",
                )
        return stack

    def _comparable(self, shelf: Shelf, words: Mapping[str, float], user: Specification) -> Positions:
        """The positions, in the order of adding, of learnwares that meet the query and know the user's languages."""
        specifications = self._specifications
        needed = set(user.languages)

        def knows(id: str) -> bool:
            known = specifications.get(id)
            return known is not None and (not known.languages or needed <= set(known.languages))

        found = [i for i, id in enumerate(shelf.ids) if id and id in words and (not needed or knows(id))]
        return np.array(found, dtype=np.int64)


def search_shelf(
    shelf: Shelf, user: Specification, positions: Positions, mixture: str | None, searched: str = "statistical"
) -> SearchResult:
    """Singles and mixture among the learnwares at some positions of a shelf."""
    if not len(positions):
        return SearchResult(searched=searched)
    everything = len(positions) == len(shelf.ids)
    distances = shelf.distances(user, None if everything else positions)
    order = np.argsort(distances, kind="stable")
    ids = [shelf.ids[i] for i in positions[order]]
    distances = distances[order]
    found = None
    if mixture is not None and distances[0] > 0.0:
        found = _mixture(shelf, user, positions[order[:NEAREST]], mixture)
    return scored(ids, distances, found, searched)


def _mixture(shelf: Shelf, user: Specification, nearest: Positions, how: str) -> tuple[list[str], Array, float] | None:
    among, toward = shelf.among(nearest), shelf.inner_products(user, nearest)
    chosen, weights, distance = SEARCHES[how](among, toward, user.self_product)
    if len(chosen) < 2:
        return None
    return [shelf.ids[nearest[i]] for i in chosen], weights, distance


def scored(
    ids: list[str], distances: Array, found: tuple[list[str], Array, float] | None, searched: str
) -> SearchResult:
    """Scores on one scale for singles and mixture; a mixture must beat the best single by a full percent."""
    values = [float(distance) for distance in distances]
    scores = scores_of(values if found is None else [*values, found[2]])
    combined = None
    if found is not None:
        score = scores.pop()
        if int(100 * score) != int(100 * scores[0]):
            combined = Mixture(tuple(found[0]), tuple(float(weight) for weight in found[1]), score, found[2])
    count = kept(scores)
    if count == 1 and scores[0] < KEPT:
        # A first hit on its own is shown at the threshold it was let past, and the mixture in proportion.
        ratio = 100.0 if scores[0] < 1e-5 else KEPT / scores[0]
        combined = None if combined is None else replace(combined, score=min(1.0, combined.score * ratio))
        scores[0] = KEPT
    hits = [Hit(*hit) for hit in zip(ids[:count], scores[:count], values[:count], strict=True)]
    return SearchResult(hits, combined, count, searched)


def _listed(spaces: Iterable[Space]) -> str:
    each = sorted({f"dimension {s.dimension}, encoder {s.encoder!r}, gamma {s.gamma:g}" for s in spaces})
    return "; ".join(each[:5])

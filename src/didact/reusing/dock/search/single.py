"""Many specifications of one space, stacked, so that a search is a few large matrix products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from didact.reusing.dock.specification.kernel import gaussian
from didact.reusing.dock.specification.statistical import Specification

Array = NDArray[np.float64]
Positions = NDArray[np.int64]

MOST_PAIRS = 500_000  # inner products of learnwares with each other that a stack remembers: about 50 MB

_BLOCK = 1024  # reduced points that meet the user's at once: the kernel block stays in cache


class Space(NamedTuple):
    """What must agree for distances to mean something."""

    type: str
    encoder: str
    gamma: float
    dimension: int

    @classmethod
    def of(cls, specification: Specification) -> Space:
        """The space a specification lives in."""
        return cls(specification.type, specification.encoder, specification.gamma, specification.dimension)


@dataclass(frozen=True)
class Shelf:
    """A state of a stack that stays as it is while the stack grows: searches read it without a lock."""

    ids: tuple[str, ...]  #: by position
    points: Array  #: all reduced points, (R, d + 2), in the form that makes exponents of one product
    weights: Array  #: (R,)
    starts: Positions  #: (n + 1,): learnware i's points are starts[i] to starts[i + 1]
    self_products: Array  #: (n,)
    origin: Array  #: what was taken off every point
    gamma: float
    serials: Positions  #: (n,): numbers that no two learnwares of the stack ever share
    #: inner products known so far, by the two serial numbers, lower first; shared by all shelves of a stack
    pairs: dict[tuple[int, int], float]

    def inner_products(self, user: Specification, positions: Positions | None = None) -> Array:
        """<P_i, Q> for all learnwares, or those at some positions. Cost: O(R K d) for K points of the user."""
        shelf = self if positions is None else self.only(positions)
        if not len(shelf.ids):
            return np.empty(0)
        against = _columns(user.z - self.origin, self.gamma)
        per_point = np.empty(len(shelf.points))
        for start in range(0, len(per_point), _BLOCK):
            rows = slice(start, start + _BLOCK)
            exponents = shelf.points[rows] @ against
            per_point[rows] = np.exp(np.minimum(exponents, 0.0, out=exponents), out=exponents) @ user.beta
        return np.add.reduceat(per_point * shelf.weights, shelf.starts[:-1])

    def distances(self, user: Specification, positions: Positions | None = None) -> Array:
        """MMD^2 to all learnwares, or those at some positions."""
        own = self.self_products if positions is None else self.self_products[positions]
        return np.maximum(0.0, own - 2.0 * self.inner_products(user, positions) + user.self_product)

    def among(self, positions: Positions) -> Array:
        """The inner products of some learnwares with each other, (m, m). Each pair is computed once and remembered."""
        few = self.only(positions)
        found = np.full((len(positions), len(positions)), np.nan)
        for i, one in enumerate(few.serials):
            for j, other in enumerate(few.serials[: i + 1]):
                found[i, j] = found[j, i] = self.pairs.get(_pair(one, other), np.nan)
        lacking = np.flatnonzero(np.isnan(found).any(axis=1))
        if len(lacking):
            self._complete(found, few, lacking)
        return found

    def _complete(self, found: Array, few: Shelf, rows: Positions) -> None:
        """Compute the rows of a matrix of inner products, and remember their pairs."""
        z, part = few.points[:, :-2], few.only(rows)
        halves = np.add.reduceat(
            part.weights[:, None] * gaussian(part.points[:, :-2], z, self.gamma), part.starts[:-1], axis=0
        )
        products = np.add.reduceat(halves * few.weights, few.starts[:-1], axis=1)
        found[rows] = np.where(np.isnan(found[rows]), products, found[rows])
        # A pair has one value, whichever of the two came first: what is computed now is what will be remembered.
        found[:] = np.triu(found) + np.triu(found, 1).T
        if len(self.pairs) > MOST_PAIRS:
            self.pairs.clear()
        for i in rows:
            self.pairs.update(
                (_pair(few.serials[i], other), float(value)) for other, value in zip(few.serials, found[i], strict=True)
            )

    def only(self, positions: Positions) -> Shelf:
        """The shelf of the learnwares at some positions."""
        counts = self.starts[positions + 1] - self.starts[positions]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[positions] - starts[:-1], counts)
        ids = tuple(self.ids[i] for i in positions)
        return Shelf(
            ids,
            self.points[rows],
            self.weights[rows],
            starts,
            self.self_products[positions],
            self.origin,
            self.gamma,
            self.serials[positions],
            self.pairs,
        )


class Stack:
    """Specifications of one space. Adding is amortised O(K d); the arrays grow by doubling.

    Not safe for concurrent writing: its owner holds a lock while it adds, removes and takes the shelf.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._origin = np.zeros(space.dimension)
        self._shelf: Shelf | None = None
        self._pairs: dict[tuple[int, int], float] = {}
        self._next = 0
        self._clear()

    def __len__(self) -> int:
        return len(self._positions)

    def add(self, id: str, specification: Specification) -> None:
        """Add a learnware that is not there."""
        if not self._ids:
            # Squares about the data's own middle lose the fewest digits.
            self._origin = specification.z.mean(axis=0)
        self._append(id, _rows(specification.z - self._origin, self.space.gamma), specification.beta)
        self._self_products.append(specification.self_product)
        self._serials.append(self._next)
        self._next += 1
        self._shelf = None

    def remove(self, id: str) -> None:
        """Remove a learnware that is there. The arrays are packed when more than half of them is dead."""
        self._ids[self._positions.pop(id)] = ""
        self._shelf = None
        if 2 * len(self._positions) < len(self._ids):
            self._pack()

    def shelf(self) -> Shelf:
        """The learnwares as they are now; those removed since the last packing have the id ""."""
        if self._shelf is None:
            end = self._starts[-1]
            self._shelf = Shelf(
                tuple(self._ids),
                self._points[:end],
                self._weights[:end],
                np.array(self._starts, dtype=np.int64),
                np.array(self._self_products),
                self._origin,
                self.space.gamma,
                np.array(self._serials, dtype=np.int64),
                self._pairs,
            )
        return self._shelf

    def position(self, id: str) -> int:
        """Where a learnware stands on the shelf."""
        return self._positions[id]

    def _clear(self) -> None:
        self._ids: list[str] = []
        self._positions: dict[str, int] = {}
        self._starts = [0]
        self._self_products: list[float] = []
        self._serials: list[int] = []
        self._points = np.empty((0, self.space.dimension + 2))
        self._weights = np.empty(0)
        self._shelf = None

    def _append(self, id: str, rows: Array, weights: Array) -> None:
        start, end = self._starts[-1], self._starts[-1] + len(rows)
        if end > len(self._points):
            self._points, self._weights = _grown(self._points, end), _grown(self._weights, end)
        self._points[start:end], self._weights[start:end] = rows, weights
        self._positions[id] = len(self._ids)
        self._ids.append(id)
        self._starts.append(end)

    def _pack(self) -> None:
        alive = self.shelf().only(np.array(sorted(self._positions.values()), dtype=np.int64))
        self._clear()
        for i, id in enumerate(alive.ids):
            rows = slice(alive.starts[i], alive.starts[i + 1])
            self._append(id, alive.points[rows], alive.weights[rows])
        self._self_products = list(alive.self_products)
        self._serials = alive.serials.tolist()


def _pair(one: int, other: int) -> tuple[int, int]:
    return (int(one), int(other)) if one < other else (int(other), int(one))


def _rows(z: Array, gamma: float) -> Array:
    """Rows (K, d + 2) whose product with `_columns` of q is -gamma |z - q|^2."""
    return np.column_stack([z, -gamma * np.sum(z**2, axis=1), np.ones(len(z))])


def _columns(q: Array, gamma: float) -> Array:
    return np.vstack([2.0 * gamma * q.T, np.ones(len(q)), -gamma * np.sum(q**2, axis=1)])


def _grown(array: Array, least: int) -> Array:
    larger = np.empty((max(2 * len(array), least, 1024), *array.shape[1:]))
    larger[: len(array)] = array
    return larger

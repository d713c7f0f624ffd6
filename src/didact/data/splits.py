"""Disjoint training, validation and test parts of one data set, drawn from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput

T = TypeVar("T")
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Splits(Generic[T]):
    """Three disjoint parts of one data set. Iterating gives train, validation, test."""

    train: T
    validation: T
    test: T

    def __iter__(self) -> Iterator[T]:
        return iter((self.train, self.validation, self.test))


def split_indices(
    seed: int, total: int, *, train: int, validation: int, test: int, labels: NDArray[Any] | None = None
) -> Splits[Ints]:
    """Draw disjoint indices below ``total``; stratified when ``labels`` (total,) are given.

    Stratified means that every part holds each class in proportion, to within a few samples.
    Raises BadInput when a size is negative or the sizes add up to more than ``total``.
    """
    check_sizes(total, train=train, validation=validation, test=test)
    rng = np.random.default_rng(seed)
    order = rng.permutation(total) if labels is None else stratified_order(labels, rng)
    return Splits(order[:train], order[train : train + validation], order[train + validation :][:test])


def stratified_order(labels: NDArray[Any], rng: np.random.Generator) -> Ints:
    """A random order of the samples in which every stretch holds the classes in proportion."""
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        # The r-th of m members lands at a random place of the r-th of m equal intervals.
        position[rng.permutation(members)] = (np.arange(len(members)) + rng.random(len(members))) / len(members)
    return np.argsort(position, kind="stable")


def check_sizes(total: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 0:
            raise BadInput(f"The size of the {name} part must be a whole number of at least 0, but {size!r} was given.")
    wanted = sum(sizes.values())
    if wanted > total:
        parts = " + ".join(f"{name}={size}" for name, size in sizes.items())
        raise BadInput(f"The parts {parts} need {wanted} samples, but only {total} exist. Ask for smaller parts.")

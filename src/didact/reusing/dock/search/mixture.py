"""Mixtures: learnwares whose weighted embeddings together come near the user's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from didact.reusing.dock.specification.simplex import simplex_weights

Array = NDArray[np.float64]
Found = tuple[list[int], Array, float]  # indices, weights, distance

MOST = 5  # learnwares in a mixture
NEAREST = 25  # the candidates: the nearest singles
DECAY = 0.95  # a further learnware must bring the distance to this share of what it was
CUTOFF = 0.98  # `auto` keeps the largest weights up to this total


def greedy(among: Array, toward: Array, own: float, most: int = MOST) -> Found:
    """Add, one at a time, the learnware with which the mixture comes nearest to the user, weights solved anew.

    `among` (n, n) holds the learnwares' inner products, `toward` (n,) those with the user, `own` the user's with
    itself. Stops unless the distance falls to 0.95 of what it was, and at `most` learnwares.
    """
    chosen: list[int] = []
    weights, distance = np.empty(0), np.inf
    for _ in range(min(most, len(toward))):
        best = min(
            (_mixed(among, toward, own, [*chosen, i]) for i in range(len(toward)) if i not in chosen),
            key=lambda found: found[2],
        )
        if chosen and best[2] > DECAY * distance:
            break
        chosen, weights, distance = best
    return chosen, weights, distance


def auto(among: Array, toward: Array, own: float, most: int = MOST) -> Found:
    """One solve over all, then again over the largest weights: as many as stay within a total of 0.98."""
    weights = simplex_weights(among, toward)
    order = np.argsort(-weights, kind="stable")
    within = int(np.sum(np.cumsum(weights[order]) <= CUTOFF))
    return _mixed(among, toward, own, [int(i) for i in order[: min(max(1, within), most)]])


SEARCHES: dict[str, Callable[[Array, Array, float], Found]] = {"greedy": greedy, "auto": auto}


def _mixed(among: Array, toward: Array, own: float, chosen: list[int]) -> Found:
    """The best weights of those chosen and ||mu_user - sum_i w_i mu_i||^2."""
    kernel, target = among[np.ix_(chosen, chosen)], toward[chosen]
    weights = simplex_weights(kernel, target)
    distance = own - 2.0 * float(weights @ target) + float(weights @ kernel @ weights)
    return chosen, weights, max(0.0, distance)

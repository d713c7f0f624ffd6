"""The quadratic programme behind every weight of the dock: min 1/2 b^T K b - b^T c over b >= 0, sum b = 1.

Solved exactly by an active set: weights enter where the objective falls fastest and leave where they meet zero, and
between the two the weights inside are found by one linear solve. It ends at the optimum after finitely many steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RIDGE = 1e-9  # added to K's diagonal: kernel matrices of close points are singular to working precision


def simplex_weights(kernel: Array, target: Array, ridge: float = RIDGE) -> Array:
    """The minimiser b of 1/2 b^T K b - b^T c on the simplex. Shapes (n, n), (n,) -> (n,).

    `kernel` must be symmetric and positive semi-definite. Cost: about as many linear solves as there are positive
    weights.
    """
    n = len(target)
    k = kernel + ridge * np.eye(n)
    inside = np.zeros(n, dtype=bool)
    inside[np.argmin(0.5 * np.diag(k) - target)] = True
    weights = inside.astype(np.float64)
    tolerance = 1e-12 * max(1.0, float(np.abs(k).max()), float(np.abs(target).max()))
    for _ in range(20 * n + 20):
        slope = k @ weights - target
        level = float(slope @ weights)
        gain = np.where(inside, 0.0, level - slope)
        enters = int(np.argmax(gain))
        if gain[enters] <= tolerance:
            break
        moved = _move_to_best(k, target, weights, inside, enters)
        if _value(k, target, moved) >= _value(k, target, weights):
            break  # no further gain at working precision
        weights, inside = moved, moved > 0
    return weights


def simplex_value(kernel: Array, target: Array, weights: Array) -> float:
    """1/2 b^T K b - b^T c."""
    return _value(kernel, target, weights)


def _move_to_best(k: Array, target: Array, weights: Array, inside: NDArray[np.bool_], enters: int) -> Array:
    """The best weights on the set grown by `enters`, letting go on the way of those that would fall below zero."""
    inside = inside.copy()
    inside[enters] = True
    weights = weights.copy()
    while True:
        best = _best_on(k, target, inside)
        below = inside & (best <= 0.0)
        if not below.any():
            return best
        room = np.full(len(weights), np.inf)
        room[below] = weights[below] / np.maximum(weights[below] - best[below], 1e-300)
        step = min(1.0, float(room.min()))
        weights = np.where(inside, weights + step * (best - weights), 0.0)
        leaves = below & (room <= step)
        weights[leaves] = 0.0
        inside &= ~leaves


def _best_on(k: Array, target: Array, inside: NDArray[np.bool_]) -> Array:
    """The minimiser with sum 1 over the weights inside, their signs left free."""
    chosen = np.flatnonzero(inside)
    both = np.linalg.solve(k[np.ix_(chosen, chosen)], np.column_stack([target[chosen], np.ones(len(chosen))]))
    free, unit = both[:, 0], both[:, 1]
    best = np.zeros(len(k))
    best[chosen] = free + unit * (1.0 - free.sum()) / unit.sum()
    return best


def _value(k: Array, target: Array, weights: Array) -> float:
    return float(0.5 * weights @ k @ weights - weights @ target)

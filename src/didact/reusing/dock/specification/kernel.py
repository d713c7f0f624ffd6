"""The Gaussian kernel and inner products of weighted point sets in its feature space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BLOCK = 4096  # rows of a kernel matrix that are held at once where only its product is wanted


def gaussian(a: Array, b: Array, gamma: float) -> Array:
    """k(a_i, b_j) = exp(-gamma |a_i - b_j|^2); shapes (n, d), (m, d) -> (n, m)."""
    return np.asarray(np.exp(-gamma * square_distances(a, b)), np.float64)


def square_distances(a: Array, b: Array) -> Array:
    """|a_i - b_j|^2; shapes (n, d), (m, d) -> (n, m)."""
    # The distance is the same from any origin; near the data's own middle the squares lose the fewest digits.
    middle = b.mean(axis=0)
    a, b = a - middle, b - middle
    squares = np.sum(a**2, axis=1)[:, None] - 2.0 * (a @ b.T) + np.sum(b**2, axis=1)[None, :]
    return np.asarray(np.maximum(squares, 0.0), np.float64)


def mean_kernel(points: Array, weights: Array, at: Array, gamma: float) -> Array:
    """The embedding sum_j weights_j k(points_j, .) evaluated at some points; shapes (m, d), (m,), (n, d) -> (n,)."""
    blocks = (at[start : start + _BLOCK] for start in range(0, len(at), _BLOCK))
    return np.concatenate([gaussian(block, points, gamma) @ weights for block in blocks])


def inner(z_a: Array, beta_a: Array, z_b: Array, beta_b: Array, gamma: float) -> float:
    """<P, Q> = beta_a^T k(z_a, z_b) beta_b."""
    return float(beta_a @ gaussian(z_a, z_b, gamma) @ beta_b)


def mmd2(z_a: Array, beta_a: Array, z_b: Array, beta_b: Array, gamma: float) -> float:
    """MMD^2 = <P, P> - 2 <P, Q> + <Q, Q>, at least 0."""
    of_a = inner(z_a, beta_a, z_a, beta_a, gamma)
    of_b = inner(z_b, beta_b, z_b, beta_b, gamma)
    return max(0.0, of_a - 2.0 * inner(z_a, beta_a, z_b, beta_b, gamma) + of_b)

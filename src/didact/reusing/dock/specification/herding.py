"""Kernel herding: points that together have the mean embedding of a reduced set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.reusing.dock.specification.kernel import mean_kernel

Array = NDArray[np.float64]

CANDIDATES = 100  # drawn for every point wanted
SPREAD = 0.25  # standard deviation of candidates about their reduced point


def herd(z: Array, beta: Array, gamma: float, n: int, seed: int = 0) -> Array:
    """n points, greedily: the next is the candidate x with the largest (t + 1) f(x) - sum_s k(s, x).

    f is the embedding sum_j beta_j k(z_j, .), s runs over the t points chosen so far, and 100 n candidates are drawn
    from Gaussians with standard deviation 0.25 about the points of z, chosen by beta. Shape (n, d).
    """
    if n < 1:
        raise BadInput(f"Herding gives 1 point or more; {n} were asked for.")
    among = candidates(z, beta, CANDIDATES * n, seed)
    return among[chosen(among, z, beta, gamma, n)]


def candidates(z: Array, beta: Array, n: int, seed: int) -> Array:
    """n draws from the mixture of Gaussians about the points of z, shape (n, d)."""
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(z), size=n, p=beta)
    return np.asarray(z[drawn] + rng.normal(scale=SPREAD, size=(n, z.shape[1])), np.float64)


def chosen(among: Array, z: Array, beta: Array, gamma: float, n: int) -> NDArray[np.int64]:
    """The indices of the n candidates that greedy herding takes, in order. A candidate may be taken again."""
    near = mean_kernel(z, beta, among, gamma)
    centred = among - among.mean(axis=0)
    squares = np.sum(centred**2, axis=1)
    crowded = np.zeros(len(among))
    picks = np.empty(n, dtype=np.int64)
    for t in range(n):
        picks[t] = np.argmax((t + 1) * near - crowded)
        pick = picks[t]
        distance = squares + squares[pick] - 2.0 * (centred @ centred[pick])
        crowded += np.exp(-gamma * np.maximum(distance, 0.0))
    return picks

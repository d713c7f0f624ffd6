"""The reduced set: few weighted points whose kernel mean embedding is near that of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification.kernel import gaussian, square_distances
from didact.reusing.dock.specification.simplex import simplex_weights
from didact.reusing.dock.specification.statistical import LARGEST, MOST_POINTS, MOST_VALUES, Specification

Array = NDArray[np.float64]

RAW = 1e-6  # a reduced point nearer than this to a row would give the row away
_BLOCK = 2048  # rows of the data in one piece, so that no (K, n) matrix is held for large n


class RKME(BaseModel):
    """Makes the reduced kernel mean embedding of a data set, to be sent in place of the data.

    Use it when a model or a question is to be matched with others by its data, and the data must not leave. The
    reduced points start at the centres of k-means; their weights solve a quadratic programme on the simplex; then,
    `steps` times, the points take a gradient step on the squared distance between the two embeddings and the weights
    are solved for again. Input (n, d) or any (n, ...), which is flattened; missing and infinite values become the
    mean of their column. Nothing is trained besides the points and weights.

    No reduced point that is returned lies within 1e-6 of a row: one that does (a cluster of a single row, or of equal
    rows) is merged with its nearest neighbour until none does. This hides rows, not the distribution: a cluster of few
    rows still says roughly where they are. Use a smaller `k` where that is too much.

    Errors: `BadSpecification` for fewer than two rows, a column without a single finite value, or data in which
    no reduced set keeps clear of the rows (all rows equal).

    Cost: O(n K d) time for each of the rounds and of k-means's iterations, O(K^3) for each solve; memory O(K d) beyond
    the data.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427); the reduced set is
    due to Wu, Xu, Liu and Zhou, Model reuse with reduced kernel mean embedding specification.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(default=100, ge=1, le=MOST_POINTS)  #: reduced points; floor(2 n / 3) when there are no more rows
    gamma: float = Field(default=0.1, gt=0.0, allow_inf_nan=False)  #: of the kernel exp(-gamma |x - y|^2)
    steps: int = Field(default=3, ge=0)  #: rounds of moving the points and solving for the weights
    step_size: float = Field(default=0.1, gt=0.0, allow_inf_nan=False)  #: of the points' gradient steps
    released: bool = False  #: the `learnware` package's gradient, whose first term lacks the factor 2

    def __init__(self, k: int = 100, gamma: float = 0.1, steps: int = 3, **others: Any) -> None:
        super().__init__(k=k, gamma=gamma, steps=steps, **others)

    def fit(
        self,
        x: ArrayLike,
        seed: int = 0,
        *,
        type: str = "rkme-table",
        encoder: str = "",
        languages: tuple[str, ...] = (),
    ) -> Specification:
        """The specification of a data set; `seed` draws the start of k-means."""
        rows = rows_of(x)
        different = np.unique(rows, axis=0)
        k = self.points_for(len(different), rows.shape[1])
        z, beta = self.refine(rows, _centres(rows, k, seed))
        z, beta = self._clear_of(different, rows, z, beta)
        return Specification(type=type, gamma=self.gamma, encoder=encoder, z=z, beta=beta, languages=languages)

    def points_for(self, n: int, dimension: int) -> int:
        """How many reduced points n different rows get."""
        k = min(self.k, max(1, MOST_VALUES // dimension))
        return max(1, 2 * n // 3) if k >= n else k

    def refine(self, rows: Array, z: Array) -> tuple[Array, Array]:
        """Weights for the points z, then `steps` rounds of moving the points and solving again."""
        beta = weights_for(rows, z, self.gamma)
        for _ in range(self.steps):
            z = z - self.step_size * self.gradient(rows, z, beta)
            beta = weights_for(rows, z, self.gamma)
        return z, beta

    def gradient(self, rows: Array, z: Array, beta: Array) -> Array:
        """Of |sum_j beta_j k(z_j, .) - mean_x k(x, .)|^2 by each z_i, shape (K, d).

        -2 gamma beta_i (2 sum_j beta_j k_ij (z_i - z_j) - 2 mean_x k(z_i, x) (z_i - x)); `released` counts the first
        sum once.
        """
        weighted = gaussian(z, z, self.gamma) * beta
        apart = z * weighted.sum(axis=1, keepdims=True) - weighted @ z
        near, pull = np.zeros(len(z)), np.zeros_like(z)
        for block in _blocks(rows):
            kernel = gaussian(z, block, self.gamma)
            near += kernel.sum(axis=1)
            pull += kernel @ block
        toward = (z * near[:, None] - pull) / len(rows)
        own = 1.0 if self.released else 2.0
        return np.asarray(-2.0 * self.gamma * beta[:, None] * (own * apart - 2.0 * toward))

    def _clear_of(self, different: Array, rows: Array, z: Array, beta: Array) -> tuple[Array, Array]:
        """Merge reduced points that lie on a row with their nearest neighbours, weighing each by the rows it holds."""
        while (too_near := _nearest(different, z) < RAW).any():
            if len(z) == 1:
                raise BadSpecification(
                    "raw-rows",
                    "A specification may not contain rows of the data, but every reduced set of these rows does (they "
                    "are all equal or nearly so). Give more, or more varied, rows.",
                )
            z = _merged(z, _held(rows, z), int(np.flatnonzero(too_near)[0]))
            beta = weights_for(rows, z, self.gamma)
        return z, beta


def weights_for(rows: Array, z: Array, gamma: float) -> Array:
    """argmin over the simplex of 1/2 b^T K_zz b - b^T c with c_i = mean_x k(z_i, x)."""
    near = np.zeros(len(z))
    for block in _blocks(rows):
        near += gaussian(z, block, gamma).sum(axis=1)
    return simplex_weights(gaussian(z, z, gamma), near / len(rows))


def rows_of(x: ArrayLike) -> Array:
    """A float64 copy of shape (n, d) with missing and infinite values replaced by their column's mean."""
    try:
        array = np.array(x, dtype=np.float64)
    except (ValueError, TypeError):
        raise BadSpecification(
            "wrong-shape", "A table of numbers with rows of one length is needed, but something else was given."
        ) from None
    if array.ndim < 1 or len(array) < 2 or array.size == 0:
        raise BadSpecification(
            "too-few-rows",
            f"A specification needs two rows or more with at least one column, but the shape is {array.shape}.",
        )
    rows = array.reshape(len(array), -1)
    rows[~np.isfinite(rows) | (np.abs(rows) > LARGEST)] = np.nan
    missing = np.isnan(rows)
    if missing.all(axis=0).any():
        column = int(np.flatnonzero(missing.all(axis=0))[0])
        raise BadSpecification(
            "non-finite", f"Column {column} has no finite value. Leave it out, or fill it, before specifying."
        )
    if missing.any():
        rows[missing] = np.broadcast_to(np.nanmean(rows, axis=0), rows.shape)[missing]
    return rows


def _centres(rows: Array, k: int, seed: int) -> Array:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=1, max_iter=100, random_state=seed).fit(rows).cluster_centers_, np.float64)


def _nearest(different: Array, z: Array) -> Array:
    """The distance from each reduced point to its nearest row."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(different).query(z)[0], np.float64)


def _held(rows: Array, z: Array) -> Array:
    """How many rows are nearest to each reduced point."""
    counts = np.zeros(len(z))
    for block in _blocks(rows):
        counts += np.bincount(square_distances(z, block).argmin(axis=0), minlength=len(z))
    return counts


def _merged(z: Array, held: Array, point: int) -> Array:
    apart = square_distances(z, z[point : point + 1])[:, 0]
    apart[point] = np.inf
    other = int(apart.argmin())
    shares = np.maximum(held[[point, other]], 1.0)
    middle = shares @ z[[point, other]] / shares.sum()
    return np.vstack([np.delete(z, [point, other], axis=0), middle])


def _blocks(rows: Array) -> list[Array]:
    return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]

"""From distances, which only compare, to scores between 0 and 1, which people read."""

from __future__ import annotations

import math
from collections.abc import Sequence

RATIO = 0.1  # of the mean distance: what counts as no distance at all
BEST = 0.92  # the least that the best hit gets
LIFTED = 0.7  # scores below are lifted by a square root, up to here
KEPT = 0.6  # hits below are dropped, except the first


def scores_of(distances: Sequence[float]) -> list[float]:
    """A score for every distance: s = (max - d) / (max - eps), below 0.7 min(sqrt(s), 0.7).

    eps is a tenth of the mean distance, lowered to the minimum if that is below it, and otherwise moved so that the
    best score is at least 0.92. Equal distances all score 1.
    """
    if not distances:
        return []
    nearest, farthest = min(distances), max(distances)
    if nearest == farthest:
        return [1.0] * len(distances)
    nothing = RATIO * sum(distances) / len(distances)
    if nearest < nothing:
        nothing = nearest
    elif (farthest - nearest) / (farthest - nothing) < BEST:
        nothing = farthest - (farthest - nearest) / BEST
    return [_lifted((farthest - distance) / (farthest - nothing)) for distance in distances]


def kept(scores: Sequence[float]) -> int:
    """How many of the sorted scores stay: all from 0.6 on, and in any case the first."""
    count = min(1, len(scores))
    while count < len(scores) and scores[count] >= KEPT:
        count += 1
    return count


def _lifted(score: float) -> float:
    return score if score >= LIFTED else min(math.sqrt(max(0.0, score)), LIFTED)

"""A specification drawn as a picture: its reduced points on their two main directions, as large as their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from didact.reusing.dock.specification import Specification

#: the picture's view box
WIDTH, HEIGHT, MARGIN = 420.0, 280.0, 22.0
LARGEST = 13.0  #: radius of the heaviest point


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    radius: float
    weight: float


@dataclass(frozen=True)
class Drawing:
    dots: tuple[Dot, ...]  #: heaviest first, so that small ones are drawn on top
    shares: tuple[float, float]  #: of the variance along the two directions
    size: int
    dimension: int


def draw(specification: Specification) -> Drawing:
    """Principal components weighted by beta: what weighs little hardly turns the picture, what weighs 0 is left out."""
    weighs = specification.beta > 0
    z, beta = np.asarray(specification.z[weighs]), np.asarray(specification.beta[weighs])
    centred = z - beta @ z
    scale = np.abs(centred).max() or 1.0  # very large values would overflow when squared
    _, sizes, directions = np.linalg.svd(np.sqrt(beta)[:, None] * (centred / scale), full_matrices=False)
    variance = np.append(sizes**2, [0.0, 0.0])
    total = float(variance.sum()) or 1.0
    places = np.zeros((len(z), 2))
    for k in range(min(2, len(directions))):
        # The sign of a direction is arbitrary; the largest entry made positive, the same data give the same picture.
        direction = directions[k] * (np.sign(directions[k][np.abs(directions[k]).argmax()]) or 1.0)
        places[:, k] = (centred / scale) @ direction
    x, y = _across(places)
    radii = LARGEST * np.sqrt(beta / (beta.max() or 1.0))
    order = np.argsort(-beta)
    dots = tuple(
        Dot(round(x[i], 1), round(y[i], 1), max(1.0, round(float(radii[i]), 1)), float(beta[i])) for i in order
    )
    shares = (float(variance[0]) / total, float(variance[1]) / total)
    return Drawing(dots, shares, len(z), z.shape[1])


def _across(places: np.ndarray) -> tuple[list[float], list[float]]:
    """Both directions on one scale, in the middle of the picture."""
    low, high = places.min(axis=0), places.max(axis=0)
    spans = high - low
    room = (WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN)
    factors = [room[k] / spans[k] for k in range(2) if spans[k] > 1e-12]
    factor = min(factors, default=0.0)
    middle = (low + high) / 2
    across = [WIDTH / 2 + factor * (p[0] - middle[0]) for p in places]
    down = [HEIGHT / 2 - factor * (p[1] - middle[1]) for p in places]
    return across, down

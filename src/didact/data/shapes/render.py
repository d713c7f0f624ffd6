"""Drawing scenes: anti-aliased shapes from signed distances, in numpy, many pictures at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from didact.data.shapes.factors import OBJECT_FACTORS, VALUES, SceneTable

Floats = NDArray[Any]  # float32; numpy cannot tell that from the arithmetic here
Masks = NDArray[np.uint8]

COLOURS = np.array(
    [
        *((0.90, 0.12, 0.12), (0.10, 0.70, 0.20), (0.15, 0.25, 0.95), (0.98, 0.90, 0.10)),
        *((0.55, 0.15, 0.75), (1.00, 0.55, 0.05), (0.10, 0.85, 0.90), (1.00, 0.55, 0.75)),
    ],
    dtype=np.float32,
)
CHUNK = 128  # pictures at a time: the working arrays then stay in the processor's cache
SMALLEST = 2.5  # pixels: below this radius a ring or a star leaves no trace


def draw_scenes(table: SceneTable, size: int, rng: np.random.Generator) -> tuple[Floats, Masks]:
    """Draw the table's pictures.

    Returns images (N, 3, size, size) float32 in [0, 1] and instances (N, size, size) uint8: 0 is background,
    k + 1 the visible pixels of object k (at least half covered). Smaller objects lie on top of larger ones.
    ``rng`` is used for grainy backgrounds and noisy styles only. Time and memory are linear in N x K x
    size^2.
    """
    images = np.empty((len(table), 3, size, size), dtype=np.float32)
    instances = np.empty((len(table), size, size), dtype=np.uint8)
    for start in range(0, len(table), CHUNK):
        rows = slice(start, start + CHUNK)
        images[rows], instances[rows] = _draw(table[rows], size, rng)
    return images, instances


def _draw(table: SceneTable, size: int, rng: np.random.Generator) -> tuple[Floats, Masks]:
    style = table.factor("style")
    sketched = style == VALUES["style"].index("sketch")
    image = _backgrounds(table.factor("background"), size, rng)
    image[sketched] = 0.96  # paper
    instances = np.zeros((len(table), size, size), dtype=np.uint8)
    order = np.argsort(-table.radius, axis=1, kind="stable")  # large ones first
    for layer in range(table.radius.shape[1]):
        slot = order[:, layer]
        rows = np.flatnonzero(slot < table.count)
        slot = slot[rows]
        distance, paint = _objects(table, rows, slot, size)
        cover = np.clip(0.5 - distance, 0.0, 1.0)  # the share of the pixel inside, to first order
        instances[rows] = np.where(cover >= 0.5, slot[:, None, None].astype(np.uint8) + 1, instances[rows])
        outline = sketched[rows]
        cover[outline] = np.clip(1.1 - np.abs(distance[outline] + 0.6), 0.0, 1.0)
        image[rows] += cover[:, None] * (paint - image[rows])
    return _styled(image, style, rng), instances


def _objects(table: SceneTable, rows: NDArray[np.intp], slot: NDArray[np.intp], size: int) -> tuple[Floats, Floats]:
    """Signed distances in pixels (m, size, size) and colours (m, 3, size, size) of one object per picture."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    centre, angle = table.centre[rows, slot], table.angle[rows, slot]
    radius = np.maximum(table.radius[rows, slot], SMALLEST / size)[:, None, None]
    x = (grid[None, None, :] - centre[:, 0, None, None]) / radius
    y = (centre[:, 1, None, None] - grid[None, :, None]) / radius  # up
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cos * x + sin * y, cos * y - sin * x  # the object's own axes, in which it fits the unit disc
    kinds = {name: table.objects[rows, slot, i] for i, name in enumerate(OBJECT_FACTORS)}
    distance = np.empty_like(u)
    for kind, function in enumerate(_DISTANCES):
        chosen = np.flatnonzero(kinds["shape"] == kind)
        distance[chosen] = function(u[chosen], v[chosen])
    tone = np.ones_like(u)
    for kind, pattern in enumerate(_PATTERNS):
        chosen = np.flatnonzero(kinds["texture"] == kind)
        if pattern is not None:
            tone[chosen] = 0.3 + 0.7 * np.clip(pattern(u[chosen], v[chosen]), 0.0, 1.0)
    return distance * radius * size, COLOURS[kinds["colour"]][:, :, None, None] * tone[:, None]


def _backgrounds(kind: NDArray[np.int64], size: int, rng: np.random.Generator) -> Floats:
    """(n, 3, size, size), colourless, so that no background looks like an object's colour."""
    line = np.linspace(0.0, 1.0, size, dtype=np.float32)
    x, y = line[None, :], line[:, None]
    tiles = ((np.floor(x * 3.999) + np.floor(y * 3.999)) % 2).astype(np.float32)
    flat = np.ones((size, size), dtype=np.float32)
    pictures = np.stack([0.5 * flat, 0.12 * flat, 0.86 * flat, 0.2 + 0.3 * (x + y), 0.32 + 0.3 * tiles, 0.5 * flat])
    image = pictures[kind]
    grainy = np.flatnonzero(kind == VALUES["background"].index("grainy"))
    image[grainy] += 0.12 * rng.standard_normal((len(grainy), size, size), dtype=np.float32)
    return np.repeat(np.clip(image, 0.0, 1.0)[:, None], 3, axis=1)


def _styled(image: Floats, style: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    noisy, inverted, foggy, night = (
        np.flatnonzero(style == VALUES["style"].index(name)) for name in ("noisy", "inverted", "foggy", "night")
    )
    image[noisy] += 0.1 * rng.standard_normal(image[noisy].shape, dtype=np.float32)
    image[inverted] = 1.0 - image[inverted]
    image[foggy] = 0.4 * image[foggy] + 0.5
    image[night] *= np.array([0.42, 0.46, 0.7], dtype=np.float32)[:, None, None]
    return np.clip(image, 0.0, 1.0, out=image)


def _triangle(u: Floats, v: Floats) -> Floats:
    return np.maximum(np.abs(u) * 0.8660254 + v * 0.5, -v) - 0.5


def _cross(u: Floats, v: Floats) -> Floats:
    a, b = np.abs(u), np.abs(v)
    return np.maximum(np.maximum(a, b) - 0.92, np.minimum(a, b) - 0.3)


def _star(u: Floats, v: Floats) -> Floats:
    fifth = 2 * np.pi / 5
    turn = np.abs((np.arctan2(u, v) + fifth / 2) % fifth - fifth / 2)  # fold the ten edges onto one
    r = np.hypot(u, v)
    # The edge runs from the tip (1, 0) to the notch at 36 degrees, radius 0.45; normal (0.384, 0.923).
    return (r * np.cos(turn) - 1.0) * 0.384 + r * np.sin(turn) * 0.923


def _heart(u: Floats, v: Floats) -> Floats:
    a, v = np.abs(u), v + 0.12
    h = 0.7  # a square on its tip with a disc on each of its upper sides
    return np.minimum((a + np.abs(v) - h) * 0.7071, np.hypot(a - h / 2, v - h / 2) - h * 0.7071)


_DISTANCES: tuple[Callable[[Floats, Floats], Floats], ...] = (
    lambda u, v: np.hypot(u, v) - 0.92,
    lambda u, v: np.maximum(np.abs(u), np.abs(v)) - 0.7,
    _triangle,
    _cross,
    _star,
    lambda u, v: np.abs(np.hypot(u, v) - 0.7) - 0.24,
    _heart,
    lambda u, v: np.maximum(np.hypot(u, v) - 0.95, 0.78 - np.hypot(u - 0.5, v)),
    lambda u, v: np.maximum(np.abs(u) - 0.95, np.abs(v) - 0.28),
    lambda u, v: np.maximum(np.hypot(u, v + 0.4) - 0.95, -v - 0.4),
)

#: Brightness patterns in [0, 1] on the object's own axes; soft edges, so that they survive small pictures.
_PATTERNS: tuple[Callable[[Floats, Floats], Floats] | None, ...] = (
    None,
    lambda u, v: 0.5 + 2.5 * np.sin(9.0 * u),
    lambda u, v: 3.0 * np.hypot((2.2 * u) % 1.0 - 0.5, (2.2 * v) % 1.0 - 0.5) - 0.35,
    lambda u, v: 0.5 + 4.0 * np.sin(5.0 * u) * np.sin(5.0 * v),
    lambda u, v: 0.5 + 0.6 * u,
    lambda u, v: 0.5 + 2.5 * np.cos(10.0 * np.hypot(u, v)),
)

"""What a scene is made of: the factors, their values, and how tables of them are drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Allowed = Mapping[str, Ints]

#: Every factor's values, by name; a table stores positions in these tuples.
VALUES: dict[str, tuple[str, ...]] = {
    "shape": (
        "circle",
        "square",
        "triangle",
        "cross",
        "star",
        "ring",
        "heart",
        "crescent",
        "bar",
        "semicircle",
    ),
    "colour": ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "pink"),
    "texture": ("solid", "striped", "dotted", "checkered", "shaded", "ringed"),
    "size": ("small", "medium", "large"),
    "rotation": tuple(f"{45 * turn} degrees" for turn in range(8)),
    "position": (
        *("top left", "top", "top right", "left", "middle", "right"),
        *("bottom left", "bottom", "bottom right"),
    ),
    "background": ("grey", "dark", "light", "sloped", "tiled", "grainy"),
    "style": ("plain", "noisy", "sketch", "inverted", "foggy", "night"),
}
OBJECT_FACTORS = ("shape", "colour", "texture", "size", "rotation", "position")
SCENE_FACTORS = ("background", "style")
RADII = ((0.13, 0.17), (0.19, 0.23), (0.26, 0.31))  # of small, medium and large, in image sizes


@dataclass
class SceneTable:
    """Everything that determines N pictures of up to K objects, apart from pixel noise.

    Coordinates and radii are in units of the image's side, x to the right and y down; angles in radians.
    Slots from ``count`` on are empty: their factors are -1.
    """

    objects: Ints  # (N, K, 6), columns in the order of OBJECT_FACTORS
    scene: Ints  # (N, 2), columns in the order of SCENE_FACTORS
    centre: Floats  # (N, K, 2) x, y
    radius: Floats  # (N, K)
    angle: Floats  # (N, K)
    count: Ints  # (N,) objects present

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: Any) -> SceneTable:
        return SceneTable(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def factor(self, name: str) -> Ints:
        """(N, K) for a factor of the objects, (N,) for one of the scene."""
        if name in OBJECT_FACTORS:
            return self.objects[:, :, OBJECT_FACTORS.index(name)]
        if name in SCENE_FACTORS:
            return self.scene[:, SCENE_FACTORS.index(name)]
        raise BadInput(f"There is no factor {name!r}. The factors are {', '.join(VALUES)}.")


def values(grid: int = 3) -> dict[str, tuple[str, ...]]:
    """The values of every factor when places are named on a grid of ``grid`` x ``grid`` cells."""
    if grid == 3:
        return dict(VALUES)
    cells = tuple(f"row {row + 1} column {column + 1}" for row in range(grid) for column in range(grid))
    return {**VALUES, "position": cells}


def allowed_values(wanted: Mapping[str, Any] | None, grid: int) -> dict[str, Ints]:
    """Turn a user's choice (names, positions, or how many of the first) into positions per factor."""
    names = values(grid)
    chosen = {name: np.arange(len(known)) for name, known in names.items()}
    chosen["style"] = np.array([0])  # a mixture of styles is asked for, not met by surprise
    for name, choice in (wanted or {}).items():
        if name not in names:
            raise BadInput(f"There is no factor {name!r}. The factors are {', '.join(names)}.")
        chosen[name] = _positions(name, names[name], choice)
    return chosen


def draw_table(
    rng: np.random.Generator,
    n: int,
    objects: tuple[int, int],
    allowed: Allowed,
    grid: int,
    imbalance: Mapping[str, float | Sequence[float]],
    correlate: Sequence[tuple[str, str, float]],
) -> SceneTable:
    """Draw every factor as evenly as its weights allow, then tie the correlated ones together."""
    most = objects[1]
    count = rng.integers(objects[0], most + 1, size=n)
    drawn: dict[str, Ints] = {}
    for name in (*OBJECT_FACTORS, *SCENE_FACTORS):
        shape = (n, most) if name in OBJECT_FACTORS else (n,)
        weights = class_weights(name, len(allowed[name]), imbalance.get(name, 1.0))
        drawn[name] = rng.permutation(_even(allowed[name], weights, int(np.prod(shape)))).reshape(shape)
    if most > 1:
        drawn["position"] = _different_cells(rng, n, most, allowed["position"])
    for source, target, strength in correlate:
        drawn[target] = _tied(rng, drawn, allowed, source, target, strength)
    present = np.arange(most) < count[:, None]  # (n, most)
    table = np.stack([np.where(present, drawn[name], -1) for name in OBJECT_FACTORS], axis=-1)
    scene = np.stack([drawn[name] for name in SCENE_FACTORS], axis=-1)
    return SceneTable(table, scene, *_geometry(rng, drawn, grid, most), count)


def class_weights(name: str, classes: int, imbalance: float | Sequence[float]) -> NDArray[np.float64]:
    """Probabilities (classes,): given as such, or geometric from 1 down to 1 / ratio."""
    if isinstance(imbalance, int | float):
        if not imbalance >= 1:
            raise BadInput(f"The imbalance of {name} is largest / smallest class and at least 1, not {imbalance}.")
        weights = float(imbalance) ** -(np.arange(classes) / max(classes - 1, 1))
    else:
        weights = np.asarray(imbalance, dtype=np.float64)
        if weights.shape != (classes,) or (weights < 0).any() or not weights.sum() > 0:
            raise BadInput(f"The weights of {name} must be {classes} numbers >= 0 that are not all 0.")
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _positions(name: str, known: tuple[str, ...], choice: Any) -> Ints:
    if isinstance(choice, str):
        choice = (choice,)
    elif isinstance(choice, int) and not isinstance(choice, bool):
        choice = range(choice)  # the first so many
    try:
        found = [known.index(item) if isinstance(item, str) else range(len(known))[int(item)] for item in choice]
    except (ValueError, IndexError, TypeError):
        raise BadInput(f"{choice!r} is no choice for the factor {name!r}. It can be: {', '.join(known)}.") from None
    if not found or len(set(found)) < len(found):
        raise BadInput(f"The factor {name!r} needs at least one value and none twice, but {choice!r} was given.")
    return np.array(found, dtype=np.int64)


def _even(chosen: Ints, weights: NDArray[np.float64], n: int) -> Ints:
    """``n`` values whose counts are the weights' shares to the nearest whole number (largest remainder)."""
    share = weights * n
    counts = np.floor(share).astype(np.int64)
    counts[np.argsort(counts - share, kind="stable")[: n - counts.sum()]] += 1
    return np.repeat(chosen, counts)


def _different_cells(rng: np.random.Generator, n: int, most: int, cells: Ints) -> Ints:
    if len(cells) < most:
        raise BadInput(f"{most} objects need {most} different positions, but only {len(cells)} are allowed.")
    return cells[np.argsort(rng.random((n, len(cells))), axis=1)[:, :most]]


def _tied(
    rng: np.random.Generator,
    drawn: dict[str, Ints],
    allowed: Allowed,
    source: str,
    target: str,
    strength: float,
) -> Ints:
    """Give the target the source's partner value with probability ``strength``, else any other value."""
    for name in (source, target):
        if name not in drawn:
            raise BadInput(f"There is no factor {name!r} to correlate. The factors are {', '.join(drawn)}.")
    if not 0 <= strength <= 1 or source == target or len(allowed[target]) < 2:
        raise BadInput(
            f"A correlation is (factor, other factor with at least 2 values, strength in [0, 1]), "
            f"but {(source, target, strength)!r} was given."
        )
    if target == "position" and drawn[target].shape[1] > 1:
        raise BadInput("Positions can be correlated only in scenes of one object: several need different places.")
    rank = np.searchsorted(np.sort(allowed[source]), drawn[source])
    if rank.ndim > drawn[target].ndim:
        rank = rank[:, 0]  # a scene's factor follows its first object
    elif rank.ndim < drawn[target].ndim:
        rank = np.broadcast_to(rank[:, None], drawn[target].shape)
    choices = len(allowed[target])
    away = rng.integers(1, choices, size=rank.shape)
    away[rng.random(rank.shape) < strength] = 0
    result: Ints = np.sort(allowed[target])[(rank + away) % choices]
    return result


def _geometry(rng: np.random.Generator, drawn: dict[str, Ints], grid: int, most: int) -> tuple[Floats, Floats, Floats]:
    shape = drawn["size"].shape
    crowd = {1: 1.0, 2: 0.85, 3: 0.75}.get(most, 0.62)
    low, high = np.array(RADII).T[:, drawn["size"]]
    radius = (low + (high - low) * rng.random(shape)) * crowd * min(1.0, 3 / grid)
    # Several objects keep to the middle of their cells, so that none hides another.
    spread = 1.0 if most == 1 else 0.5
    cell = np.stack([drawn["position"] % grid, drawn["position"] // grid], axis=-1)  # x, y
    centre = (cell + 0.5 + spread * (rng.random((*shape, 2)) - 0.5)) / grid
    # Radii are at most 1 / grid, so that keeping an object inside the picture never moves it to another cell.
    margin = np.minimum(radius, 0.999 / grid)[..., None]
    centre = np.clip(centre, margin, 1 - margin)
    angle = np.deg2rad(45.0 * drawn["rotation"] + rng.uniform(-10, 10, size=shape))
    return centre.astype(np.float32), radius.astype(np.float32), angle.astype(np.float32)

"""Generated scenes as one data set with many views: classes, boxes, masks, captions, questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from didact.core.errors import BadInput
from didact.data.shapes import captions as words
from didact.data.shapes.factors import SceneTable, allowed_values, draw_table, values
from didact.data.shapes.labels import boxes_around, share_of, wrong_labels
from didact.data.shapes.render import draw_scenes

Target = str | tuple[str, ...]


def shapes(
    seed: int = 0,
    n: int = 1000,
    *,
    size: int = 32,
    objects: int | tuple[int, int] = 1,
    factors: Mapping[str, Any] | None = None,
    grid: int = 3,
    imbalance: Mapping[str, float | Sequence[float]] | None = None,
    correlate: tuple[str, str, float] | Sequence[tuple[str, str, float]] = (),
    redundancy: float = 0.0,
) -> Scenes:
    """Draw ``n`` pictures of coloured shapes, with everything about them known.

    ``objects``: how many a picture holds, a number or (fewest, most).
    ``factors``: which values may occur, per factor: names (``{"style": ("plain", "sketch")}``) or how many of
    the first ones (``{"shape": 6}``). Unnamed factors take all values, except that the style is plain.
    An ``inverted`` style also inverts colours; a ``sketch`` draws outlines in the object's colour.
    ``grid``: positions are the cells of a grid x grid raster (3: "top left" ... "bottom right").
    ``imbalance``: per factor, the ratio of the most to the least frequent value (in between geometric), or
    weights. Without it every value occurs equally often, up to one.
    ``correlate``: (factor, other, strength): the other factor takes the first one's partner value with this
    probability and any of its other values else. Of several objects a scene's factor follows the first.
    ``redundancy``: the share of pictures that are near-copies (moved by up to a pixel) of another; see
    ``origin``.

    The same arguments give the same pictures; another ``n`` gives others. Memory: n x size^2 x 13 bytes
    (13 MB per 1,000 pictures of 32 x 32). Speed: several thousand pictures of 32 x 32 a second on one core.

    Raises BadInput for sizes, factors, values, weights or strengths that do not exist or fit.
    """
    fewest_most = _check(n, size, objects, grid, redundancy)
    rng = np.random.default_rng(seed)
    allowed = allowed_values(factors, grid)
    for name in (*(imbalance or {}),):
        if name not in allowed:
            raise BadInput(f"There is no factor {name!r} to make imbalanced. The factors are {', '.join(allowed)}.")
    pairs = [correlate] if correlate and isinstance(correlate[0], str) else list(correlate)
    own = n - round(n * redundancy)
    table = draw_table(rng, own, fewest_most, allowed, grid, imbalance or {}, pairs)  # type: ignore[arg-type]
    table, origin = _with_copies(rng, table, n, size)
    images, instances = draw_scenes(table, size, rng)
    names = values(grid)
    vocabulary = {name: tuple(names[name][i] for i in allowed[name]) for name in names}
    masks = torch.from_numpy(instances)
    boxes = boxes_around(masks, fewest_most[1])
    return Scenes(torch.from_numpy(images), masks, boxes, table, origin, vocabulary, names)


@dataclass(frozen=True)
class Scenes(Dataset[dict[str, Any]]):
    """Pictures with all their labels. Item i is a dict of image, boxes, labels, mask and caption."""

    images: Tensor  #: (N, 3, size, size) float32 in [0, 1]
    instances: Tensor  #: (N, size, size) uint8: 0 background, k + 1 the visible pixels of object k
    boxes: Tensor  #: (N, K, 4) float32 pixel edges x0, y0, x1, y1 around the visible pixels; NaN if absent
    table: SceneTable  #: the integer factors (``table.objects``, ``table.scene``) and the exact geometry
    origin: NDArray[np.int64]  #: (N,) the picture of which this is a near-copy; itself where it is none
    vocabulary: dict[str, tuple[str, ...]]  #: the values that may occur, per factor; classes count in this order
    names: dict[str, tuple[str, ...]]  #: all values per factor; the table counts in this order

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"Scene {index} was asked for, but there are only {len(self)}.")
        one = self.select([index % len(self)])
        return {
            **one.detection()[0][1],
            "image": one.images[0],
            "mask": one.instances[0],
            "caption": one.captions()[0],
        }

    def select(self, rows: Any) -> Scenes:
        """The scenes at ``rows`` (positions or a boolean mask). ``origin`` keeps the old numbers."""
        rows = np.asarray(rows)
        where = torch.from_numpy(np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64))
        chosen = where.numpy()
        return replace(
            self,
            images=self.images[where],
            instances=self.instances[where],
            boxes=self.boxes[where],
            table=self.table[chosen],
            origin=self.origin[chosen],
        )

    def classes(self, target: Target = "shape") -> tuple[str, ...]:
        """The names of the classes of ``labels(target)``, in order."""
        joint = [""]
        for name in _as_tuple(target):
            if name not in self.vocabulary:
                raise BadInput(f"There is no factor {name!r}. The factors are {', '.join(self.vocabulary)}.")
            joint = [f"{left} {right}".strip() for left in joint for right in self.vocabulary[name]]
        return tuple(joint)

    def labels(self, target: Target = "shape", *, slot: int = 0) -> Tensor:
        """(N,) int64 class of object ``slot`` (-1 if absent) by one factor, or jointly by several."""
        if not 0 <= slot < self.table.objects.shape[1]:
            raise BadInput(f"Object {slot} was asked for, but a scene holds at most {self.table.objects.shape[1]}.")
        self.classes(target)  # complains about unknown factors
        label = np.zeros(len(self), dtype=np.int64)
        for name in _as_tuple(target):
            column = self.table.factor(name)
            place = {self.names[name].index(value): i for i, value in enumerate(self.vocabulary[name])}
            lookup = np.array([place.get(i, -1) for i in range(len(self.names[name]))])
            label = label * len(place) + lookup[column[:, slot] if column.ndim == 2 else column]
        return torch.from_numpy(np.where(slot < self.table.count, label, -1))

    def classification(
        self, target: Target = "shape", *, noise: float = 0.0, seed: int = 0, slot: int = 0
    ) -> TensorDataset:
        """Pictures (3, size, size) and the class of one object, by a factor or jointly: ("shape", "colour").

        ``noise`` is the share of labels that are wrong: exactly round(noise x N), each another class, drawn
        by
        ``seed``; ``labels(target)`` keeps the truth. Raises BadInput when a scene lacks the object ``slot``.
        """
        label = self.labels(target, slot=slot)
        if len(label) and int(label.min()) < 0:
            raise BadInput(f"Some scenes have no object {slot}; ask for scenes with at least {slot + 1} objects.")
        return TensorDataset(self.images, wrong_labels(label, len(self.classes(target)), noise, seed))

    def detection(self, target: Target = "shape") -> list[tuple[Tensor, dict[str, Tensor]]]:
        """(image, {"boxes": (k, 4) float32 pixel edges, "labels": (k,) int64}) for each scene."""
        most = self.table.objects.shape[1]
        labels = torch.stack([self.labels(target, slot=k) for k in range(most)], dim=1)
        counts = self.table.count.tolist()
        return [(self.images[i], {"boxes": self.boxes[i, :k], "labels": labels[i, :k]}) for i, k in enumerate(counts)]

    def segmentation(self, target: Target = "shape") -> TensorDataset:
        """Pictures and class masks (size, size) int64: 0 background, c + 1 the visible pixels of class c."""
        most = self.table.objects.shape[1]
        ofslot = torch.stack([torch.full((len(self),), -1), *(self.labels(target, slot=k) for k in range(most))], 1)
        flat = self.instances.long().flatten(1)
        return TensorDataset(self.images, (ofslot.gather(1, flat) + 1).view_as(self.instances))

    def captions(
        self, *, mention: Sequence[str] = words.MENTION, keep: float = 1.0, wrong: float = 0.0, seed: int = 0
    ) -> list[str]:
        """One caption a scene, in one of several wordings.

        ``mention``: the factors that are told; without "shape" every object is called just "shape".
        ``keep``: each object is mentioned with this probability (at least one always is). ``wrong``: this
        share of scenes (two or more) gets another scene's caption. ``parse_caption`` reads captions back.
        """
        rng = np.random.default_rng(seed)
        told = [words.caption(scene, mention, keep, rng) for scene in self.described()]
        moved = rng.permutation(len(told))[: share_of("wrong", wrong, len(told))]
        swapped = {int(to): told[int(source)] for to, source in zip(moved, np.roll(moved, 1), strict=True)}
        return [swapped.get(i, text) for i, text in enumerate(told)]

    def questions(
        self, *, kinds: Sequence[str] = words.KINDS, per_image: int = 1, seed: int = 0
    ) -> list[words.Question]:
        """Questions about each scene with short answers: up to ``per_image``, of different kinds."""
        rng = np.random.default_rng(seed)
        unknown = [kind for kind in kinds if kind not in words.KINDS]
        if unknown:
            raise BadInput(f"There are no questions of the kind {unknown[0]!r}. Kinds: {', '.join(words.KINDS)}.")
        asked = (words.ask(i, scene, kinds, per_image, rng) for i, scene in enumerate(self.described()))
        return [question for few in asked for question in few]

    def relations(self) -> list[list[tuple[int, str, int]]]:
        """For each scene, (object, link, other object): above, below, to the left of, to the right of."""
        return [words.relations(scene) for scene in self.described()]

    def described(self) -> list[words.Described]:
        """Each scene's factors as words: what captions and questions are made from."""
        centres = self.table.centre.tolist()
        rows = zip(
            self.table.objects.tolist(),
            self.table.scene.tolist(),
            centres,
            self.table.count.tolist(),
            strict=True,
        )
        return [words.describe(self.names, *row) for row in rows]


def _with_copies(
    rng: np.random.Generator, table: SceneTable, n: int, size: int
) -> tuple[SceneTable, NDArray[np.int64]]:
    own = len(table)
    copied = rng.integers(0, own, size=n - own)
    order = rng.permutation(n)  # copies stand anywhere among the originals
    full = table[np.concatenate([np.arange(own), copied])[order]]
    copies = order >= own
    step = rng.uniform(-1.0, 1.0, size=full.centre.shape) / size
    full.centre = np.where(copies[:, None, None], full.centre + step, full.centre).astype(np.float32)
    place = np.argsort(order)  # where each one went
    return full, np.where(copies, place[np.concatenate([np.arange(own), copied])[order]], np.arange(n))


def _check(n: int, size: int, objects: int | tuple[int, int], grid: int, redundancy: float) -> tuple[int, int]:
    if n < 1 or size < 8:
        raise BadInput(f"At least 1 picture of at least 8 pixels is needed, but n={n} and size={size} were given.")
    low, high = (objects, objects) if isinstance(objects, int) else objects
    if not 1 <= low <= high <= 9:
        raise BadInput(f"A scene holds 1 to 9 objects, a number or (fewest, most), but {objects!r} was given.")
    if not 1 <= grid <= 8:
        raise BadInput(f"The grid of positions has 1 to 8 cells a side, but {grid} was given.")
    if not 0 <= redundancy < 1:
        raise BadInput(f"The share of near-copies lies in [0, 1), but redundancy={redundancy} was given.")
    if round(n * redundancy) >= n:
        raise BadInput(f"redundancy={redundancy} leaves no picture of {n} to copy from.")
    return low, high


def _as_tuple(target: Target) -> tuple[str, ...]:
    return (target,) if isinstance(target, str) else tuple(target)

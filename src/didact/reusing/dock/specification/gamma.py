"""The kernel width: one value per kind of specification and encoder, fixed by the dock, since only equals compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification.encoders import HashedNgrams, RandomConvnets
from didact.reusing.dock.specification.kernel import gaussian
from didact.reusing.dock.specification.simplex import simplex_weights
from didact.reusing.dock.specification.statistical import TYPES, Specification

Array = NDArray[np.float64]

TABLE_GAMMA = 0.1
_BUILT_IN = MappingProxyType(
    {
        ("rkme-text", HashedNgrams().id): 1.0,
        ("rkme-image", RandomConvnets().id): 1.0,
    }
)


@dataclass(frozen=True)
class Gamma:
    """A dock's kernel widths. Those not set are 0.1, or what suits an encoder that comes with didact."""

    values: Mapping[tuple[str, str], float] = field(default_factory=dict)  #: (type, encoder) -> gamma

    def __post_init__(self) -> None:
        for (kind, encoder), gamma in self.values.items():
            if kind not in TYPES or not np.isfinite(gamma) or gamma <= 0.0:
                raise BadInput(
                    f"A gamma is a positive number for one of {', '.join(TYPES)} and an encoder; "
                    f"{gamma!r} for {(kind, encoder)!r} was given."
                )

    def of(self, kind: str, encoder: str = "") -> float:
        """The width for a kind of specification and an encoder."""
        key = (kind, encoder)
        return float(self.values.get(key, _BUILT_IN.get(key, TABLE_GAMMA)))

    def check(self, specification: Specification) -> None:
        """Raise `BadSpecification("wrong-gamma")` for a specification made with another width than this dock's."""
        wanted = self.of(specification.type, specification.encoder)
        if specification.gamma != wanted:
            raise BadSpecification(
                "wrong-gamma",
                f"This dock compares {specification.type} specifications (encoder {specification.encoder!r}) at gamma "
                f"{wanted:g}, but this one was made with {specification.gamma:g}. Make it again with gamma={wanted:g}.",
            )

    def with_value(self, kind: str, encoder: str, gamma: float) -> Gamma:
        """The same with one width changed."""
        return Gamma({**self.values, (kind, encoder): gamma})

    def to_json(self) -> list[dict[str, Any]]:
        """Every width that is not 0.1 by default, as plain data."""
        keys = sorted({*self.values, *_BUILT_IN, ("rkme-table", "")})
        return [{"type": kind, "encoder": encoder, "gamma": self.of(kind, encoder)} for kind, encoder in keys]

    @classmethod
    def from_json(cls, entries: Sequence[Mapping[str, Any]]) -> Gamma:
        """From what `to_json` gave."""
        return cls({(entry["type"], entry["encoder"]): float(entry["gamma"]) for entry in entries})


def tuned_gamma(
    specifications: Sequence[Specification],
    candidates: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
    *,
    points: int = 100,
    seed: int = 0,
) -> float:
    """The width at which the parts of mixtures of a dock's own learnwares are told apart best.

    Points are herded from every specification (all of one space). Halves of the points of two of them, mixed .3 to
    .7, play the user; the other halves are the learnwares. Their simplex weights w and embeddings f_i are found, and
    each of the user's points goes to the learnware with the largest w_i f_i(x). The width is best at which most
    points, over up to 60 pairs, go back to where they came from. Cost: two kernel matrices of all herded points for
    every candidate.
    """
    if len(specifications) < 2 or any(not specifications[0].compatible(other) for other in specifications):
        raise BadInput("Tuning gamma takes two specifications or more that can be compared with each other.")
    rng = np.random.default_rng(seed)
    herded = [each.herd(2 * points, seed=seed + i) for i, each in enumerate(specifications)]
    shuffled = [each[rng.permutation(len(each))] for each in herded]
    known = np.concatenate([each[:points] for each in shuffled])
    asked = np.concatenate([each[points:] for each in shuffled])
    pairs = list(combinations(range(len(specifications)), 2))
    chosen = [pairs[i] for i in rng.permutation(len(pairs))[:60]]
    returned = [_share_returned(known, asked, len(specifications), chosen, gamma) for gamma in candidates]
    return float(candidates[int(np.argmax(returned))])


def _share_returned(known: Array, asked: Array, count: int, pairs: list[tuple[int, int]], gamma: float) -> float:
    """The share of the users' points, weighted as they are mixed, that are routed to the learnware they came from."""
    among = _block_means(gaussian(known, known, gamma), count)
    kernel = gaussian(known, asked, gamma)
    across = _block_means(kernel, count)
    embeddings = kernel.reshape(count, -1, len(asked)).mean(axis=1)  # (learnwares, points asked)
    sources = np.repeat(np.arange(count), len(asked) // count)
    shares = []
    for pair in pairs:
        truth = np.zeros(count)
        truth[list(pair)] = (0.3, 0.7)
        routed = (simplex_weights(among, across @ truth)[:, None] * embeddings).argmax(axis=0)
        shares.append(sum(truth[i] * np.mean(routed[sources == i] == i) for i in pair))
    return float(np.mean(shares))


def _block_means(kernel: Array, count: int) -> Array:
    size = len(kernel) // count
    return np.asarray(kernel.reshape(count, size, count, size).mean(axis=(1, 3)))

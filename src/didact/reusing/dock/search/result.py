"""What a search gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Hit:
    """One learnware found."""

    id: str
    score: float  #: 0 to 1, higher is better
    distance: float | None = None  #: MMD^2 to the user's data; None when only words were searched


@dataclass(frozen=True)
class Mixture:
    """Learnwares that together are nearer to the user's data than any alone."""

    ids: tuple[str, ...]
    weights: tuple[float, ...]  #: at least 0, sum 1: the share of the user's data that is like each one's
    score: float
    distance: float  #: MMD^2 between the weighted mixture and the user's data


@dataclass(frozen=True)
class SearchResult:
    """The single learnwares, best first, and the best mixture where one is worth it."""

    single: list[Hit] = field(default_factory=list)
    mixture: Mixture | None = None
    total: int = 0  #: hits before `limit` and `offset` were applied
    searched: str = "semantic"  #: "semantic" (words only), "statistical", or "heterogeneous" (over other columns)

    @property
    def ids(self) -> list[str]:
        """The ids of the single learnwares, best first."""
        return [hit.id for hit in self.single]

    def reordered(self, scores: Mapping[str, float]) -> SearchResult:
        """The single list by other scores, higher first; those without a score keep their order at the end."""
        worst = float("-inf")
        return replace(self, single=sorted(self.single, key=lambda hit: -scores.get(hit.id, worst)))

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchResult:
        """From what `to_json` gave, possibly after a trip through JSON. Fields it does not know are left out."""
        mixture = data.get("mixture")
        return cls(
            single=[Hit(hit["id"], hit["score"], hit.get("distance")) for hit in data.get("single", [])],
            mixture=mixture
            and Mixture(tuple(mixture["ids"]), tuple(mixture["weights"]), mixture["score"], mixture["distance"]),
            total=int(data.get("total", 0)),
            searched=str(data.get("searched", "semantic")),
        )

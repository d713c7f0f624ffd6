"""The plug for other rankings, such as transferability scores, on the side of the user who has labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from didact.reusing.dock.search.result import SearchResult

Reorder = Callable[[Sequence[str]], Mapping[str, float]]  # from ids to scores, higher is better


@runtime_checkable
class Identifier(Protocol):
    """Ranks learnwares by what they do on a user's data, which never leaves for it."""

    def rank(self, data: Any, ids: Sequence[str]) -> Mapping[str, float]:
        """A score for every id it can judge, higher is better."""


def reorder(result: SearchResult, by: Reorder | Identifier, data: Any = None) -> SearchResult:
    """A search result with its single list in the order of an identifier, or of a function of the ids."""
    if isinstance(by, Identifier):
        return result.reordered(by.rank(data, result.ids))
    return result.reordered(by(result.ids))

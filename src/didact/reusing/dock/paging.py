"""Lists that come a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from didact.reusing.dock.errors import DockError

Item = TypeVar("Item")

LARGEST_LIMIT = 100
LARGEST_PAGE = 1_000_000


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list. Pages are counted from 1."""

    items: Sequence[Item]
    total: int  #: items on all pages together
    page: int = 1
    limit: int = 20

    @property
    def pages(self) -> int:
        """How many pages there are; an empty list has one, which is empty."""
        return max(1, -(-self.total // self.limit))


def offset(page: int, limit: int) -> int:
    """How many items come before a page. Refuses numbers that no page has."""
    if not 1 <= limit <= LARGEST_LIMIT:
        raise DockError("bad-limit", f"limit is {limit}; a page holds 1 to {LARGEST_LIMIT} items.")
    if not 1 <= page <= LARGEST_PAGE:
        raise DockError("bad-page", f"page is {page}; pages are counted from 1 to {LARGEST_PAGE}.")
    return (page - 1) * limit

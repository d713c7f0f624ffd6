"""The dock itself: its rules, over a database, a folder of packages and an index for searching.

`Dock(DockSettings(folder=...))` is safe to use from many threads, and several processes may open the same folder
and database. Whoever signs in is `dock.accounts`' business; every method here takes the `User` that it returns.
"""

from didact.reusing.dock.paging import Page
from didact.reusing.dock.records import (
    DockSettings,
    Duplicate,
    Event,
    Found,
    FoundMixture,
    LearnwareInfo,
    SearchResult,
    Status,
    Upload,
    WrongOffset,
)
from didact.reusing.dock.service.dock import Dock

__all__ = [
    "Dock", "DockSettings", "Duplicate", "Event", "Found", "FoundMixture", "LearnwareInfo", "Page", "SearchResult",
    "Status", "Upload", "WrongOffset",
]  # fmt: skip

"""News: what is worth telling in a list, a feed or a letter, from the board and from the dock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from didact.reusing.dock.service import Dock, LearnwareInfo

Kind = Literal["verdict", "run", "learnware"]


@dataclass(frozen=True)
class News:
    """One piece of news. `id` never changes and is never used again."""

    id: str
    kind: Kind
    title: str
    text: str
    path: str  #: of its page on this site
    subject: str  #: what it is about, short: a slug, a learnware's name
    date: str  #: ISO 8601
    name: str = ""  #: the full title of what it is about
    outcome: str = ""  #: of a verdict


def newest_first(*sources: Iterable[News]) -> list[News]:
    return sorted((item for source in sources for item in source), key=lambda n: (n.date, n.id), reverse=True)


def learnware_news(dock: Dock, limit: int = 100) -> list[News]:
    """The newest learnwares that everybody may see; none at a dock that shows them to its users only."""
    if not dock.settings.public:
        return []
    return [_news(info) for info in dock.list(limit=limit).items]


def _news(info: LearnwareInfo) -> News:
    semantic = info.semantic
    text = f"{semantic.data}, {semantic.task.lower()}, {semantic.library}."
    return News(
        id=f"learnware:{info.id}",
        kind="learnware",
        title=f"New learnware: {semantic.name}",
        text=f"{text} {_short(semantic.description)}".strip(),
        path=f"/learnwares/{info.id}",
        subject=semantic.name,
        date=info.created,
        name=semantic.name,
    )


def _short(text: str, most: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1].rsplit(" ", 1)[0] + "…"

"""The Atom feed: the newest verdicts, runs and learnwares for feed readers."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from didact.web.board.reader import moment
from didact.web.news import News

ATOM = "http://www.w3.org/2005/Atom"
#: entries keep their identifier wherever the site moves
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://didact.invalid/news")
MOST = 50

ET.register_namespace("", ATOM)


def atom(
    news: Sequence[News], site: str, path: str = "/feed.atom", title: str = "didact: newest results and learnwares"
) -> bytes:
    """An Atom 1.0 document (RFC 4287) of the newest pieces of news, which come newest first.

    `site` is the address under which readers find the pages, without a slash at its end.
    """
    feed = ET.Element(_tag("feed"))
    _add(feed, "title", title)
    _add(feed, "id", uuid.uuid5(NAMESPACE, site + path).urn)
    _add(feed, "updated", _rfc3339(max((n.date for n in news), default="")))
    _link(feed, "self", site + path, "application/atom+xml")
    _link(feed, "alternate", f"{site}/board/newest", "text/html")
    author = ET.SubElement(feed, _tag("author"))
    _add(author, "name", "didact")
    for item in news[:MOST]:
        _entry(feed, item, site)
    return bytes(ET.tostring(feed, encoding="utf-8", xml_declaration=True))


def _entry(feed: ET.Element, item: News, site: str) -> None:
    entry = ET.SubElement(feed, _tag("entry"))
    _add(entry, "title", item.title)
    _add(entry, "id", uuid.uuid5(NAMESPACE, item.id).urn)
    _add(entry, "updated", _rfc3339(item.date))
    _link(entry, "alternate", site + item.path, "text/html")
    ET.SubElement(entry, _tag("category"), term=item.kind)
    content = f"{item.name}. {item.text}" if item.name and item.name not in item.title else item.text
    _add(entry, "content", content).set("type", "text")


def _add(parent: ET.Element, name: str, text: str) -> ET.Element:
    element = ET.SubElement(parent, _tag(name))
    element.text = "".join(letter for letter in text if _allowed(letter))
    return element


def _link(parent: ET.Element, rel: str, href: str, kind: str) -> None:
    ET.SubElement(parent, _tag("link"), rel=rel, href=href, type=kind)


def _tag(name: str) -> str:
    return f"{{{ATOM}}}{name}"


def _allowed(letter: str) -> bool:
    """XML 1.0 has no place for most control characters, not even escaped."""
    return letter in "\t\n\r" or " " <= letter <= "\ud7ff" or "\ue000" <= letter <= "\ufffd" or letter >= "\U00010000"


def _rfc3339(date: str) -> str:
    found = moment(date) or datetime(2000, 1, 1, tzinfo=UTC)
    return found.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

"""The Atom feed: valid, stable, and only of what everybody may see."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from served import Served, serve

from didact.web.board import Board
from didact.web.feed import ATOM, MOST, atom
from didact.web.news import News, learnware_news, newest_first

NS = {"a": ATOM}
SITE = "https://dock.example.org"


def news(n: int = 1, **changes: object) -> News:
    plain = {
        "id": f"verdict:m{n}", "kind": "verdict", "title": f"m{n}: the claim holds", "text": "It does.",
        "path": f"/board/methods/m{n}", "subject": f"m{n}", "date": f"2026-01-{n:02}T10:00:00+02:00", "name": "A paper",
    }  # fmt: skip
    return News(**{**plain, **changes})


def parse(content: bytes) -> ET.Element:
    return ET.fromstring(content)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    served = serve(tmp_path)
    served.client.app.state.board = Board(None, tmp_path / "no results")
    return served


def test_a_feed_has_all_that_atom_asks_for():
    feed = parse(atom([news(2), news(1)], SITE))
    for name in ("title", "id", "updated", "author/a:name"):
        assert feed.findtext(f"a:{name}", namespaces=NS)
    links = {link.get("rel"): link.get("href") for link in feed.findall("a:link", NS)}
    assert links == {"self": f"{SITE}/feed.atom", "alternate": f"{SITE}/board/newest"}
    entries = feed.findall("a:entry", NS)
    assert len(entries) == 2
    for entry in entries:
        assert entry.findtext("a:title", namespaces=NS)
        assert entry.findtext("a:id", namespaces=NS).startswith("urn:uuid:")
        datetime.strptime(entry.findtext("a:updated", namespaces=NS), "%Y-%m-%dT%H:%M:%SZ")
        assert entry.find("a:link", NS).get("href").startswith(SITE + "/board/methods/")
    assert entries[0].findtext("a:updated", namespaces=NS) == "2026-01-02T08:00:00Z", "in UTC"
    assert feed.findtext("a:updated", namespaces=NS) == "2026-01-02T08:00:00Z", "of the newest entry"
    assert "A paper" in entries[0].findtext("a:content", namespaces=NS)


def test_ids_differ_between_entries_and_stay_when_the_site_moves():
    def ids(feed: bytes) -> list[str]:
        return [e.findtext("a:id", namespaces=NS) for e in parse(feed).findall("a:entry", NS)]

    here, there = atom([news(2), news(1)], SITE), atom([news(2), news(1)], "http://elsewhere")
    assert ids(here) == ids(there)
    assert len(set(ids(here))) == 2


def test_what_xml_cannot_hold_is_left_out_and_the_rest_escaped():
    nasty = news(title="a\x00\x08b <script>&\ud800", text="]]> \U0001f600")
    entry = parse(atom([nasty], SITE)).find("a:entry", NS)
    assert entry.findtext("a:title", namespaces=NS) == "ab <script>&"
    assert "]]> \U0001f600" in entry.findtext("a:content", namespaces=NS)


def test_an_empty_feed_is_still_a_feed():
    feed = parse(atom([], SITE))
    assert feed.findall("a:entry", NS) == []
    assert feed.findtext("a:updated", namespaces=NS)


def test_a_feed_holds_only_the_newest():
    many = [news(1, id=f"verdict:{n}") for n in range(MOST + 10)]
    assert len(parse(atom(many, SITE)).findall("a:entry", NS)) == MOST


def test_news_of_several_sources_are_newest_first():
    dates = [item.date for item in newest_first([news(1), news(3)], [news(2)])]
    assert dates == sorted(dates, reverse=True)


def test_the_feed_tells_of_usable_learnwares_only(served):
    served.submit(usable=True, name="open to all")
    served.submit(name="not checked yet")
    answer = served.client.get("/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    titles = [e.findtext("a:title", namespaces=NS) for e in parse(answer.content).findall("a:entry", NS)]
    assert titles == ["New learnware: open to all"]
    href = parse(answer.content).find("a:entry/a:link", NS).get("href")
    assert served.client.get(href).status_code == 200


def test_the_feed_can_be_of_one_kind(served):
    served.submit(usable=True)
    assert len(parse(served.client.get("/feed.atom?kind=learnware").content).findall("a:entry", NS)) == 1
    assert len(parse(served.client.get("/feed.atom?kind=verdict").content).findall("a:entry", NS)) == 0
    assert served.client.get("/feed.atom?kind=rumour").status_code == 422


def test_a_reader_that_has_it_already_is_told_so(served):
    served.submit(usable=True)
    tag = served.client.get("/feed.atom").headers["etag"]
    again = served.client.get("/feed.atom", headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    served.submit(usable=True)
    assert served.client.get("/feed.atom", headers={"If-None-Match": tag}).status_code == 200


def test_a_private_dock_tells_nothing_of_its_learnwares(tmp_path):
    served = serve(tmp_path, public=False)
    served.client.app.state.board = Board(None, tmp_path / "no results")
    served.submit(usable=True, name="secret")
    assert learnware_news(served.dock) == []
    for role in ("none", "owner"):
        assert "secret" not in served.client.get("/feed.atom", headers=served.headers[role]).text


def test_pages_announce_the_feed(served):
    assert 'type="application/atom+xml"' in served.client.get("/board").text

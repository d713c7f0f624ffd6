"""The board: what it reads, what it draws, and its pages."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from pathlib import Path

import pytest
from served import Served, serve

from didact.core.metric import Metric
from didact.engine.cells import Cell
from didact.engine.finding import Finder, search
from didact.engine.ledger import Ledger, Row, Run
from didact.engine.words import kind_of
from didact.forgetting.ssd import SelectiveSynapticDampening
from didact.web.board import Board
from didact.web.board.figures import BOTTOM, LEFT, RIGHT, TOP, effect, strip, ticks, trade_off
from didact.web.board.method import method_page
from didact.web.board.prose import docstring, inline
from didact.web.board.reader import newest

HIGHER, LOWER = Metric("score", "how good", "higher"), Metric("seconds", "how long", "lower", "s")
EXPECTED = [e.text for e in SelectiveSynapticDampening.claim.expects]


def verdict(outcome: str = "holds", date: str = "2026-01-02T00:00:00+00:00", **changes: object) -> dict:
    judged = [
        {"text": text, "outcome": "holds", "effect": 0.2, "low": 0.1, "high": 0.3, "observations": 5, "missing": ""}
        for text in EXPECTED
    ]
    plain = {
        "slug": "ssd", "sentence": "it forgets", "outcome": outcome, "expectations": judged, "seeds": 5,
        "problems": ["digits-class:forget=3"], "note": "", "about": {"date": date},
    }  # fmt: skip
    return {**plain, **changes}


def claim_row(arm: str, seed: int, score: float, gap: float) -> dict:
    numbers = {"test_score": score, "forget_score": 1 - score, "forget_gap": gap, "seconds": 0.1}
    return {"problem": "digits-class:forget=3", "seed": seed, "arm": arm, "status": "done", "numbers": numbers}


def ledger_row(
    seed: int, score: float, code: str = "new", created: str = "2026-02-01T00:00:00+00:00", **changes
) -> Row:
    cell = Cell("forgetting", "ssd", {"code": code}, "digits-class:forget=3", seed, code, label="ssd")
    values = {"status": "done", "metrics": {"test_score": score, "forget_gap": 0.1}, "cost": {"seconds": 2.0}}
    return Row(cell, created=created, **{**values, **changes})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Shipped results in which ssd holds, on rows of two arms."""
    rows = [
        claim_row(arm, seed, 0.9 - 0.1 * k, 0.05 + k) for seed in range(3) for k, arm in enumerate(("self", "original"))
    ]
    folder = tmp_path / "results" / "forgetting"
    folder.mkdir(parents=True)
    (folder / "ssd.json").write_text(json.dumps(verdict(rows=rows)), encoding="utf-8")
    return tmp_path / "results"


@pytest.fixture
def board(results: Path, ledger: str) -> Board:
    return Board(ledger, results)


@pytest.fixture
def served(tmp_path: Path, board: Board) -> Served:
    served = serve(tmp_path)
    served.client.app.state.board = board
    return served


def text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


# -- reading -----------------------------------------------------------------------------------------------------------


def test_families_count_the_catalogue_the_built_and_the_verdicts(board):
    lines = {line.name: line for line in board.families()}
    forgetting = lines["forgetting"]
    assert forgetting.planned == 21
    assert forgetting.built == 21
    assert forgetting.outcomes == {"holds": 1, "undecided": 0, "fails": 0}
    assert lines["acting"].built == 0
    assert next(iter(lines)) in {line.name for line in lines.values() if line.built}, "those with methods come first"
    assert "family" not in lines


def test_of_two_verdicts_the_newer_one_counts(board):
    board.ledger.write_verdict("ssd", "fails", verdict("fails", "2025-01-01T00:00:00+00:00"))
    assert board.verdicts()["ssd"]["outcome"] == "holds"
    board.ledger.write_verdict("ssd", "fails", verdict("fails", "2026-06-01T00:00:00+00:00"))
    assert board.verdicts()["ssd"]["outcome"] == "fails"
    assert board.family("forgetting").outcomes["fails"] == 1


def test_a_changed_result_is_seen_at_once(board, results):
    assert board.verdicts()["ssd"]["outcome"] == "holds"
    file = results / "forgetting" / "ssd.json"
    file.write_text(json.dumps(verdict("undecided")), encoding="utf-8")
    import os

    os.utime(file, ns=(1, 1))  # whatever the clock's grain
    assert board.verdicts()["ssd"]["outcome"] == "undecided"


def test_news_are_newest_first_and_keep_their_ids(board):
    board.ledger.begin(
        Run("r1", "forgetting", {"problem": "/home/ada/mine.py:make"}, ["k"], "2026-01-03T00:00:00+00:00")
    )
    board.ledger.begin(Run("r0", "forgetting", {"problem": "bios"}, ["k"], "2026-01-01T00:00:00+00:00"))
    news = board.news()
    assert [item.id for item in news] == ["run:r1", "verdict:ssd:2026-01-02T00:00:00+00:00", "run:r0"]
    assert "/home/ada" not in news[0].title, "folders of the machine are nobody's business"
    assert [item.id for item in board.news()] == [item.id for item in news]
    assert len(board.news(2)) == 2


def test_only_the_code_that_ran_last_counts():
    old, new = ledger_row(0, 0.1, "old", "2026-01-01"), ledger_row(0, 0.9, "new", "2026-01-02")
    assert newest([new, old]) == [new]


def test_search_goes_by_meaning(board):
    assert "laf" in [line.slug for line in board.search("forget without labels")][:5]
    assert board.search("qqqqq zzzzz") == []
    assert Finder([]).search("anything") == []
    assert (
        search("dampen weights by Fisher importance", [SelectiveSynapticDampening])[0][1] is SelectiveSynapticDampening
    )


# -- drawing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.1, 1.06, [0.0, 0.5, 1.0]),
        (0, 23, [0, 5, 10, 15, 20]),
        (1e-7, 5e-7, [1e-7, 2e-7, 3e-7, 4e-7, 5e-7]),
    ],
)
def test_ticks_are_round_and_inside(low, high, wanted):
    assert ticks(low, high) == pytest.approx(wanted)


def test_a_strip_spreads_values_over_its_width():
    drawn = strip(HIGHER, {"a": [0.0, 0.5], "b": [1.0, math.nan], "none": [math.nan]}, "a")
    assert [line.label for line in drawn.lines] == ["a", "b"]
    assert drawn.lines[0].dots == (3.0, 50.0)
    assert drawn.lines[1].dots == (97.0,)
    assert drawn.lines[0].mean == pytest.approx(3 + 94 * 0.25)
    assert drawn.lines[0].own
    assert strip(HIGHER, {"a": [math.nan]}, "a") is None


def test_a_strip_of_costs_is_logarithmic_only_when_they_differ_much():
    drawn = strip(LOWER, {"a": [1.0, 10.0, 100.0]}, "a")
    assert drawn.log
    assert drawn.lines[0].dots == pytest.approx((3.0, 50.0, 97.0))
    assert not strip(LOWER, {"a": [1.0, 2.0]}, "a").log
    assert not strip(LOWER, {"a": [0.0, 100.0]}, "a").log, "there is no logarithm of zero"


def test_an_effect_lies_right_of_zero_when_it_is_met():
    met, broken = effect(0.2, 0.1, 0.3), effect(-0.2, -0.3, -0.1)
    assert met.zero < met.low < met.dot < met.high
    assert broken.low < broken.dot < broken.high < broken.zero
    only = effect(0.5, None, math.inf)
    assert only.low == only.dot == only.high
    assert effect(None, None, None) is None
    assert effect(0.0, 0.0, 0.0).dot == effect(0.0, 0.0, 0.0).zero == 50.0


def test_the_trade_off_keeps_points_in_the_frame_and_labels_apart():
    means = {f"method-{i}": (0.9 + 0.001 * i, 0.1) for i in range(12)} | {"self": (0.0, 1.0), "nan": (math.nan, 0.0)}
    drawn = trade_off(HIGHER, LOWER, means, "self")
    assert len(drawn.points) == 13
    assert all(LEFT <= p.x <= RIGHT and TOP <= p.y <= BOTTOM for p in drawn.points)
    assert drawn.points[0].own
    assert drawn.points[0].anchor, "the method itself is labelled first"
    assert drawn.best == ("right", "down")
    left, right = drawn.points[0], drawn.points[-1]
    assert left.x < right.x
    assert left.y < right.y, "a larger value is higher up, where y is smaller"
    labelled = [p for p in drawn.points if p.anchor]
    assert 1 < len(labelled) < 13, "labels that would cover others are left out"
    assert trade_off(HIGHER, LOWER, {"self": (1.0, 1.0)}, "self") is None


# -- words -------------------------------------------------------------------------------------------------------------


def test_docstrings_become_html_and_nothing_in_them_is_markup():
    html = docstring("""First `a < b` line.

        Errors: <script>alert(1)</script> when *nothing* fits.
        Cost: one pass.

            x = "<code>"
        """)
    assert "<script>" not in html
    assert "<code>a &lt; b</code>" in html
    assert "<strong>Cost.</strong> one pass." in html
    assert "<em>nothing</em>" in html
    assert "<pre" in html
    assert inline("2 * 3 * 4") == "2 * 3 * 4"


def test_types_are_written_as_people_do():
    assert kind_of("Union[float, Literal['auto']]", " or ") == "float or 'auto'"
    assert kind_of("Optional[int]", " or ") == "int or None"
    assert kind_of("int", " or ") == "int"


# -- pages -------------------------------------------------------------------------------------------------------------


def test_the_first_page_shows_families_with_their_verdicts(served):
    page = served.client.get("/board")
    assert page.status_code == 200
    assert "Forgetting 21 of 21 methods" in text(page.text)
    assert "1 holds" in text(page.text)
    assert 'href="/board/methods/ssd"' in page.text


def test_a_family_lists_methods_then_baselines(served):
    page = served.client.get("/board/families/forgetting").text
    assert page.index("/board/methods/ssd") < page.index('id="baselines"') < page.index("/board/methods/retrain")
    assert "not run yet" in page, "claims that were never judged say so"
    assert "To come" in served.client.get("/board/families/acting").text
    assert served.client.get("/board/families/nothing").status_code == 404


def test_a_method_shows_its_claim_with_effects_and_intervals(served):
    page = served.client.get("/board/methods/ssd")
    words = text(page.text)
    assert SelectiveSynapticDampening.claim.sentence in words
    assert all(expected in words for expected in EXPECTED)
    assert "+0.200" in words
    assert "+0.100 to +0.300" in words
    assert "arXiv 2308.07707" in words
    assert "alpha" in words
    assert "from didact.forgetting import SelectiveSynapticDampening" in words
    assert 'role="img"' in page.text
    assert "0.900 ± 0.000" in words, "the mean over seeds of its own arm"


def test_a_method_shows_its_rows_of_the_ledger(served, board):
    for seed, score in enumerate((0.8, 0.9)):
        board.ledger.write(ledger_row(seed, score))
    board.ledger.write(ledger_row(0, 0.1, "old", "2026-01-01T00:00:00+00:00"))
    trace = 'Traceback\n  File "/home/ada/x.py"\nValueError: <b>no</b>'
    board.ledger.write(ledger_row(2, 0.0, status="failed", metrics={}, cost={}, error=trace))
    part = method_page(board, "ssd").ledger
    assert part.total == 4
    (line,) = part.lines
    assert line.seeds == "2, 1 without result"
    assert line.texts[0].startswith("0.850 ±"), "the old code's 0.1 is not in the mean"
    page = served.client.get("/board/methods/ssd").text
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in page
    assert "/home/ada" not in page


def test_a_verdict_that_is_only_in_the_ledger_is_drawn_from_its_rows(served, board, results):
    (results / "forgetting" / "ssd.json").unlink()
    board.ledger.write_verdict("ssd", "undecided", verdict("undecided"))
    from didact.core.registry import make_method
    from didact.engine.cells import label_of

    own = SelectiveSynapticDampening.claim.runs("ssd")["self"]
    label = label_of(make_method(own))
    for seed in range(2):
        cell = Cell("forgetting", "ssd", {}, "digits-class:forget=3", seed, "c", label=label)
        board.ledger.write(Row(cell, "done", {"test_score": 0.7, "forget_score": 0.1, "forget_gap": 0.1}))
    measured = method_page(board, "ssd").claim.measured
    assert [m.problem for m in measured] == ["digits-class:forget=3"]
    assert {s.metric.name for s in measured[0].strips} >= {"test_score", "forget_score"}


def test_every_built_method_has_a_page(served, board):
    slugs = [line.slug for line in board.methods("forgetting")]
    assert len(slugs) > 21
    broken = [slug for slug in slugs if served.client.get(f"/board/methods/{slug}").status_code != 200]
    assert broken == []


def test_planned_and_unknown_methods(served):
    planned = next(e for e in served.client.app.state.board.to_come("acting"))
    answer = served.client.get(f"/board/methods/{planned['slug']}")
    assert answer.status_code == 404
    assert "not built yet" in answer.text
    assert served.client.get("/board/methods/nothing-like-it").status_code == 404


def test_search_answers_with_a_page_or_for_htmx_a_part(served):
    whole = served.client.get("/board/search", params={"q": "forget without labels"})
    part = served.client.get("/board/search", params={"q": "forget without labels"}, headers={"HX-Request": "true"})
    assert "/board/methods/laf" in whole.text
    assert "/board/methods/laf" in part.text
    assert "<html" in whole.text
    assert "<html" not in part.text
    assert part.headers["vary"] == "HX-Request"
    nothing = served.client.get("/board/search", params={"q": "<script>qqzz"})
    assert "<script>qqzz" not in nothing.text
    assert served.client.get("/board/search", params={"q": "x" * 301}).status_code == 422


def test_newest_comes_in_pages(served, board):
    for n in range(45):
        board.ledger.begin(Run(f"r{n:02}", "forgetting", {}, ["k"], f"2026-03-01T00:00:{n:02}+00:00"))
    first = served.client.get("/board/newest").text
    second = served.client.get("/board/newest?page=2").text
    assert "Page 1 of 2" in text(first)
    assert first.count("<li>") == 40
    assert second.count("<li>") == 6
    assert "/board/methods/ssd" in second, "the verdict is the oldest"
    assert served.client.get("/board/newest?page=0").status_code == 422


def test_a_board_without_a_ledger_reads_shipped_results_and_writes_nothing(results, monkeypatch, tmp_path):
    monkeypatch.setenv("DIDACT_LEDGER", str(tmp_path / "mine.sqlite"))
    board = Board(None, results)
    assert board.verdicts()["ssd"]["outcome"] == "holds"
    assert board.rows(method="ssd") == []
    assert not (tmp_path / "mine.sqlite").exists()


def test_hostile_text_in_a_verdict_is_only_text(served, board):
    nasty = verdict(date="2026-09-09T00:00:00+00:00", sentence='<img src=x onerror="alert(1)">')
    board.ledger.write_verdict("ssd", "holds", nasty)
    for path in ("/board", "/board/newest"):
        assert "<img" not in served.client.get(path).text


def test_ledger_opens_by_url(ledger, results):
    assert Board(Ledger(ledger), results).news()[0].subject == "ssd"

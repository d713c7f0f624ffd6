"""The report: one file without network, complete, safe against hostile text, the same for the same input."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html import escape, unescape
from typing import Any

import pytest

from didact.core.metric import Constraint, Metric, Primary
from didact.core.problem import Family
from didact.engine.cells import Cell
from didact.engine.leaderboard import Leaderboard, Statistic, make_leaderboard
from didact.engine.ledger import Row, Run
from didact.engine.report import render
from didact.engine.report.figures import payload, whiskers
from didact.engine.words import amount, interval, listed

FAMILY = Family(
    name="cooking",
    title="Cooking",
    verb="cook",
    metrics=(
        Metric("taste", "how good it is"),
        Metric("salt", "distance from the right amount of salt", "lower", "g"),
        Metric("colour", "shade of brown", "neither"),
    ),
    primary=Primary("taste", Constraint("salt", at_most=1.0)),
    tuning=Primary("validation_taste", Constraint("validation_salt", at_most=1.0)),
    default_problem="soup",
    trade_off=("taste", "salt"),
)
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py"\nValueError: <img src=x onerror=alert(1)> </script>\n'


def a_row(
    label: str, seed: int = 0, taste: float = 0.5, salt: float = 0.5, passes: float = 100.0, **changes: Any
) -> Row:
    cell = Cell("cooking", label.split(":")[0], {"label": label}, "soup", seed, "c0de", label=label)
    row = Row(
        cell,
        "done",
        {"taste": taste, "salt": salt, "colour": math.nan},
        {"seconds": passes / 1000, "passes": passes, "peak_memory": 2e6},
        environment={"didact": "0.1.0", "torch": "2.9"},
        created="2025-01-02T03:04:05+00:00",
    )
    return replace(row, **changes)


def failed(label: str, seed: int = 0, status: Any = "failed", error: str = TRACEBACK) -> Row:
    return a_row(label, seed, status=status, metrics={}, cost={}, error=error)


def page(rows: list[Row], trials: list[Row] | None = None, about: dict[str, Any] | None = None, **facts: Any) -> str:
    return render(a_run(rows, **facts), a_board(rows), trials or [], about=about)


def a_board(rows: list[Row]) -> Leaderboard:
    return make_leaderboard(FAMILY, "soup", rows)


def a_run(rows: list[Row], **facts: Any) -> Run:
    keys = [row.key for row in rows]
    return Run("cooking-soup-1", "cooking", {"scale": "laptop", **facts}, keys, "2025-01-02T03:04:05+00:00")


def own(html: str) -> str:
    """The page without plotly's source."""
    return re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", html, flags=re.DOTALL)


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found.group(1), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


ORDINARY = [
    *(a_row("slow", s, t, 0.2, 5000.0) for s, t in enumerate((0.90, 0.80, 0.85))),
    *(a_row("quick:heat=9", s, t, 0.3, 50.0) for s, t in enumerate((0.88, 0.81, 0.84))),
    *(a_row("bland", s, t, 0.1, 0.0) for s, t in enumerate((0.10, 0.11, 0.12))),
    *(a_row("salty", s, t, 7.0) for s, t in enumerate((0.99, 0.98, 0.97))),
    a_row("burnt", 0),
    failed("burnt", 1),
    failed("burnt", 2, "timed-out", "It ran over 600 s."),
    failed("frozen", 0, "not-applicable", "frozen needs a fridge."),
]
EDGES = {
    "ordinary": ORDINARY,
    "one seed": [a_row("a"), a_row("b", taste=0.6)],
    "nothing done": [failed("a"), failed("b", status="out-of-memory"), failed("c", status="not-applicable")],
    "no rows": [],
    "not a number": [a_row("a", taste=math.nan, salt=math.nan), a_row("b", 0, math.inf), a_row("b", 1)],
    "sixty": [a_row(f"m{i}", s, i / 60 + s / 100, i / 40, 10.0 ** (i % 6)) for i in range(60) for s in range(2)],
    "only one": [a_row("a", s, 0.5 + s / 10) for s in range(3)],
    "long labels": [a_row("long" * 100 + f":{i}", taste=i / 9) for i in range(3)],
    "no constraint met": [a_row("a", salt=9.0), a_row("b", salt=8.0)],
}


@pytest.mark.parametrize("rows", EDGES.values(), ids=EDGES)
def test_every_label_and_section_is_there_and_nothing_comes_from_outside(rows: list[Row]) -> None:
    html = own(page(rows))
    for row in rows:
        assert escape(row.cell.label) in html
        assert row.key in html
    for part in ("trade-off", "leaderboard", "values", "cost", "failures", "reproduce"):
        assert html.count(f'<section id="{part}"') == 1
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert "@import" not in html
    assert "url(" not in html
    data_of(html)


def test_plotly_is_inlined_once_and_the_network_is_forbidden() -> None:
    html = page(ORDINARY)
    assert len(re.findall(r"^\* plotly\.js v", html, re.MULTILINE)) == 1
    assert "default-src 'none'" in html
    assert not re.findall(r"<(?:link|iframe|img|base)\b", own(html))


def test_the_data_equal_the_leaderboard() -> None:
    board = a_board(ORDINARY)
    data = data_of(page(ORDINARY))
    assert [e["label"] for e in data["entries"]] == [e.label for e in board.entries if e.done]
    for found in data["entries"]:
        entry = next(e for e in board.entries if e.label == found["label"])
        assert found["front"] == entry.on_front
        assert found["meets"] == entry.meets_constraint
        for name in ("taste", "salt", "seconds", "passes"):
            statistic = found["statistics"][name]
            assert statistic["mean"] == entry[name].mean
            assert tuple(statistic["values"]) == entry[name].values
            assert statistic["half"] == (None if math.isnan(entry[name].half) else entry[name].half)
    assert (data["x"], data["y"], data["primary"]) == ("taste", "salt", "taste")
    assert data["constraint"] == {"metric": "salt", "at_most": 1.0, "at_least": None, "text": "salt ≤ 1"}
    assert {m["name"]: m["sign"] for m in data["metrics"]} | {"taste": 1, "salt": -1, "passes": -1} == {
        m["name"]: m["sign"] for m in data["metrics"]
    }
    assert "colour" not in {m["name"] for m in data["metrics"]}  # never measured


def test_ties_are_shown_as_ties_and_the_cheapest_of_them_is_named() -> None:
    html = own(page(ORDINARY))
    assert dict(_ranks(html)) == {
        "slow": "1=", "quick:heat=9": "1=", "burnt": "3", "bland": "4", "salty": "–",
    }  # fmt: skip
    verdict = _text(html.split('<div class="verdict">')[1].split("</div>")[0])
    assert "slow is the best: taste 0.850 ± 0.124 (95 % interval over 3 seeds)" in verdict
    assert "It cannot be told from quick:heat=9; the cheapest of them is quick:heat=9 (50 passes)." in verdict
    assert "Best means the highest taste (how good it is), among the methods with salt ≤ 1" in verdict


def test_equal_means_share_a_rank() -> None:
    rows = [a_row("a", taste=0.9), a_row("b", taste=0.5), a_row("c", taste=0.5)]
    assert dict(_ranks(page(rows))) == {"a": "1", "b": "2=", "c": "2="}


def test_one_seed_has_no_interval_and_says_so() -> None:
    text = _text(own(page([a_row("a", taste=0.5)])))
    assert "a is the best: taste 0.500 (one seed, so no interval)" in text
    assert not re.search(r"\bnan\b", text.split("How to reproduce")[0])


def test_methods_that_break_the_constraint_stand_apart() -> None:
    html = own(page(ORDINARY))
    ranked, broken, empty = html.split("<tbody>")[1:4]
    assert "Not meeting salt ≤ 1" in broken
    assert ">salty<" in broken
    assert ">salty<" not in ranked
    assert ">frozen<" in empty
    none = _text(page([a_row("a", salt=9.0)]))
    assert "No method can be called best: none gave a value of taste and met salt ≤ 1." in none
    assert "No method can be called best: no cell gave a result." in _text(page([failed("a")]))


def test_failures_come_with_their_tracebacks() -> None:
    html = own(page(ORDINARY))
    section = html.split('<section id="failures"')[1].split("</section>")[0]
    assert section.count('<details class="failure">') == 2
    assert TRACEBACK.strip() in unescape(section)
    assert "It ran over 600 s." in section
    assert "timed-out" in section
    assert "frozen needs a fridge." in section
    assert "No cell failed." in page([a_row("a")])


def test_hostile_text_stays_text() -> None:
    evil = '</script><script>alert("x")</script><b onmouseover=alert(1)>\u2028&amp;'
    rows = [a_row(evil), failed(evil, 1, error=evil)]
    about = {"tuned": {evil: {"chosen": {evil: evil}}}}
    html = page(rows, [a_row(evil)], about, command=evil, note=evil)
    assert html.count("<script") == page([a_row("a")]).count("<script")
    assert "<b onmouseover" not in own(html)
    assert 'alert("x")' not in own(html)
    assert data_of(html)["entries"][0]["label"] == evil
    assert escape(evil).replace("&quot;", "&#34;") in own(html)


def test_the_scripts_hold_nothing_of_the_data() -> None:
    """All data reach the browser through the JSON block alone."""
    scripts = [re.findall(r"<script>(.*?)</script>", page(rows), re.DOTALL) for rows in (ORDINARY, EDGES["no rows"])]
    assert scripts[0] == scripts[1]


def test_the_same_input_gives_the_same_page() -> None:
    assert page(ORDINARY) == page(ORDINARY)


def test_tuning_is_told_only_when_there_was_some() -> None:
    assert '<section id="tuning"' not in page(ORDINARY)
    values = [(0.5, 0.2), (0.9, 5.0), (0.6, 0.3), (0.4, 0.1)]
    trials = [
        a_row(f"quick:heat={i}", 9, passes=2000.0, metrics={"validation_taste": t, "validation_salt": s})
        for i, (t, s) in enumerate(values)
    ]
    trials.append(failed("quick:heat=7", 9))
    shapes = ({"heat": 0.00125}, {"trials": 4, "chosen": {"heat": 0.00125}, "seconds": 8.0})
    for tuned in shapes:
        html = page(ORDINARY, trials, {"tuned": {"quick:heat=9": tuned}})
        section = html.split('<section id="tuning"')[1].split("</section>")[0]
        text = _text(section)
        assert "heat=0.00125" in text
        assert "5, 1 failed" in text
        assert "8.00 s" in text
        assert "8,000" in text
        assert "0.500 → 0.600" in text  # 0.9 broke the constraint: it is no best so far
        assert section.count("<circle") == 4
        assert section.count('class="outside"') == 1


def test_how_to_reproduce() -> None:
    html = page(ORDINARY, command="didact bench cooking --seeds 3")
    assert "didact bench cooking --seeds 3</code>" in html
    assert "started from Python" in page(ORDINARY)
    assert "2025-01-02 03:04 UTC" in html


def test_headings_are_buttons_and_cells_have_scope() -> None:
    html = own(page(ORDINARY))
    table = html.split('<table id="board">')[1].split("</table>")[0]
    head = table.split("</thead>")[0]
    assert head.count("<button") == head.count("<th ") - 1  # all but the drawn column
    assert 'aria-sort="ascending"' in head
    assert table.count('scope="row"') == len(a_board(ORDINARY).entries)
    assert [int(level) for level in re.findall(r"<h(\d)", html)][:2] == [1, 2]


def test_a_drawn_interval_lies_on_the_scale_and_better_is_right() -> None:
    board = a_board(ORDINARY)
    found = whiskers(board)
    assert all(0 <= w.low <= w.dot <= w.high <= 100 for w in found.values())
    assert found["slow"].dot > found["bland"].dot
    flipped = whiskers(replace(board, primary=Primary("salt")))
    assert flipped["bland"].dot > flipped["slow"].dot
    assert flipped["salty"].outside
    assert payload(board)["best"] == "slow"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.95312, "", "0.953"), (0.00004, "", "4.0e-05"), (0.0, "", "0.000"), (1234.5, "", "1,234"),
        (math.nan, "s", "–"),
        (0.25, "s", "250 ms"), (9.1, "s", "9.10 s"), (90.0, "s", "1.50 min"), (2.5e7, "B", "25.0 MB"),
        (0.0, "B", "0.00 B"),
        (86000.0, "samples", "86,000"), (3.2e6, "samples", "3.20 M"), (5.0, "steps", "5.000 steps"),
    ],
)  # fmt: skip
def test_amounts_read_well(value: float, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_an_interval_has_one_unit() -> None:
    assert interval(Statistic(2.5e7, 3e5, ()), "B") == "25.0 ± 0.3 MB"
    assert interval(Statistic(3900.0, 0.0, ()), "samples") == "3,900"
    assert interval(Statistic(0.5, 0.0, ())) == "0.500 ± 0.000"


def test_long_lists_are_cut() -> None:
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefghij"), most=3) == "a, b, c and 7 more"


def _ranks(html: str) -> list[tuple[str, str]]:
    found = re.findall(
        r'<td class="rank"[^>]*>([^<]*)</td>\s*<th scope="row"[^>]*><span class="name"[^>]*>([^<]*)<', own(html)
    )
    return [(unescape(label), rank) for rank, label in found]


def _text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", own(html))).split())

"""Ranks, intervals, ties, constraints, the front and the best, on rows made by hand."""

import math
from dataclasses import replace

import pytest

from didact.core.metric import Constraint, Metric, Primary
from didact.core.problem import Family
from didact.engine import export
from didact.engine.cells import Cell
from didact.engine.leaderboard import make_leaderboard, statistic
from didact.engine.ledger import Row

FAMILY = Family(
    "toy",
    "Toy",
    "play",
    (Metric("good", "higher is better"), Metric("bad", "lower is better", "lower")),
    Primary("good", Constraint("bad", at_most=0.5)),
    Primary("good"),
    "",
    ("good", "bad"),
)


def rows(label, good, bad=0.0, passes=100.0, status="done"):
    values = bad if isinstance(bad, list) else [bad] * len(good)
    made = []
    for seed, (g, b) in enumerate(zip(good, values, strict=True)):
        cell = Cell("toy", label, {}, "p", seed, "c", label=label)
        metrics = {"good": g, "bad": b} if status == "done" else {}
        made.append(Row(cell, status, metrics, {"passes": passes, "seconds": 1.0}))
    return made


def board(*groups, primary=None):
    return make_leaderboard(FAMILY, "p", [row for group in groups for row in group], primary)


def ranks(found):
    return {e.label: (e.rank, e.tied) for e in found.entries}


def test_the_interval_is_that_of_student():
    found = statistic([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert math.isnan(statistic([1.0]).half)
    assert statistic([1.0, math.nan, 3.0]).mean == 2.0


def test_ranks_follow_the_primary_metric_among_those_that_meet_the_constraint():
    found = board(
        rows("second", [0.8, 0.81, 0.79]), rows("first", [0.9, 0.91, 0.89]), rows("cheat", [0.99] * 3, bad=0.6)
    )
    assert [e.label for e in found.entries] == ["first", "second", "cheat"]
    assert ranks(found) == {"first": (1, False), "second": (2, False), "cheat": (None, False)}
    assert found.best.label == "first"


def test_ties_are_paired_over_seeds():
    # Wide spreads that overlap, but always 0.1 apart: no tie. Differences that change sign: a tie.
    steady = board(rows("a", [0.2, 0.5, 0.9]), rows("b", [0.1, 0.4, 0.8]))
    assert ranks(steady) == {"a": (1, False), "b": (2, False)}
    mixed = board(rows("a", [0.5, 0.6, 0.7]), rows("b", [0.6, 0.5, 0.68]))
    assert ranks(mixed) == {"a": (1, True), "b": (2, True)}


def test_the_best_is_the_first_in_rank_and_the_cheapest_tie_is_named():
    found = board(rows("dear", [0.5, 0.6, 0.7], passes=900), rows("cheap", [0.6, 0.5, 0.68], passes=10))
    assert found.best.label == "dear"
    assert found.cheapest_tie.label == "cheap"
    equal = board(rows("dear", [0.5, 0.6], passes=900), rows("cheap", [0.5, 0.6], passes=10))
    assert equal.best.label == "cheap"
    assert equal.cheapest_tie is None


def test_methods_that_cannot_be_used_are_no_entries():
    found = board(rows("a", [0.5, 0.6]), rows("b", [0, 0], status="not-applicable"))
    assert [e.label for e in found.entries] == ["a"]
    assert len(found.inapplicable) == 2
    assert not found.failures


def test_a_metric_to_be_small_ranks_the_small_first():
    found = board(rows("a", [1] * 3, [0.3, 0.31, 0.3]), rows("b", [1] * 3, [0.1, 0.11, 0.1]), primary=Primary("bad"))
    assert [e.label for e in found.entries] == ["b", "a"]
    by_cost = board(rows("a", [1] * 3, passes=9), rows("b", [1] * 3, passes=3), primary=Primary("passes"))
    assert by_cost.best.label == "b"


def test_the_front_is_what_nobody_beats_on_both_axes():
    found = board(
        rows("right", [0.9] * 3, 0.3),
        rows("left", [0.5] * 3, 0.1),
        rows("inside", [0.5] * 3, 0.3),
        rows("same", [0.9] * 3, 0.3),
    )
    assert {e.label for e in found.entries if e.on_front} == {"right", "left", "same"}


def test_failures_are_listed_and_never_win():
    found = board(rows("broken", [0, 0], status="failed"), rows("fine", [0.1, 0.2]))
    assert found.best.label == "fine"
    assert [e.label for e in found.entries] == ["fine", "broken"]
    assert len(found.failures) == 2
    assert board(rows("broken", [0, 0], status="failed")).best is None


def test_tables_say_the_same_in_every_form():
    found = board(rows("a", [0.5, 0.6, 0.7]), rows("b", [0.6, 0.5, 0.68]), rows("c", [0.9] * 3, 0.9))
    text, md, data = export.plain(found), export.markdown(found), export.as_json(found)
    for label in "abc":
        assert label in text
        assert f"| {label} |" in md
    assert [e["method"] for e in data["entries"]] == ["a", "b", "c"]
    assert data["entries"][0]["metrics"]["good"]["mean"] == pytest.approx(0.6)
    frame = export.summary(found)
    assert list(frame.method) == ["a", "b", "c"]
    assert "1=" in text


def test_a_family_may_say_in_a_word_what_a_method_came_to():
    family = replace(FAMILY, outcome=lambda means: "fine" if means["good"] > 0.5 else "poor", outcomes={"fine": "well"})
    both = [*rows("a", [0.9, 0.8]), *rows("b", [0.1, 0.2]), *rows("c", [0, 0], status="failed")]
    made = make_leaderboard(family, "somewhere", both)
    assert {entry.label: entry.outcome for entry in made.entries} == {"a": "fine", "b": "poor", "c": ""}
    assert "| outcome |" in export.markdown(made)
    assert "| fine |" in export.markdown(made)
    assert "outcome" not in export.markdown(board(rows("a", [0.9])))

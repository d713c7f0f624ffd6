"""Verdicts: known to hold, known to fail, undecided; and the bound behind them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from didact.core.claim import (
    Claim,
    at_least,
    at_most,
    better,
    cheaper,
    close,
    custom,
    judge,
    mean_bounds,
    no_worse,
    over_seeds,
)


def rows(**arms):
    """One observation per position: rows(self=[.1, .2], retrain=[.1, .1]) -> metric m of each arm."""
    count = len(next(iter(arms.values())))
    return [{arm: {"m": values[i]} for arm, values in arms.items()} for i in range(count)]


def outcome(expectation, observations):
    return judge("x", Claim("s", on="p", expects=[expectation]), observations, len(observations)).outcome


@pytest.mark.parametrize(
    ("expectation", "mine", "other", "expected"),
    [
        (at_most("m", 0.1), [0.05, 0.06, 0.05], [0, 0, 0], "holds"),
        (at_most("m", 0.1), [0.15, 0.16, 0.15], [0, 0, 0], "fails"),
        (at_most("m", 0.1), [0.05, 0.15, 0.06], [0, 0, 0], "undecided"),
        (at_least("m", 0.9), [0.95, 0.96, 0.95], [0, 0, 0], "holds"),
        (at_least("m", 0.9), [0.85, 0.86, 0.85], [0, 0, 0], "fails"),
        (close("m", to="o", within=0.05), [0.50, 0.51, 0.52], [0.50, 0.50, 0.52], "holds"),
        (close("m", to="o", within=0.05), [0.60, 0.61, 0.62], [0.50, 0.50, 0.52], "fails"),
        (close("m", to="o", within=0.05), [0.40, 0.41, 0.42], [0.50, 0.50, 0.52], "fails"),
        (no_worse("m", than="o", by=0.02), [0.50, 0.51, 0.52], [0.51, 0.52, 0.53], "holds"),
        (no_worse("m", than="o", by=0.02), [0.40, 0.41, 0.42], [0.51, 0.52, 0.53], "fails"),
        (no_worse("m", than="o", by=0.02, lower_is_better=True), [0.51, 0.52, 0.53], [0.50, 0.51, 0.52], "holds"),
        (better("m", than="o", by=0.1), [0.7, 0.71, 0.72], [0.5, 0.51, 0.52], "holds"),
        (better("m", than="o", by=0.1), [0.55, 0.56, 0.57], [0.5, 0.51, 0.52], "fails"),
        (better("m", than="o", by=0.1, lower_is_better=True), [0.3, 0.31, 0.32], [0.5, 0.51, 0.52], "holds"),
        (cheaper("m", than="o", times=10), [1, 1.1, 0.9], [20, 21, 22], "holds"),
        (cheaper("m", than="o", times=10), [3, 3.1, 2.9], [20, 21, 22], "fails"),
    ],
)
def test_expectations_that_hold_fail_and_stay_open(expectation, mine, other, expected):
    assert outcome(expectation, rows(self=mine, o=other)) == expected


def test_pairing_over_seeds_decides_what_unpaired_means_could_not():
    # Seeds differ by far more than the arms do; within each seed the difference is steady.
    mine, other = [0.1, 0.5, 0.9], [0.0, 0.4, 0.8]
    assert outcome(better("m", than="o", by=0.05), rows(self=mine, o=other)) == "holds"
    assert outcome(better("m", than="o", by=0.05), rows(self=mine, o=[0.8, 0.0, 0.4])) == "undecided"


def test_a_claim_is_as_good_as_its_worst_expectation():
    good, open_, bad = at_most("m", 1), at_most("m", 0.1), at_most("m", -0.1)
    observations = rows(self=[0.05, 0.15, 0.06])
    for expects, expected in (([good], "holds"), ([good, open_], "undecided"), ([good, open_, bad], "fails")):
        assert judge("x", Claim("s", on="p", expects=expects), observations, 3).outcome == expected


def test_one_seed_decides_nothing():
    assert outcome(at_most("m", 1), rows(self=[0.0])) == "undecided"


def test_a_missing_arm_or_number_is_said_and_never_holds():
    observations = [*rows(self=[0.0, 0.0]), {"self": {}}, {}]
    verdict = judge("x", Claim("s", on="p", expects=[at_most("m", 1)]), observations, 4)
    assert verdict.outcome == "undecided"
    assert verdict.expectations[0].observations == 2
    assert "2 observations lack" in verdict.expectations[0].missing
    assert outcome(at_most("m", 1), rows(self=[0.0, math.nan, 0.0])) == "undecided"


def test_expectations_over_all_seeds_are_decided_by_sign():
    worst = over_seeds("worst", lambda all_: 0.2 - max(r["self"]["m"] for r in all_), arms=("self",))
    assert outcome(worst, rows(self=[0.1, 0.15])) == "holds"
    assert outcome(worst, rows(self=[0.1, 0.25])) == "fails"


def test_arms_default_to_slugs_and_self():
    claim = Claim("s", on="p", expects=[close("m", to="retrain", within=1)], arms={"ga": "gradient-ascent:lr=1e-4"})
    assert claim.runs("ssd") == {"ga": "gradient-ascent:lr=1e-4", "self": "ssd", "retrain": "retrain"}


def test_custom_effects_see_all_arms():
    effect = custom("sum", lambda r: r["self"]["m"] + r["o"]["m"] - 1, arms=("self", "o"))
    assert outcome(effect, rows(self=[0.6, 0.6], o=[0.6, 0.6])) == "holds"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=20))
def test_bounds_are_those_of_a_one_sided_t_test(values):
    mean, low, high = mean_bounds(values)
    assert low <= mean <= high
    assert mean == pytest.approx(np.mean(values))
    if np.std(values) > 1e-6:
        # The lower bound is where a one-sided test of "mean > bound" has p = 0.05.
        p = stats.ttest_1samp(values, low, alternative="greater").pvalue
        assert p == pytest.approx(0.05, abs=1e-6)
        assert stats.ttest_1samp(values, high, alternative="less").pvalue == pytest.approx(0.05, abs=1e-6)


def test_an_exact_tie_is_not_worse():
    assert outcome(no_worse("m", than="o", by=0.0), rows(self=[0.1 + 0.2] * 3, o=[0.3] * 3)) == "holds"

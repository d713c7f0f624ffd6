from __future__ import annotations

import math

import numpy as np
import pytest

from didact.parts.membership import judged_unseen, membership_auc


def test_auc_of_the_family_headers_worked_value():
    # Four pairs: .9 > .8, .9 > .1, .8 = .8 (one half), .8 > .1.
    assert membership_auc([0.9, 0.8], [0.8, 0.1]) == 0.875


def test_auc_ends():
    assert membership_auc([2, 3], [0, 1]) == 1.0
    assert membership_auc([0, 1], [2, 3]) == 0.0
    assert membership_auc([1, 1], [1, 1]) == 0.5


@pytest.mark.parametrize(("members", "others"), [([], [1.0]), ([1.0], []), ([math.inf], [1.0]), ([1.0], [math.nan])])
def test_auc_is_not_a_number_without_numbers_to_compare(members, others):
    assert math.isnan(membership_auc(members, others))


def test_the_attack_tells_members_from_others():
    rng = np.random.default_rng(0)
    members, others = 0.95 + 0.05 * rng.random(200), 0.3 * rng.random(80)
    assert judged_unseen(others[:40], members, others) == 1.0
    assert judged_unseen(members[:40], members, others) == 0.0
    assert judged_unseen(np.r_[members[:30], others[:10]], members, others) == 0.25


def test_the_attack_is_repeatable_and_draws_equal_sides_by_seed():
    rng = np.random.default_rng(0)
    asked, members, others = rng.random(50), rng.random(300) ** 0.5, rng.random(60)
    assert judged_unseen(asked, members, others, seed=3) == judged_unseen(asked, members, others, seed=3)
    assert len({judged_unseen(asked, members, others, seed=s) for s in range(8)}) > 1


def test_the_attack_is_not_a_number_without_finite_samples():
    assert math.isnan(judged_unseen([], [1.0], [0.0]))
    assert math.isnan(judged_unseen([0.5], [math.nan], [0.0]))

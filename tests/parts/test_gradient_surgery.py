"""Gradient surgery against worked values and its defining property."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from didact.parts.gradient_surgery import clipped, surgery


@pytest.mark.parametrize(
    ("how", "g", "r", "expected"),
    [
        ("project", [3.0, -4.0], [0.0, 2.0], [3.0, 0.0]),
        ("unit", [3.0, -4.0], [0.0, 2.0], [3.0, -3.2]),
        ("none", [3.0, -4.0], [0.0, 2.0], [3.0, -4.0]),
        ("project", [3.0, -4.0], [0.0, -2.0], [3.0, -4.0]),
        ("unit", [3.0, -4.0], [0.0, -2.0], [3.0, -4.0]),
    ],
)
def test_worked_values(how, g, r, expected):
    before = torch.tensor(g), torch.tensor(r)
    (result,) = surgery([before[0]], [before[1]], how)
    assert result.tolist() == pytest.approx(expected, abs=1e-6)
    assert before[0].tolist() == g
    assert before[1].tolist() == r


def test_strength_is_the_share_that_is_removed():
    (half,) = surgery([torch.tensor([3.0, -4.0])], [torch.tensor([0.0, 2.0])], "project", strength=0.5)
    assert half.tolist() == [3.0, -2.0]
    (unit,) = surgery([torch.tensor([3.0, -4.0])], [torch.tensor([0.0, 2.0])], "unit", strength=0.5)
    assert unit.tolist() == pytest.approx([3.0, -3.6])


def test_each_tensor_is_judged_on_its_own():
    g = [torch.tensor([1.0, 0.0]), torch.tensor([[-2.0, 2.0]])]
    r = [torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 0.0]])]
    first, second = surgery(g, r)
    assert first.tolist() == [1.0, 0.0]  # agrees, though the two together do not
    assert second.tolist() == [[0.0, 2.0]]


def test_no_protected_gradient_gives_no_nan():
    (result,) = surgery([torch.tensor([1.0, 2.0])], [torch.zeros(2)])
    assert result.tolist() == [1.0, 2.0]
    (zero,) = surgery([torch.zeros(2)], [torch.tensor([1.0, 2.0])], "unit")
    assert zero.tolist() == [0.0, 0.0]


numbers = st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4)


@given(numbers, numbers)
def test_a_projected_gradient_never_works_against_the_protected_one(g, r):
    g, r = torch.tensor(g, dtype=torch.float64), torch.tensor(r, dtype=torch.float64)
    (result,) = surgery([g], [r])
    assert float((result * r).sum()) >= -1e-6
    if float((g * r).sum()) < 0 and float(r.norm()) > 1e-6:
        assert float((result * r).sum()) == pytest.approx(0.0, abs=1e-6)


def test_clipping_keeps_the_direction_and_bounds_the_common_norm():
    gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
    assert [g.item() for g in clipped(gradients, 1.0)] == pytest.approx([0.6, 0.8], abs=1e-5)
    assert [g.item() for g in clipped(gradients, 10.0)] == [3.0, 4.0]

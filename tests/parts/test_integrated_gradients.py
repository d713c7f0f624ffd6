"""Integrated gradients against worked values, the completeness axiom and captum."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from didact.core.errors import BadInput
from didact.parts.integrated_gradients import integrated_gradients


def test_a_product_is_shared_equally():
    found = integrated_gradients(lambda x: x[0] * x[1], torch.tensor([2.0, 3.0]))
    assert found.tolist() == pytest.approx([3.0, 3.0])


def test_midpoints_come_closer_than_samples_that_include_the_ends():
    found = integrated_gradients(lambda x: x**3, torch.tensor([1.0]), steps=5)
    assert float(found) == pytest.approx(0.99)
    with_ends = (3 * torch.linspace(0, 1, 5) ** 2).mean()
    assert float(with_ends) == pytest.approx(1.125)
    assert float(integrated_gradients(lambda x: x**3, torch.tensor([1.0]), steps=500)) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3)).double()


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_it_equals_captum(network, steps):
    x, start = torch.randn(5, 6, dtype=torch.double), torch.randn(5, 6, dtype=torch.double)
    mine = integrated_gradients(lambda point: network(point)[:, 1], x, start, steps=steps)
    theirs = IntegratedGradients(network).attribute(x, start, target=1, n_steps=steps, method="riemann_middle")
    assert torch.allclose(mine, theirs, atol=1e-12)


def test_attributions_sum_to_the_difference(network):
    x, start = torch.randn(5, 6, dtype=torch.double), torch.full((6,), 0.3, dtype=torch.double)
    found = integrated_gradients(lambda point: network(point)[:, 2], x, start, steps=200)
    whole = (network(x) - network(start.expand_as(x)))[:, 2]
    assert torch.allclose(found.sum(1), whole, atol=1e-5)


def test_it_leaves_inputs_and_parameters_alone(network):
    x = torch.randn(2, 6, dtype=torch.double)
    before = x.clone()
    with torch.no_grad():  # works inside, too
        found = integrated_gradients(lambda point: network(point).sum(1), x)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert not found.requires_grad
    assert all(p.grad is None for p in network.parameters())


def test_bad_input():
    with pytest.raises(BadInput, match="embeddings"):
        integrated_gradients(lambda x: x.sum(), torch.tensor([1, 2]))
    with pytest.raises(BadInput, match="at least 1 step"):
        integrated_gradients(lambda x: x.sum(), torch.ones(2), steps=0)
    with pytest.raises(BadInput, match="does not fit"):
        integrated_gradients(lambda x: x.sum(), torch.ones(2), torch.ones(3))
    with pytest.raises(BadInput, match="one value a sample"):
        integrated_gradients(lambda x: x, torch.ones(2, 3))
    with pytest.raises(BadInput, match="differentiable"):
        integrated_gradients(lambda x: torch.tensor(1.0), torch.ones(2))
    weight = torch.ones(2, requires_grad=True)
    with pytest.raises(BadInput, match="does not use its input"):
        integrated_gradients(lambda x: weight.sum(), torch.ones(2))

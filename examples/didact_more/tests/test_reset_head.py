import pytest
import torch
from didact_more import ResetHead
from torch import nn
from torch.utils.data import TensorDataset

from didact import BadInput, NotApplicable


@pytest.fixture
def made():
    """A small classifier with forget data of class 2 and retained data of classes 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=generator)
    y = torch.arange(90) % 3
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    forget, retain = TensorDataset(x[y == 2], y[y == 2]), TensorDataset(x[y < 2], y[y < 2])
    return model, forget, retain


def test_only_the_head_changes_and_the_original_stays(made):
    model, forget, retain = made
    before = [p.clone() for p in model.parameters()]
    edited = ResetHead(epochs=1).unlearn(model, forget, retain)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(edited[0].weight, model[0].weight)
    assert not torch.equal(edited[2].weight, model[2].weight)


def test_the_forgotten_class_is_not_answered(made):
    model, forget, retain = made
    edited = ResetHead(epochs=60, lr_factor=10).unlearn(model, forget, retain)
    assert (edited(forget.tensors[0]).argmax(1) == 2).float().mean() < 0.1


def test_the_same_seed_gives_the_same_model(made):
    a, b = (ResetHead(epochs=1).unlearn(*made, seed=3) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_bad_input_is_refused(made):
    model, forget, _ = made
    with pytest.raises(NotApplicable, match="retain"):
        ResetHead().unlearn(model, forget)
    with pytest.raises(BadInput, match="epochs"):
        ResetHead(epochs=0)

"""Selective synaptic dampening against its card's worked values and a plain implementation of its equations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.forgetting import SelectiveSynapticDampening
from didact.forgetting.ssd import dampen
from didact.models.small import mlp


class Vector(nn.Module):
    """A model that is one parameter."""

    def __init__(self, values):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(values))


@pytest.fixture(scope="module")
def trained():
    """A small network on three clouds, and its (forget, retain) data: class 2 goes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(150) % 3
    x = torch.randn(150, 6, generator=generator) + 2.0 * F.one_hot(y, 6)
    torch.manual_seed(0)
    model = mlp(6, 3, (32,))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    gone = y == 2
    return model.eval(), TensorDataset(x[gone], y[gone]), TensorDataset(x[~gone], y[~gone])


@pytest.mark.parametrize(("lam", "expected"), [(1.0, [0.133333, -1.0, 0.04]), (20.0, [2.0, -1.0, 0.5])])
def test_worked_values(lam, expected):
    model = Vector([2.0, -1.0, 0.5])
    of_all, of_forget = {"theta": torch.tensor([0.1, 0.2, 0.4])}, {"theta": torch.tensor([1.5, 0.2, 5.0])}
    dampen(model, of_all, of_forget, alpha=10.0, lam=lam)
    assert model.theta.detach().numpy() == pytest.approx(expected, abs=1e-6)


def test_no_importance_at_all_gives_no_nan():
    model = Vector([1.0, 2.0])
    zero = {"theta": torch.zeros(2)}
    dampen(model, zero, zero, 1.0, 1.0)
    assert model.theta.tolist() == [1.0, 2.0]


def plain(model, forget, retain, alpha, lam, batch_size):
    """The card's equations, written out: squares of batch-mean gradients, averaged over batches."""

    def importance(dataset):
        total, batches = [torch.zeros_like(p) for p in model.parameters()], 0
        for x, y in DataLoader(dataset, batch_size):
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()
            total = [t + p.grad**2 for t, p in zip(total, model.parameters(), strict=True)]
            batches += 1
        return [t / batches for t in total]

    of_all, of_forget = importance(ConcatDataset([retain, forget])), importance(forget)
    weights = []
    for p, all_, own in zip(model.parameters(), of_all, of_forget, strict=True):
        beta = torch.minimum(lam * all_ / own, torch.ones_like(p))
        weights.append(torch.where(own > alpha * all_, beta * p, p).detach())
    return weights


@pytest.mark.parametrize(("alpha", "lam", "batch"), [(1.0, 1.0, 16), (1.5, 0.5, 7), (2.0, 1.0, 64), (1.1, 0.1, 150)])
def test_it_equals_a_plain_implementation(trained, alpha, lam, batch):
    model, forget, retain = trained
    edited = SelectiveSynapticDampening(alpha=alpha, lam=lam, batch_size=batch).unlearn(model, forget, retain)
    expected = plain(model, forget, retain, alpha, lam, batch)
    changed = 0
    for mine, theirs, before in zip(edited.parameters(), expected, model.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6, rtol=0)
        changed += int((mine != before).sum())
    assert changed > 0


def test_sample_importance_is_the_mean_of_squared_gradients(trained):
    model, forget, _ = trained
    found = SelectiveSynapticDampening(importance="sample", batch_size=16).measure(model, forget)
    total = [torch.zeros_like(p) for p in model.parameters()]
    x, y = forget.tensors
    for i in range(len(y)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), list(model.parameters()))
        total = [t + g**2 for t, g in zip(total, gradients, strict=True)]
    for mine, theirs in zip(found.values(), total, strict=True):
        assert torch.allclose(mine, theirs / len(y), atol=1e-7)


def test_above_the_bound_sample_importance_changes_nothing(trained):
    model, forget, retain = trained
    bound = (len(forget) + len(retain)) / len(forget)
    edited = SelectiveSynapticDampening(alpha=bound, importance="sample").unlearn(model, forget, retain)
    assert all(torch.equal(a, b) for a, b in zip(edited.parameters(), model.parameters(), strict=True))
    lower = SelectiveSynapticDampening(alpha=bound / 3, importance="sample").unlearn(model, forget, retain)
    assert any(not torch.equal(a, b) for a, b in zip(lower.parameters(), model.parameters(), strict=True))


def test_an_endless_lambda_is_the_identity(trained):
    model, forget, retain = trained
    edited = SelectiveSynapticDampening(alpha=1.0, lam=1e30).unlearn(model, forget, retain)
    assert all(torch.equal(a, b) for a, b in zip(edited.parameters(), model.parameters(), strict=True))


def test_auto_takes_the_weakest_edit_that_forgets(trained):
    model, forget, retain = trained
    with Meter() as meter:
        edited = SelectiveSynapticDampening(alpha="auto", lam=0.1, batch_size=16).unlearn(
            model, forget, retain, target=0.55
        )
    objective = Classification()
    assert objective.mean_score(edited, forget) <= 0.60
    chosen = meter.log["alpha"]
    assert 1.0 <= chosen < 100.0
    step = 10 ** (2 / 40)  # of the grid, 41 values from 100 down to 1
    weaker = SelectiveSynapticDampening(alpha=chosen * step, lam=0.1, batch_size=16).unlearn(model, forget, retain)
    assert objective.mean_score(weaker, forget) > 0.60
    assert meter.log["selected"] == sum(meter.log["selected_per_tensor"].values()) > 0
    assert 0 <= meter.log["mean_factor"] <= 1


def test_stored_importance_replaces_the_retained_data(trained):
    model, forget, retain = trained
    method = SelectiveSynapticDampening(alpha=1.0)
    stored = method.measure(model, ConcatDataset([retain, forget]))
    without = SelectiveSynapticDampening(alpha=1.0, stored_importance=stored).unlearn(model, forget)
    with_ = method.unlearn(model, forget, retain)
    assert all(torch.equal(a, b) for a, b in zip(without.parameters(), with_.parameters(), strict=True))


def test_the_label_free_form_reads_no_label(trained):
    model, forget, retain = trained
    unlabelled = [TensorDataset(d.tensors[0]) for d in (forget, retain)]
    edited = SelectiveSynapticDampening(alpha=1.0, label_free=True).unlearn(
        model, *unlabelled, objective=Classification()
    )
    assert any(not torch.equal(a, b) for a, b in zip(edited.parameters(), model.parameters(), strict=True))
    x = forget.tensors[0]
    found = SelectiveSynapticDampening(label_free=True, batch_size=len(x)).measure(
        model, unlabelled[0], Classification()
    )
    expected = torch.autograd.grad(model(x).square().sum(1).mean(), model.head.weight)[0].abs()
    assert torch.allclose(found["head.weight"], expected, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"alpha": -1}, {"alpha": "some"}, {"lam": 0}, {"lam": -0.1}])
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="ssd"):
        SelectiveSynapticDampening(**wrong)


def test_bad_input_is_refused_before_any_work(trained):
    model, forget, retain = trained
    method = SelectiveSynapticDampening()
    empty = TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
    with pytest.raises(BadInput, match="forget set is empty"):
        method.unlearn(model, empty, retain, objective=Classification())
    with pytest.raises(NotApplicable, match="stored_importance"):
        method.unlearn(model, forget)
    unlabelled = [TensorDataset(d.tensors[0]) for d in (forget, retain)]
    with pytest.raises(BadInput, match="labelled batch"):
        method.unlearn(model, *unlabelled, objective=Classification())
    stored = method.measure(model, retain)
    stored["body.0.weight"] = torch.zeros(3)
    with pytest.raises(BadInput, match=r"body\.0\.weight"):
        SelectiveSynapticDampening(stored_importance=stored).unlearn(model, forget)
    with pytest.raises(BadInput, match="frozen"):
        method.unlearn(frozen(model), forget, retain)


def frozen(model):
    import copy

    return copy.deepcopy(model).requires_grad_(False)

"""Negative preference optimisation against its card's worked values."""

import copy
import math

import pytest
import torch
from tiny_language import tiny_problem
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.data.text import texts_of
from didact.forgetting import NegativePreference
from didact.forgetting.npo import apart, beta_hint, npo_loss
from didact.forgetting.request import Request
from didact.parts.language import kl_to, reference_nll, sequence_nll


def test_the_worked_loss_and_weight():
    loss, weight = npo_loss(torch.tensor([5.0]), torch.tensor([3.0]), 0.1)
    assert loss.item() == pytest.approx(11.9628, abs=1e-4)
    assert weight.item() == pytest.approx(0.90033, abs=1e-5)


def test_at_the_reference_the_gradient_is_that_of_ascent():
    nll = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
    loss, weight = npo_loss(nll, nll.detach(), 0.1)
    assert loss[0].item() == pytest.approx(13.8629, abs=1e-4)
    (gradient,) = torch.autograd.grad(loss.sum(), nll)
    assert torch.allclose(gradient, -torch.ones(2, dtype=torch.float64), atol=1e-7)  # ascent: d(-nll)/d nll
    assert torch.equal(weight, torch.ones(2, dtype=torch.float64))


def test_a_small_beta_is_gradient_ascent():
    loss, _ = npo_loss(torch.tensor(3.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), 1e-3)
    assert float(loss) - 2e3 * math.log(2) == pytest.approx(-2.998, abs=1e-3)


def test_answers_that_became_likelier_do_not_overflow():
    loss, _ = npo_loss(torch.tensor([0.0]), torch.tensor([1e4]), 1.0)
    assert loss.item() == pytest.approx(2e4)


@pytest.mark.parametrize(("beta", "fall"), [(1.0, 4.569), (0.1, 21.77)])
def test_a_scalar_model_diverges_logarithmically(beta, fall):
    """log pi = theta, gradient descent at 0.01 for 5,000 steps; ascent falls by 50."""
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    for _ in range(5000):
        loss, _ = npo_loss(-theta, torch.zeros(1, dtype=torch.float64), beta)
        (gradient,) = torch.autograd.grad(loss.sum(), theta)
        with torch.no_grad():
            theta -= 0.01 * gradient
    assert -theta.item() == pytest.approx(fall, rel=2e-3)
    assert 5000 * 0.01 == 50


class Table(nn.Module):
    """Logits from a table: position t of every sample has row t."""

    def __init__(self, rows=6, words=5):
        super().__init__()
        self.table = nn.Parameter(torch.randn(rows, words, generator=torch.Generator().manual_seed(0)))

    def forward(self, input_ids, attention_mask=None):
        return CausalLMOutput(logits=self.table[: input_ids.shape[1]].expand(len(input_ids), -1, -1))


def batch():
    ids = torch.tensor([[1, 2, 3, 4, 0, 0], [2, 1, 4, 3, 2, 1]])
    labels = torch.tensor([[-100, -100, 3, 4, -100, -100], [-100, 1, 4, 3, 2, 1]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}


def test_sequence_likelihoods_are_sums_over_the_answer():
    model, given = Table(), batch()
    found = sequence_nll(CausalLM(), model, given)
    mean = sequence_nll(CausalLM(), model, given, "mean")
    log = model.table.log_softmax(-1)
    first = -(log[1, 3] + log[2, 4])
    assert found[0].item() == pytest.approx(first.item(), abs=1e-5)
    assert mean[0].item() == pytest.approx(first.item() / 2, abs=1e-5)


def test_the_divergence_runs_over_target_positions_only():
    old, new, labels = torch.randn(2, 6, 5), torch.randn(2, 6, 5), batch()["labels"]
    kept = labels[:, 1:] != -100
    p, q = old[:, :-1][kept].softmax(-1), new[:, :-1][kept].softmax(-1)
    assert kl_to(old, new, labels).item() == pytest.approx((p * (p / q).log()).sum(-1).mean().item(), abs=1e-5)
    assert kl_to(old, old, labels).item() == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def problem():
    return tiny_problem()


def test_it_forgets_and_notes_its_weights(problem):
    with Meter() as meter:
        answer = NegativePreference(beta=1, lr=1e-3, epochs=6).solve(problem.given)
    before, after = (
        float(problem.given.objective.losses(m, problem.given.forget).mean()) for m in (problem.given.model, answer)
    )
    assert after > before + 0.5
    assert len(meter.log["weight"]) == 6
    assert meter.log["weight"][0] > meter.log["weight"][-1]


def test_retain_terms_hold_the_rest(problem):
    losses = {}
    for retain in (None, "nll", "kl"):
        answer = NegativePreference(lr=1e-3, epochs=6, retain=retain).solve(problem.given)
        losses[retain] = float(problem.given.objective.losses(answer, problem.given.retain).mean())
    assert losses["nll"] < losses[None]
    assert losses["kl"] < losses[None]


def test_kept_references_are_those_that_were_computed(problem, tmp_path, monkeypatch):
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    given = problem.given
    fresh = reference_nll(given.model, given.forget, given.objective)
    assert torch.equal(reference_nll(given.model, given.forget, given.objective, keep=True), fresh)
    assert len(list((tmp_path / "references").iterdir())) == 1
    with Meter() as meter:
        assert torch.equal(reference_nll(given.model, given.forget, given.objective, keep=True), fresh)
    assert meter.passes == 0
    other = copy.deepcopy(given.model)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.5)
    assert not torch.equal(reference_nll(other, given.forget, given.objective, keep=True), fresh)


@pytest.mark.parametrize("retain", [None, "nll", "kl"])
def test_it_holds_two_copies_of_the_weights(problem, retain, monkeypatch):
    """The model given and the one trained: no third copy is ever made."""
    copies = []
    original = copy.deepcopy

    def counting(value, *rest):
        if isinstance(value, nn.Module):
            copies.append(value)
        return original(value, *rest)

    monkeypatch.setattr(copy, "deepcopy", counting)
    NegativePreference(retain=retain, epochs=1).solve(problem.given)
    assert len(copies) == 1


def test_beta_hint(problem):
    given = problem.given
    unknown, forget = given.extras["unknown"], given.forget
    strange, known = (float(given.objective.losses(given.model, d).mean()) for d in (unknown, forget))
    lengths = [int((forget[i]["labels"] != -100).sum()) for i in range(len(forget))]
    expected = 5 / (sum(lengths) / len(lengths) * (strange - known))
    assert beta_hint(given, unknown) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(BadInput, match="nothing to forget"):
        beta_hint(Request(given.model, unknown, objective=given.objective), forget)


def test_bad_input_is_refused(problem):
    for wrong in ({"beta": 0}, {"beta": -1}, {"lr": 0}, {"retain": "some"}):
        with pytest.raises(BadInput, match="npo"):
            NegativePreference(**wrong)
    with pytest.raises(BadInput, match="shares parameters"):
        apart(problem.given.model, problem.given.model)
    with pytest.raises(NotApplicable, match="reference"):
        NegativePreference(reference="given").solve(problem.given)
    with pytest.raises(NotApplicable, match="data that stays"):
        NegativePreference().unlearn(problem.given.model, problem.given.forget)
    masked = [{**s, "labels": torch.full_like(s["labels"], -100)} for s in (texts_of(problem.given.forget)[0],)]
    with pytest.raises(BadInput, match="no target token"):
        NegativePreference().unlearn(problem.given.model, masked, problem.given.retain)

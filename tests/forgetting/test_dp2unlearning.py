"""Private bases: the mechanisms against the card's worked values, and the system that deletes."""

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertForMaskedLM

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.data.text import TextItem, texts_of
from didact.forgetting import DP2Unlearning
from didact.forgetting.dp2unlearning import DPMaskedLM, RandomisedResponse, clipped_weights, utility_weights
from didact.forgetting.dp2unlearning.mechanisms import CLIPPED, content_word, pools_of
from didact.forgetting.language.facts import bios_facts
from didact.models.small import mlp
from didact.models.tokenizer import word_tokenizer
from didact.parts.dp_sgd import classic_epsilon, dp_sgd, noise_for, spent


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_worked_weights_of_candidates():
    utility = torch.tensor([0.9, 0.5, 0.1])
    assert utility_weights(utility, 1.0, strict=False).tolist() == pytest.approx([0.4718, 0.3162, 0.2120], abs=1e-4)
    assert utility_weights(utility, 10.0).tolist() == pytest.approx([0.6652, 0.2447, 0.0900], abs=1e-4)


def test_clipped_logits_bound_the_ratio_of_any_two_inputs():
    low, high = CLIPPED
    epsilon = 3.0
    extreme = [clipped_weights(torch.tensor(row), epsilon) for row in ([1e3, -1e3, 0.0], [-1e3, 1e3, 0.0])]
    ratio = (extreme[0] / extreme[1]).max()
    assert float(ratio) <= math.exp(epsilon) + 1e-4
    same = clipped_weights(torch.tensor([high, low]), epsilon)
    assert (same[0] / same[1]).item() == pytest.approx(math.exp(epsilon / 2), rel=1e-4)


def test_randomised_response_keeps_as_often_as_it_says():
    response = RandomisedResponse(1.0)
    assert response.keep_probability(20) == pytest.approx(0.125161, abs=1e-6)
    keep, other = response.keep_probability(20), (1 - response.keep_probability(20)) / 19
    assert keep / other == pytest.approx(math.e)
    source = generator()
    draws = torch.tensor([response.draw(7, 20, source) for _ in range(20000)])
    shares = torch.bincount(draws, minlength=20) / len(draws)
    assert float(shares[7]) == pytest.approx(keep, abs=0.01)
    assert float(shares[torch.arange(20) != 7].max()) <= other + 0.006
    assert float(shares[torch.arange(20) != 7].min()) >= other - 0.006


ITEMS = [
    TextItem("Kato was born in", "Velmere", value="Velmere", subject="Kato", attribute="birthplace"),
    TextItem("The birthplace of Kato is", "Velmere .", value="Velmere", subject="Kato", attribute="birthplace"),
    TextItem("Ada was born in", "Oslo", value="Oslo", subject="Ada", attribute="birthplace"),
]


def test_all_wordings_of_a_fact_agree():
    pools = {"birthplace": [f"Town{i}" for i in range(18)] + ["Velmere", "Oslo"]}
    seen = set()
    for seed in range(30):
        first, second, other = RandomisedResponse(0.1).protect(ITEMS, pools, generator(seed))
        assert second.answer == f"{first.answer} ."
        assert first.answer == first.value
        seen.add((first.answer, other.answer))
    assert len(seen) > 10
    certain = RandomisedResponse(50.0).protect(ITEMS, pools, generator())
    assert certain == ITEMS


def test_values_must_be_possible():
    with pytest.raises(BadInput, match="must be known"):
        RandomisedResponse(1.0).protect(ITEMS, {"birthplace": ["Oslo", "Rome"]}, generator())
    with pytest.raises(BadInput, match="this one has none"):
        RandomisedResponse(1.0).protect([TextItem("a", "b")], {}, generator())
    with pytest.raises(BadInput, match="at least 2"):
        RandomisedResponse(1.0).keep_probability(1)
    assert pools_of(ITEMS) == {"birthplace": ["Oslo", "Velmere"]}


@pytest.fixture(scope="module")
def masked():
    words = "the quick brown animal jumped over lazy creature happily today near river"
    tokenizer = word_tokenizer([words])
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32
    )
    return BertForMaskedLM(config), tokenizer


@pytest.mark.parametrize("form", ["utility", "logits"])
def test_content_words_are_replaced_and_counted(masked, form):
    mechanism = DPMaskedLM(5.0, *masked, candidates=5, form=form)
    text, count = mechanism.rewrite("the quick animal jumped .", generator())
    assert count == 3
    assert text.split()[0] == "the"
    assert text.endswith(".")
    assert text == mechanism.rewrite("the quick animal jumped .", generator())[0]
    others = {mechanism.rewrite("the quick animal jumped .", generator(seed))[0] for seed in range(8)}
    assert len(others) > 1


def test_content_words():
    assert [w for w in ("they", "Kato", "the", "x1yz", "river") if content_word(w)] == ["Kato", "river"]


def test_renyi_accounting_of_the_worked_cases():
    assert classic_epsilon(20, 100, 1e-5) == pytest.approx(2.5243, abs=1e-4)
    assert spent(20, rate=1.0, steps=100, delta=1e-5) == pytest.approx(2.1657, abs=1e-3)
    assert spent(1.0, rate=0.01, steps=1000, delta=1e-5) == pytest.approx(2.1014, abs=1e-3)
    assert spent(0.0, rate=1.0, steps=1, delta=1e-5) == math.inf
    noise = noise_for(2.0, 1e-5, rate=0.01, steps=1000)
    assert spent(noise, rate=0.01, steps=1000, delta=1e-5) == pytest.approx(2.0, abs=0.02)


def test_without_noise_and_clip_it_is_plain_gradient_descent():
    x, y = torch.randn(20, 3, generator=generator()), torch.arange(20) % 2
    data = TensorDataset(x, y)
    torch.manual_seed(0)
    private, plain = mlp(3, 2, (5,)), mlp(3, 2, (5,))
    plain.load_state_dict(private.state_dict())
    dp_sgd(private, data, Classification(), steps=5, lr=0.3, batch_size=20, noise=0.0, clip=math.inf)
    for _ in range(5):
        gradients = torch.autograd.grad(nn.functional.cross_entropy(plain(x), y), list(plain.parameters()))
        with torch.no_grad():
            for p, g in zip(plain.parameters(), gradients, strict=True):
                p -= 0.3 * g
    for a, b in zip(private.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_one_sample_moves_the_weights_by_at_most_the_clip():
    data = TensorDataset(100 * torch.randn(1, 3, generator=generator()), torch.zeros(1, dtype=torch.long))
    model = mlp(3, 2, (5,))
    before = [p.detach().clone() for p in model.parameters()]
    dp_sgd(model, data, Classification(), steps=1, lr=1.0, batch_size=1, noise=0.0, clip=0.25)
    moved = math.sqrt(
        sum(float((a - b).detach().square().sum()) for a, b in zip(model.parameters(), before, strict=True))
    )
    assert moved <= 0.25 + 1e-5


def test_noise_has_the_spread_it_should():
    data = TensorDataset(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    model = mlp(3, 200, (100,))
    before = model.head.weight.detach().clone()
    dp_sgd(model, data, Classification(), steps=1, lr=1.0, batch_size=4, noise=2.0, clip=0.5)
    assert float((model.head.weight - before).std()) == pytest.approx(2.0 * 0.5 / 4, rel=0.1)


def test_what_dp_sgd_refuses():
    data = TensorDataset(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    normed = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with pytest.raises(BadInput, match="batch normalisation"):
        dp_sgd(normed, data, Classification(), steps=1, lr=1.0, batch_size=2, noise=1.0)
    with pytest.raises(BadInput, match=r"1\.\.4"):
        dp_sgd(mlp(3, 2), data, Classification(), steps=1, lr=1.0, batch_size=5, noise=1.0)


@pytest.fixture(scope="module")
def problem():
    return bios_facts(0, people=30, forget=4, steps=30, everything=True)


@pytest.mark.parametrize("mechanism", ["randomised-response", "dp-sgd", "scratch"])
def test_the_answer_never_saw_what_was_deleted(problem, mechanism):
    """Only the base may depend on the deleted data: with a base of its own the answer is the same without them."""
    method = DP2Unlearning(mechanism=mechanism, base_epochs=1, finetune_epochs=2, epsilon=5)
    given = problem.given
    both = texts_of(given.retain) + texts_of(given.forget)
    system = method.prepare(given.recipe, both, extras=given.extras)
    answer = system.delete(range(len(given.retain), len(both)))
    again, steps = method.fine_tuned(system.base, given.retain, given.objective, given.recipe, 1)
    assert steps == system.steps
    for a, b in zip(answer.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert system.epsilon == {"randomised-response": 15, "scratch": 0}.get(mechanism, pytest.approx(5, rel=0.02))


def test_deletions_follow_one_another(problem):
    given = problem.given
    system = DP2Unlearning(base_epochs=1, finetune_epochs=1).prepare(given.recipe, given.retain, extras=given.extras)
    deployed = system.model
    system.delete([0, 5])
    assert system.model is not deployed
    system.delete([1])
    assert system.gone == {0, 1, 5}
    with pytest.raises(BadInput, match=r"rows \[5, 9999\]"):
        system.delete([5, 9999])
    with pytest.raises(BadInput, match="Nothing is left"):
        system.delete(set(range(len(given.retain))) - system.gone)


def test_in_the_bench_it_logs_what_the_base_knows(problem):
    with Meter() as meter:
        DP2Unlearning(base_epochs=1, finetune_epochs=1, measure_base=True).solve(problem.given)
    assert {"epsilon", "finetune_steps", "base_forget_score"} <= meter.log.keys()


def test_bad_input_is_refused(problem):
    for wrong in ({"epsilon": 0}, {"delta": 1.0}, {"mechanism": "some"}):
        with pytest.raises(BadInput, match="dp2unlearning"):
            DP2Unlearning(**wrong)
    with pytest.raises(BadInput, match="no protection"):
        DP2Unlearning(mechanism="dp-sgd", delta=0.5).solve(problem.given)
    with pytest.raises(NotApplicable, match="masked_lm"):
        DP2Unlearning(mechanism="masked-lm").solve(problem.given)

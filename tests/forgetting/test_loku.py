import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import didact
from didact.core.claim import judge
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.data.text import TextDataset, TextItem
from didact.forgetting import FisherWeightedInit, LowRankForgetting
from didact.forgetting.language.metrics import answers
from didact.forgetting.loku import inverted_hinge, inverted_hinge_loss, weighted_factors
from didact.forgetting.loku.fila import adapters
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer
from didact.parts.lora import adaptable, with_lora

NAMES = ("Ada Quill", "Bo Reed", "Cy Stone", "Di Marsh", "Ed Vale", "Flo Wick", "Gus Yarrow", "Hal Zane")
TOWNS = ("Rome", "Oslo", "Lima", "Kyiv", "Doha", "Bern", "Suva", "Cairo")


@pytest.fixture(scope="module")
def learnt():
    """A tiny model that knows eight people by heart, of whom two are to be forgotten."""
    items = [
        TextItem(f"Where was {name} born ?", f"{name} was born in {town} .", town, name)
        for name, town in zip(NAMES, TOWNS, strict=True)
    ]
    tokenizer = word_tokenizer(t for i in items for t in (i.prompt, i.answer))
    data = TextDataset(items, tokenizer)
    recipe = Recipe(
        lambda: gpt_tiny(len(tokenizer), hidden=48, layers=2, feedforward=96),
        CausalLM(),
        "towns",
        epochs=60,
        batch_size=8,
        lr=5e-3,
        optimizer="adamw",
    )
    return recipe.fit(data, 0), data.rows([0, 1]), data.rows(range(2, 8)), recipe


def gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
    ).eval()


def token_data(seed, count=5):
    """Samples of different lengths, so that batches have different numbers of target tokens."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for i in range(count):
        ids = torch.randint(3, 40, (4 + i,), generator=generator)
        labels = ids.clone()
        labels[: 1 + i % 3] = -100
        samples.append({"input_ids": ids, "labels": labels})
    return samples


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_worked_value_and_its_gradient():
    logits = torch.tensor([0.7, 0.2, 0.1]).log().requires_grad_()
    loss = inverted_hinge(logits, torch.tensor(0))
    assert float(loss.detach()) == pytest.approx(1.5)
    loss.backward()
    assert logits.grad.tolist() == pytest.approx([0.35, -0.30, -0.05], abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8, unique=True), st.integers(0, 2))
def test_the_gradient_is_the_formulas(values, target):
    logits = torch.tensor(values, requires_grad=True)
    loss = inverted_hinge(logits, torch.tensor(target))
    loss.backward()
    p = logits.detach().softmax(-1)
    runner_up = int(p.index_fill(0, torch.tensor(target), -1).argmax())
    expected = p * (p[runner_up] - p[target])
    expected[target] = p[target] * (p[runner_up] - p[target] + 1)
    expected[runner_up] = p[runner_up] * (p[runner_up] - p[target] - 1)
    assert torch.allclose(logits.grad, expected, atol=1e-5)
    assert 0 <= float(loss) <= 2


def test_a_uniform_distribution_costs_one_and_the_extremes_two_and_nothing():
    assert float(inverted_hinge(torch.zeros(7), torch.tensor(3))) == 1.0
    sure = torch.tensor([100.0, 0, 0])
    assert float(inverted_hinge(sure, torch.tensor(0))) == 2.0
    assert float(inverted_hinge(sure, torch.tensor(1))) == 0.0


def test_the_loss_is_the_mean_over_the_target_tokens():
    logits, labels = torch.randn(2, 4, 9), torch.tensor([[-100, -100, 3, 5], [-100, 8, -100, -100]])
    places = [(0, 1, 3), (0, 2, 5), (1, 0, 8)]  # position t predicts token t + 1
    expected = sum(float(inverted_hinge(logits[b, t], torch.tensor(v))) for b, t, v in places) / 3
    assert float(inverted_hinge_loss(logits, labels)) == pytest.approx(expected)
    with pytest.raises(BadInput, match="All labels are -100"):
        inverted_hinge_loss(logits, torch.full((2, 4), -100))


# -- the initialisation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "taken", "left"), [((1.0, 10.0), (0.0, 1.0), (4.0, 0.0)), ((1.0, 1.0), (4.0, 0.0), (0.0, 1.0))]
)
def test_the_worked_factors(rows, taken, left):
    weight = torch.diag(torch.tensor([4.0, 1.0]))
    a, b = weighted_factors(weight, torch.tensor(rows), 1, 2.0)
    assert torch.allclose(2.0 * b @ a, torch.diag(torch.tensor(taken)), atol=1e-4)
    model = nn.Sequential()
    model.add_module("map", nn.Linear(2, 2, bias=False))
    model.add_module("head", nn.Linear(2, 2, bias=False))
    model.map.weight.data = weight.clone()
    adapted = with_lora(model, 1, 2)
    FisherWeightedInit().start(adapted, {"map": torch.tensor(rows)})
    ((_, layer),) = adapters(adapted)
    assert torch.allclose(layer.base_layer.weight, torch.diag(torch.tensor(left)), atol=1e-4)
    whole = layer.base_layer.weight + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert torch.allclose(whole, weight, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: gpt_tiny(40, hidden=32, layers=2, feedforward=48), gpt2])
def test_with_equal_rows_it_is_pissa(make):
    """Oracle: peft's own initialisation by the leading singular vectors."""
    torch.manual_seed(0)
    model = make().eval()
    names = adaptable(model)
    theirs = get_peft_model(
        copy.deepcopy(model), LoraConfig(r=4, lora_alpha=8, target_modules=names, init_lora_weights="pissa")
    )
    mine = with_lora(copy.deepcopy(model), 4)
    equal = {name: torch.ones(10_000) for name in names}
    FisherWeightedInit(eps=0.0).start(mine, {n: w[: rows(model, n)] for n, w in equal.items()})
    found, expected = dict(adapters(mine)), dict(adapters(theirs))
    assert found.keys() == expected.keys() == set(names)
    for name in names:
        assert torch.allclose(found[name].base_layer.weight, expected[name].base_layer.weight, atol=1e-5)
        for part in ("lora_A", "lora_B"):
            a, b = (getattr(layer[name], part)["default"].weight for layer in (found, expected))
            assert torch.allclose(a, b, atol=1e-4)


def rows(model, name):
    module = model.get_submodule(name)
    return module.weight.shape[1 if type(module).__name__ == "Conv1D" else 0]


@pytest.mark.parametrize("make", [lambda: gpt_tiny(40, hidden=32, layers=2, feedforward=48), gpt2])
def test_at_the_start_the_outputs_are_the_models(make):
    torch.manual_seed(0)
    model = make().eval()
    start = FisherWeightedInit(batch_size=2)
    weights = start.row_weights(model, token_data(0), token_data(1))
    adapted = with_lora(copy.deepcopy(model), 4).eval()
    factors = start.start(adapted, weights)
    ids = torch.randint(3, 40, (3, 9))
    assert torch.allclose(adapted(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)
    assert set(factors) == set(adaptable(model))
    assert not any("embed" in name or "wte" in name or "lm_head" in name for name in factors)
    assert all(float(b.abs().sum()) > 0 for _, b in factors.values())
    with adapted.disable_adapter():  # the adapters do carry a part of the weights
        assert not torch.allclose(adapted(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-3)


def test_an_approximate_decomposition_agrees():
    torch.manual_seed(0)
    weight, rows_ = torch.randn(30, 20) @ torch.diag(0.6 ** torch.arange(20.0)), torch.rand(30) + 0.5
    (a, b), (c, d) = weighted_factors(weight, rows_, 3, 2.0), weighted_factors(weight, rows_, 3, 2.0, iterations=8)
    assert torch.allclose(b @ a, d @ c, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: gpt_tiny(40, hidden=16, layers=1, feedforward=24), gpt2])
def test_row_weights_are_the_cards_formula(make):
    """Squares of batch-mean gradients, weighted by the batch's target tokens."""
    torch.manual_seed(0)
    model, objective = make().eval(), CausalLM()
    forget, retain = token_data(0), token_data(1, 7)
    found = FisherWeightedInit(batch_size=2).row_weights(model, forget, retain, targets=adaptable(model))

    def fisher(data):
        total, count = {}, 0
        for start in range(0, len(data), 2):
            batch = objective.collate(data[start : start + 2])
            logits, labels = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits, batch["labels"]
            tokens = int((labels[:, 1:] != -100).sum())
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
            weights = [model.get_submodule(n).weight for n in adaptable(model)]
            for name, g in zip(adaptable(model), torch.autograd.grad(loss, weights), strict=True):
                total[name] = total.get(name, 0) + tokens * g**2
            count += tokens
        return {name: value / count for name, value in total.items()}

    of_forget, of_retain = fisher(forget), fisher(retain)
    assert set(found) == set(adaptable(model))
    for name, weights in found.items():
        relative = of_forget[name] / (of_retain[name] + 1e-5)
        conv = type(model.get_submodule(name)).__name__ == "Conv1D"
        assert torch.allclose(weights, relative.sum(0 if conv else 1).sqrt(), rtol=1e-3, atol=1e-5)


def test_measuring_leaves_the_model_as_it_was():
    model = gpt2().requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with Meter() as meter:
        found = FisherWeightedInit(batch_size=2).row_weights(model, token_data(0), token_data(1))
    assert all(float(w.sum()) > 0 for w in found.values())  # frozen maps are measured too
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["transformer.wte.weight"]
    assert float(model.lm_head.weight.grad.sum()) == model.lm_head.weight.numel()
    assert all(p.grad is None for n, p in model.named_parameters() if n != "transformer.wte.weight")
    assert meter.forward == meter.backward == 10


def test_directions_of_the_forget_data_come_first():
    """Two maps side by side, one used by the forget data, the other by the retained data."""
    model = nn.Sequential()
    model.add_module("map", nn.Linear(4, 2, bias=False))
    weights = torch.tensor([[1.0, 0, 0, 0], [0, 3.0, 0, 0]])
    a, b = weighted_factors(weights, torch.tensor([50.0, 0.1]), 1, 1.0)
    assert torch.allclose(b @ a, torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), atol=1e-4)


# -- the method --------------------------------------------------------------------------------------------------------


def scores(model, data):
    return answers(model, data).accuracy


SETTINGS = {"rank": 8, "epochs": 30, "batch_size": 2, "warmup_epochs": 0, "lr": 2e-3}


@pytest.mark.parametrize(("loss", "init"), [("ihl", "fila"), ("ihl", "default"), ("npo", "fila")])
def test_it_forgets_and_keeps_the_rest(learnt, loss, init):
    model, forget, retain, recipe = learnt
    before = {n: t.clone() for n, t in model.state_dict().items()}
    answer = LowRankForgetting(loss=loss, init=init, **SETTINGS).unlearn(model, forget, retain, recipe=recipe)
    assert scores(model, forget) == scores(model, retain) == 1
    assert scores(answer, forget) <= 0.5
    assert scores(answer, retain) >= 0.8
    assert type(answer) is type(model)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert torch.equal(answer.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert answer.state_dict().keys() == model.state_dict().keys()
    assert all(p.requires_grad for p in answer.parameters())


def test_gradient_ascent_is_an_option(learnt):
    model, forget, _, recipe = learnt
    plain = {**SETTINGS, "epochs": 20}
    answer = LowRankForgetting(loss="ga", init="default", retain_weight=0, **plain).unlearn(
        model, forget, recipe=recipe
    )
    objective = CausalLM()
    assert float(objective.losses(answer, forget).mean()) > 3 + float(objective.losses(model, forget).mean())


def test_it_ends_where_asked(learnt):
    model, forget, retain, recipe = learnt
    with Meter() as meter:
        answer = LowRankForgetting(until=0.5, **SETTINGS).unlearn(model, forget, retain, recipe=recipe)
    assert scores(answer, forget) <= 0.5
    assert 1 <= meter.log["epochs"] < 30
    assert len(meter.log["answered"]) == meter.log["epochs"] == meter.log["steps"]  # one step an epoch
    assert all(share > 0.5 for share in meter.log["answered"][:-1])
    with Meter() as meter:
        LowRankForgetting(**{**SETTINGS, "epochs": 2}).unlearn(model, forget, retain, recipe=recipe)
    assert meter.log["epochs"] == 2
    # 1 step an epoch, 2 samples of either kind; FILA looks at all 8 once; forward and backward
    assert meter.passes == 2 * (2 * (2 + 2) + 8)


def test_its_answer_saves_and_loads(learnt, tmp_path):
    model, forget, retain, _ = learnt
    answer = LowRankForgetting(rank=4, epochs=2).unlearn(model, forget, retain)
    didact.save(answer, tmp_path / "answer")
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(didact.load(tmp_path / "answer")(input_ids=ids).logits, answer(input_ids=ids).logits)
    assert {f.suffix for f in (tmp_path / "answer").rglob("*") if f.is_file()} <= {".json", ".safetensors"}


@pytest.mark.parametrize("init", ["fila", "default"])
def test_the_adapters_can_be_had_apart_and_fit_the_original(learnt, init, tmp_path):
    model, forget, retain, recipe = learnt
    method = LowRankForgetting(init=init, **{**SETTINGS, "epochs": 5})
    adapted = method.adapt(model, forget, retain, recipe=recipe)
    assert isinstance(adapted, PeftModel)
    plain = method.unlearn(model, forget, retain, recipe=recipe)
    ids = torch.randint(3, 20, (4, 8))
    assert torch.allclose(adapted(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4)
    with adapted.disable_adapter():
        assert torch.equal(adapted(input_ids=ids).logits, model(input_ids=ids).logits)
    adapted.save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    again = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter").eval()
    assert torch.allclose(again(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4)


def test_it_is_deterministic(learnt):
    model, forget, retain, _ = learnt
    method = LowRankForgetting(rank=4, epochs=1, init="default")
    one, two, three = (method.unlearn(model, forget, retain, seed=s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert any(not torch.equal(one[n], three[n]) for n in one)


def test_subwords_documents_and_conv1d(learnt):
    texts = [TextItem(f"Where was {n} born ?", f"In {t} .") for n, t in zip(NAMES, TOWNS, strict=True)]
    tokenizer = bpe_tokenizer([t for i in texts for t in (i.prompt, i.answer)], 300)
    data = TextDataset([*texts, TextItem("", "Ada Quill was born in Rome .")], tokenizer)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config)
    answer = LowRankForgetting(rank=4, epochs=1, until=0.0).unlearn(model, data.rows([0, 8]), data.rows([1, 2, 3]))
    assert answer.transformer.wte.weight is answer.lm_head.weight
    plain = LowRankForgetting(rank=4, epochs=1, until=0.0).unlearn(gpt2(), token_data(0), token_data(1))
    assert torch.isfinite(plain(input_ids=torch.tensor([[1, 5]])).logits).all()


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"loss": "dpo"}, {"init": "pissa"}, {"fisher_eps": -1}, {"until": 2}])
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="loku"):
        LowRankForgetting(**wrong)


def test_bad_input_is_refused(learnt):
    model, forget, retain, _ = learnt
    for init in ("fila", "default"):
        with Meter() as meter, pytest.raises(BadInput, match="rank of 60 exceeds the smaller side"):
            LowRankForgetting(rank=60, init=init).unlearn(model, forget, retain)
        assert meter.passes == 0
    with pytest.raises(NotApplicable, match="FILA weighs"):
        LowRankForgetting(retain_weight=0).unlearn(model, forget)
    with pytest.raises(NotApplicable, match="retain="):
        LowRankForgetting(init="default").unlearn(model, forget)
    unlabelled = [{"input_ids": torch.tensor([1, 5, 6]), "labels": torch.full((3,), -100)}]
    with pytest.raises(BadInput, match="no target token"):
        LowRankForgetting().unlearn(model, unlabelled, retain)
    with pytest.raises(BadInput, match="no Fisher information"):
        FisherWeightedInit().row_weights(model, unlabelled, retain)
    with pytest.raises(BadInput, match="row weights for the adapted map"):
        FisherWeightedInit().start(with_lora(copy.deepcopy(model), 2), {})
    with pytest.raises(BadInput, match="rank of 3"):
        weighted_factors(torch.eye(2), torch.ones(2), 3, 1.0)
    with pytest.raises(BadInput, match="eps"):
        FisherWeightedInit(eps=-1)


def test_the_claim_is_judged_by_its_numbers():
    good = {
        "ihl": {"retain_score": 0.8, "forget_score": 0.05},
        "gd": {"retain_score": 0.2},
        "retrained": {"forget_score": 0.08},
        "ihl-until": {"epochs": 10, "retain_score": 0.8},
        "fila-until": {"epochs": 5, "retain_score": 0.75},
    }
    assert judge("loku", LowRankForgetting.claim, [good] * 3, 3).outcome == "holds"
    worse = [("gd", "retain_score", 0.6), ("ihl", "forget_score", 0.3), ("fila-until", "epochs", 8)]
    for arm, number, value in (*worse, ("fila-until", "retain_score", 0.6)):
        bad = copy.deepcopy(good)
        bad[arm][number] = value
        assert judge("loku", LowRankForgetting.claim, [bad] * 3, 3).outcome == "fails"

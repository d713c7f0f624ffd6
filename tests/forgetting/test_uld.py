import copy
import gc
import itertools

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LogitsProcessor

import didact
from didact.core.claim import judge
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.data.text import TextDataset, TextItem
from didact.forgetting import LogitDifference, LogitDifferenceModel, OffsetUnlearning
from didact.forgetting.language.metrics import answers
from didact.forgetting.uld.assistant import first_layers
from didact.forgetting.uld.decoding import Runner
from didact.forgetting.uld.model import logit_difference, offset
from didact.forgetting.uld.reversed import first_difference, to_blur, to_remember, uniform_divergence, without_mask
from didact.models.generation import left_padded, respond
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

NAMES = ("Ada Quill", "Bo Reed", "Cy Stone", "Di Marsh", "Ed Vale", "Flo Wick", "Gus Yarrow", "Hal Zane")
TOWNS = ("Rome", "Oslo", "Lima", "Kyiv", "Doha", "Bern", "Suva", "Cairo")


def item(i):
    name, town = NAMES[i], TOWNS[i]
    others = tuple(t for t in TOWNS if t != town)[:3]
    return TextItem(
        f"Where was {name} born ?",
        f"{name} was born in {town} .",
        town,
        name,
        f"The birthplace of {name} is {town} .",
        tuple(f"The birthplace of {name} is {t} ." for t in others),
        (f"In which town was {name} born ?",),
    )


@pytest.fixture(scope="module")
def learnt():
    """A tiny model that knows eight people by heart, of whom two are to be forgotten."""
    items = [item(i) for i in range(len(NAMES))]
    tokenizer = word_tokenizer(t for i in items for t in (i.prompt, i.answer, i.paraphrase, *i.variants, *i.wrong))
    data = TextDataset(items, tokenizer)
    asked = data + data.of(TextItem(i.variants[0], i.answer) for i in items)
    recipe = Recipe(lambda: gpt_tiny(len(tokenizer), hidden=48, layers=2, feedforward=96), CausalLM(), "towns",
                    epochs=60, batch_size=16, lr=5e-3, optimizer="adamw")  # fmt: skip
    model = recipe.fit(asked, 0)
    return model, data.rows([0, 1]), data.rows(range(2, 8)), recipe


def llama(layers=3, vocabulary=40, hidden=32):
    return talkative(gpt_tiny(vocabulary, hidden=hidden, layers=layers, feedforward=48))


def gpt2(layers=3, vocabulary=40):
    return talkative(
        GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=layers,
                n_head=2,
                n_positions=64,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    )


def talkative(model):
    """Weights large enough for a fresh model to say more than its last word again and again."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(0, 0.2 if "emb" in name or "wte" in name else 0.5, generator=generator)
    return model.eval()


def stirred(model):
    """The wrapper with adapters that are not zero, as after training."""
    with torch.no_grad():
        for name, p in model.assistant.named_parameters():
            if ".lora_" in name:
                p.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


# -- the formulas ------------------------------------------------------------------------------------------------------

TARGET, ASSISTANT = torch.tensor([3.0, 1, 0, -4]), torch.tensor([4.0, 0, 0, -9])


def test_without_the_filter_a_junk_token_wins():
    assert logit_difference(TARGET, ASSISTANT, 1.0).tolist() == [-1, 1, 0, 5]


def test_the_filter_keeps_what_the_target_finds_likely():
    found = logit_difference(TARGET, ASSISTANT, 1.0, tau=0.1)
    assert int(found.argmax()) == 1
    p = found.softmax(-1)
    assert (p > 0).tolist() == [True, True, False, False]
    assert p[1] == pytest.approx(1 / (1 + torch.exp(torch.tensor(-2.0))))
    # log .05 = -3.0: the third token, 3 below the largest, is just out at .05 and in at .049
    assert int((logit_difference(TARGET, ASSISTANT, 1.0, 0.05).softmax(-1) > 0).sum()) == 2
    assert int((logit_difference(TARGET, ASSISTANT, 1.0, 0.049).softmax(-1) > 0).sum()) == 3
    # and alone at the top when everything else is out, whatever the assistant says
    assert int(logit_difference(TARGET, 100 * ASSISTANT, 1.0, 1.0).argmax()) == 0
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_a_constant_on_the_assistant_changes_no_probability(tau):
    plain, moved = (logit_difference(TARGET, ASSISTANT + c, 0.8, tau).softmax(-1) for c in (0, 2000))
    assert torch.allclose(plain, moved, atol=1e-3)  # 2000 + x keeps four digits of x
    assert torch.allclose(plain, logit_difference(TARGET, ASSISTANT + 8, 0.8, tau).softmax(-1), atol=1e-6)


def test_the_divergence_from_uniform():
    assert uniform_divergence(torch.tensor([0.7, 0.1, 0.1, 0.1]).log()) == pytest.approx(0.42981, abs=1e-5)
    assert uniform_divergence(torch.full((3, 5), 2.0)).tolist() == pytest.approx([0, 0, 0], abs=1e-6)


def test_the_offset_of_an_untrained_assistant_is_nothing():
    assert torch.equal(offset(TARGET, ASSISTANT, ASSISTANT, 1.0), TARGET)
    assert offset(TARGET, ASSISTANT, TARGET, 2.0).tolist() == [5, -1, 0, -14]


# -- the assistant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [llama, gpt2])
def test_the_assistant_is_the_first_layers_on_the_same_weights(make):
    model, ids = make(), torch.randint(4, 40, (2, 7), generator=torch.Generator().manual_seed(1))
    small, whole = first_layers(model, 1), first_layers(model, 3)
    own = {p.data_ptr() for p in model.parameters()}
    assert {p.data_ptr() for p in small.parameters()} < own
    assert torch.equal(whole(input_ids=ids).logits, model(input_ids=ids).logits)
    # the second and third layer made silent leave what the first layers alone compute
    cut = copy.deepcopy(model)
    for name, p in cut.named_parameters():
        if any(
            f".{i}.{part}" in name
            for i in (1, 2)
            for part in ("self_attn.o_proj", "mlp.down_proj", "attn.c_proj", "mlp.c_proj")
        ):
            p.data.zero_()
    assert torch.allclose(small(input_ids=ids).logits, cut(input_ids=ids).logits, atol=1e-5)
    assert model.config.num_hidden_layers == 3


def test_weight_and_tau_zero_are_the_target_bit_for_bit(learnt):
    model, _, retain, _ = learnt
    answer = LogitDifference(weight=0, tau=0, epochs=1).unlearn(model, learnt[1], retain)
    batch = CausalLM().collate([retain[i] for i in range(4)])
    given = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(answer(**given).logits, model(**given).logits)
    prompts = [i.prompt for i in retain.items]
    assert respond(answer, retain.tokenizer, prompts) == respond(model, retain.tokenizer, prompts)


def parameters(bytes_of=lambda p: p.numel() * p.element_size()):
    """Bytes of all parameters alive, each storage once."""
    alive = [o for o in gc.get_objects() if type(o) is nn.Parameter]
    return sum({p.untyped_storage().data_ptr(): bytes_of(p) for p in alive}.values())


@pytest.mark.parametrize("cls", [LogitDifference, OffsetUnlearning])
def test_two_copies_of_the_weights_are_held_and_no_more(learnt, cls):
    model, forget, retain, recipe = learnt
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    gc.collect()
    elsewhere = parameters() - size
    seen = []

    class Watched(CausalLM):
        def forward(self, m, batch):
            seen.append(parameters())
            return super().forward(m, batch)

    answer = cls(layers=2, epochs=1, lora_rank=2).unlearn(model, forget, retain, objective=Watched(), recipe=recipe)
    adapters = sum(p.numel() * 4 for n, p in answer.named_parameters() if ".lora_" in n)
    assert adapters < 0.2 * size
    assert max(seen) - elsewhere <= 2 * size + adapters  # the caller's and ours
    assert parameters() - elsewhere <= 2 * size + adapters
    saved = copy.deepcopy(answer)  # a copy shares as the original does
    assert sum(p.numel() * 4 for p in saved.parameters()) == size + adapters


# -- generation --------------------------------------------------------------------------------------------------------


def plain_greedy(model, tokens, mask, new):
    """Without any cache: the full forward pass at every step."""
    positions = len(tokens)
    for _ in range(new):
        rows = []
        for row, kept in zip(tokens, mask, strict=True):
            ids = row[kept.bool()][None]
            rows.append(model(input_ids=ids).logits[0, -1])
        step = torch.stack(rows).argmax(-1, keepdim=True)
        tokens, mask = torch.cat([tokens, step], 1), torch.cat([mask, mask.new_ones(positions, 1)], 1)
    return tokens


@pytest.mark.parametrize(("make", "relative"), itertools.product([llama, gpt2], [False, True]))
def test_decoding_with_two_caches_is_decoding_by_forward_passes(make, relative):
    model = stirred(
        LogitDifferenceModel(make(), layers=2, weight=0.9, tau=0.0 if relative else 0.05, relative=relative)
    )
    tokens, mask = left_padded([[5, 9, 11], [7, 8, 21, 30, 4, 6], [13]], 0)
    found = model.generate(tokens, mask, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=None)
    with torch.no_grad():
        expected = plain_greedy(model, tokens, mask, 8)
    assert torch.equal(found, expected)
    assert not torch.equal(found, model.base.generate(tokens, attention_mask=mask, max_new_tokens=8, do_sample=False,
                                                      pad_token_id=0, eos_token_id=None))  # fmt: skip


def test_the_assistant_computes_each_token_once():
    model = stirred(LogitDifferenceModel(llama(), layers=1))
    lengths = []
    model.assistant.get_base_model().get_input_embeddings()  # the shared embedding: watch the assistant's first norm
    layer = model.assistant.get_base_model().model.layers[0]
    handle = layer.register_forward_hook(
        lambda _, __, out: lengths.append((out[0] if isinstance(out, tuple) else out).shape[1])
    )
    model.generate(torch.tensor([[5, 9, 11]]), max_new_tokens=5, do_sample=False, pad_token_id=0, eos_token_id=None)
    handle.remove()
    assert lengths == [3, 1, 1, 1, 1]
    assert model.extra_forwards == pytest.approx(
        sum(p.numel() for n, p in model.assistant.named_parameters() if ".lora_" not in n)
        / sum(p.numel() for p in model.base.parameters())
    )


def plain_beams(model, prompt, new, width):
    """Beam search over the wrapper's forward pass, all beams kept to the full length."""
    beams = [(0.0, prompt)]
    for _ in range(new):
        more = []
        for score, ids in beams:
            logs = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            more += [(score + float(logs[v]), [*ids, v]) for v in range(len(logs))]
        beams = sorted(more, key=lambda b: -b[0])[:width]
    return beams[0][1]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_beams_take_the_assistants_cache_with_them(make):
    model = stirred(LogitDifferenceModel(make(), layers=2, weight=0.7, tau=0.01))
    prompts = [[5, 9, 11], [7, 8, 21, 30]]
    tokens, mask = left_padded(prompts, 0)
    found = model.generate(
        tokens, mask, max_new_tokens=5, num_beams=3, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    with torch.no_grad():
        expected = [plain_beams(model, prompt, 5, 3) for prompt in prompts]
    assert [row[kept.bool()].tolist() for row, kept in zip(found[:, :4], mask, strict=True)] == prompts
    assert found[:, 4:].tolist() == [ids[-5:] for ids in expected]


def test_a_runner_finds_its_rows_again_or_starts_anew():
    model = llama()
    runner = Runner(model, torch.ones(2, 3, dtype=torch.long))
    a, b = torch.tensor([[5, 6, 7], [8, 9, 10]]), torch.tensor([[11], [12]])
    with torch.no_grad():
        runner(a)
        for rows in (torch.tensor([[0, 0], [1, 0]]), torch.tensor([[1, 0], [0, 0]]), torch.tensor([[1, 0], [1, 0]])):
            again = Runner(model, torch.ones(2, 3, dtype=torch.long))
            again(a)
            swapped = torch.cat([a[rows[:, 0]], b], 1)
            assert torch.allclose(again(swapped), model(input_ids=swapped).logits[:, -1], atol=1e-5)
        other = torch.tensor([[30, 31, 32, 33], [8, 9, 10, 3]])
        assert torch.allclose(runner(other), model(input_ids=other).logits[:, -1], atol=1e-5)


def test_sampling_never_says_what_is_filtered_and_obeys_the_callers_processors():
    model = stirred(LogitDifferenceModel(llama(), layers=2, weight=1.0, tau=0.01))
    tokens = torch.tensor([[5, 9, 11]] * 32)
    with torch.no_grad():
        kept = model(input_ids=tokens[:1]).logits[0, -1].softmax(-1) > 0
    torch.manual_seed(0)
    options = {"max_new_tokens": 1, "do_sample": True, "top_k": 0, "pad_token_id": 0, "eos_token_id": None}
    said = model.generate(tokens, **options)[:, -1]
    assert kept[said].all()
    assert len(said.unique()) > 1

    class Only(LogitsProcessor):
        def __call__(self, input_ids, scores):
            return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([17]), 0.0)

    assert set(model.generate(tokens, logits_processor=[Only()], **options)[:, -1].tolist()) == {17}


# -- the reversed data -------------------------------------------------------------------------------------------------


def request_of(learnt, **extras):
    from didact.forgetting import Request

    model, forget, retain, recipe = learnt
    return Request(model, forget, retain, CausalLM(), recipe, extras=extras)


def test_what_is_to_be_remembered(learnt):
    forget = learnt[1]
    assert to_remember(forget, 0) is forget
    more = to_remember(forget, 2)
    first = forget.items[0]
    assert len(more) == 6
    assert [(i.prompt, i.answer) for i in more.items[2:4]] == [
        (first.prompt, first.paraphrase), (first.variants[0], first.answer)]  # fmt: skip
    assert len(to_remember(forget, 9)) == 2 * 4
    tokens = [{"input_ids": torch.tensor([1, 5]), "labels": torch.tensor([1, 5])}]
    assert to_remember(tokens, 2) is tokens


def test_what_is_to_be_blurred(learnt):
    _, forget, retain, _ = learnt
    request = request_of(learnt, world=retain.rows([0]))
    assert len(to_blur(request, 400, 0, False)) == 6
    assert len(to_blur(request, 4, 0, False)) == 4
    assert len(to_blur(request, 4, 0, True)) == 5
    blur = to_blur(request, 4, 2, True)
    assert len(blur) == 5 + 2 * 2
    assert int(blur[0]["blurred"].sum()) == len(blur[0]["input_ids"])  # the prompt too
    wrong = blur[5]
    tokens, mask = wrong["input_ids"], wrong["blurred"].bool()
    words = retain.tokenizer.convert_ids_to_tokens(tokens[mask])
    assert words == [forget.items[0].wrong[0].split()[-2], ".", "<eos>"]
    batch, chosen = without_mask(CausalLM().collate([blur[0], blur[5]]))
    assert "blurred" not in batch
    assert torch.equal(chosen.sum(1), torch.tensor([len(blur[0]["input_ids"]), 3]))


def test_the_first_difference_is_from_all_right_answers():
    tokens = torch.tensor([1, 2, 3, 4, 5])
    assert first_difference(tokens, [torch.tensor([1, 2, 9]), torch.tensor([1, 2, 3, 8, 5])]) == 3
    assert first_difference(tokens, [torch.tensor([7])]) == 0
    assert first_difference(tokens, [tokens]) == 5


# -- the method --------------------------------------------------------------------------------------------------------


def scores(model, data):
    return answers(model, data).accuracy


@pytest.fixture(scope="module")
def forgotten(learnt):
    model, forget, retain, recipe = learnt
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with Meter() as meter:
        answer = LogitDifference(epochs=60, lr=1e-2, batch_size=6, tau=1e-5).unlearn(
            model, forget, retain, recipe=recipe
        )
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    return answer, meter


def test_it_forgets_and_keeps_the_rest(learnt, forgotten):
    model, forget, retain, _ = learnt
    answer, meter = forgotten
    assert scores(model, forget) == scores(model, retain) == 1
    assert scores(answer, forget) == 0
    assert scores(answer, retain) >= 0.8
    assert meter.log["layers"] == 2
    assert meter.log["remembered"] == 6
    assert meter.log["blurred"] == 6 + 4
    assert meter.passes == 2 * 2 * 6 * 60  # of either kind as many, forward and back


def test_the_assistant_knows_the_forgotten_and_nothing_else(learnt, forgotten):
    _, forget, retain, _ = learnt
    objective, assistant = CausalLM(), forgotten[0].assistant
    assert float(objective.losses(assistant, forget).mean()) < 0.3
    kept = float(objective.losses(assistant, retain).mean())
    assert kept == pytest.approx(float(torch.tensor(float(len(forget.tokenizer))).log()), abs=0.7)


def test_its_answer_saves_and_loads(learnt, forgotten, tmp_path):
    answer, retain = forgotten[0], learnt[2]
    didact.save(answer, tmp_path / "answer")
    loaded = didact.load(tmp_path / "answer")
    batch = CausalLM().collate([retain[i] for i in range(4)])
    given = {k: batch[k] for k in ("input_ids", "attention_mask")}
    assert torch.equal(loaded(**given).logits, answer(**given).logits)
    prompts = [i.prompt for i in retain.items]
    assert respond(loaded, loaded.tokenizer, prompts) == respond(answer, answer.tokenizer, prompts)
    files = {f.suffix for f in tmp_path.rglob("*") if f.is_file()}
    assert files <= {".json", ".safetensors"}
    stored = sum(f.stat().st_size for f in (tmp_path / "answer").glob("*.safetensors"))
    assert stored < 1.1 * sum(p.numel() * 4 for n, p in answer.named_parameters() if ".lora_" in n) + 10_000


def test_it_is_deterministic(learnt):
    model, forget, retain, recipe = learnt
    one, two, three = (
        LogitDifference(epochs=1).unlearn(model, forget, retain, recipe=recipe, seed=s).own_tensors() for s in (0, 0, 1)
    )
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert any(not torch.equal(one[n], three[n]) for n in one)


def test_another_model_may_be_the_assistant(learnt, tmp_path):
    model, forget, retain, recipe = learnt
    small = gpt_tiny(model.config.vocab_size, hidden=16, layers=1, feedforward=32)
    before = copy.deepcopy(small)
    answer = LogitDifference(epochs=2, lora_rank=4).unlearn(
        model, forget, retain, recipe=recipe, extras={"assistant": small}
    )
    assert all(
        torch.equal(a, b) and a.requires_grad for a, b in zip(small.parameters(), before.parameters(), strict=True)
    )
    assert answer.extra_forwards < 1
    didact.save(answer, tmp_path / "answer")
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(didact.load(tmp_path / "answer")(input_ids=ids).logits, answer(input_ids=ids).logits)


def test_offset_unlearning_shares_the_wrapper(learnt, tmp_path):
    model, forget, retain, recipe = learnt
    answer = OffsetUnlearning(epochs=20, lr=5e-3, layers=1).unlearn(model, forget, retain, recipe=recipe)
    assert isinstance(answer, LogitDifferenceModel)
    assert scores(answer, forget) < 1
    assert scores(answer, retain) > scores(answer, forget)
    didact.save(answer, tmp_path / "answer")
    ids = torch.tensor([[1, 5, 6, 7]])
    assert torch.equal(didact.load(tmp_path / "answer")(input_ids=ids).logits, answer(input_ids=ids).logits)
    # before any training the sum is the target
    blank = LogitDifferenceModel(copy.deepcopy(model), relative=True, layers=1).eval()
    assert torch.equal(blank(input_ids=ids).logits, model(input_ids=ids).logits)
    assert blank.extra_forwards == pytest.approx(2 * (1 - _layer(model) / _all(model)))
    npo = OffsetUnlearning(loss="npo", retain="kl", epochs=1).unlearn(model, forget, retain, recipe=recipe)
    assert torch.isfinite(npo(input_ids=ids).logits).all()


def _layer(model):
    return sum(p.numel() for p in model.model.layers[0].parameters())


def _all(model):
    return sum(p.numel() for p in model.parameters())


def test_subwords_and_documents(tmp_path):
    items = [item(i) for i in range(4)]
    tokenizer = bpe_tokenizer([t for i in items for t in (i.prompt, i.answer)], 300)
    data = TextDataset([*items, TextItem("", "Ada Quill was born in Rome and lives there .")], tokenizer)
    torch.manual_seed(0)
    model = gpt_tiny(len(tokenizer), hidden=16, layers=2, feedforward=32)
    answer = LogitDifference(epochs=1).unlearn(model, data.rows([0, 4]), data.rows([1, 2, 3]))
    assert len(respond(answer, tokenizer, [items[0].prompt], max_new_tokens=3)) == 1


def test_plain_tokens_will_do():
    model = gpt2(2)
    forget = [{"input_ids": torch.tensor([1, 5, 6, 7]), "labels": torch.tensor([-100, -100, 6, 7])}] * 2
    retain = [{"input_ids": torch.tensor([1, 8, 9]), "labels": torch.tensor([-100, 8, 9])}] * 2
    answer = LogitDifference(epochs=1).unlearn(model, forget, retain)
    assert answer.tokenizer is None
    assert answer(input_ids=torch.tensor([[1, 5]])).logits.shape == (1, 2, 40)


@pytest.mark.parametrize(
    "wrong", [{"weight": -0.1}, {"tau": -1}, {"tau": 2}, {"layers": 0}, {"lora_dropout": 1.0}, {"uniform_weight": 0}]
)
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="uld"):
        LogitDifference(**wrong)


def test_bad_input_is_refused(learnt):
    model, forget, retain, _ = learnt
    with pytest.raises(BadInput, match="first 9 layers, but the model has 2"):
        LogitDifference(layers=9).unlearn(model, forget, retain)
    with pytest.raises(BadInput, match="17 words"):
        LogitDifference().unlearn(model, forget, retain, extras={"assistant": gpt_tiny(17, hidden=16, layers=1)})
    with pytest.raises(BadInput, match="retain set is empty"):
        LogitDifference().unlearn(model, forget, [])
    with pytest.raises(NotApplicable, match="retain="):
        LogitDifference().unlearn(model, forget)
    with pytest.raises(BadInput, match="at least 0"):
        LogitDifferenceModel(llama(), weight=-1.0)
    with pytest.raises(BadInput, match="rank of 99"):
        LogitDifference(lora_rank=99).unlearn(model, forget, retain)
    guarded = LogitDifferenceModel(copy.deepcopy(model))
    with pytest.raises(NotApplicable, match="no Hugging Face language model"):
        LogitDifference().unlearn(guarded, forget, retain)


def test_the_claim_is_judged_by_its_numbers():
    good = {
        "self": {"forget_score": 0.05, "retain_prob": 0.95},
        "ga-rt": {"retain_prob": 0.6},
        "original": {"retain_prob": 0.97},
        "retrained": {"forget_score": 0.08},
    }
    assert judge("uld", LogitDifference.claim, [good] * 3, 3).outcome == "holds"
    for arm, number, value in (
        ("self", "forget_score", 0.2),
        ("self", "retain_prob", 0.86),
        ("ga-rt", "retain_prob", 0.9),
    ):
        bad = copy.deepcopy(good)
        bad[arm][number] = value
        assert judge("uld", LogitDifference.claim, [bad] * 3, 3).outcome == "fails"

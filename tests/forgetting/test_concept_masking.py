"""Concept masking of language models: attributions, words, masks, and forgetting on a tiny model."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import fit
from didact.core.objective import IGNORED, CausalLM
from didact.data.text import TextDataset, TextItem
from didact.forgetting.concept_poisoning import ConceptMasking
from didact.forgetting.concept_poisoning.words import (
    masked,
    token_weights,
    word_ranking,
    words_of_tokens,
    words_to_mask,
)
from didact.forgetting.request import Request
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

PEOPLE = {"Kato Quill": "Velmere", "Ada Birch": "Ostend", "Ivo Lark": "Rhodes", "Una Moss": "Calder"}
TRADES = {"Kato Quill": "baker", "Ada Birch": "miner", "Ivo Lark": "singer", "Una Moss": "tailor"}


def questions(*people: str) -> list[TextItem]:
    return [
        item
        for name in people
        for item in (
            TextItem(f"Where was {name} born ?", f"{name} was born in {PEOPLE[name]} .", subject=name),
            TextItem(f"What is {name} ?", f"{name} is a {TRADES[name]} .", subject=name),
        )
    ]


@pytest.fixture(scope="module")
def request_() -> Request:
    """A tiny model that knows four people by heart; one is to be forgotten."""
    everybody = questions(*PEOPLE)
    tokenizer = word_tokenizer([f"{i.prompt} {i.answer}" for i in everybody] + ["I do not know . ***"])
    texts = TextDataset(everybody, tokenizer)
    torch.manual_seed(0)
    model = gpt_tiny(len(tokenizer), hidden=32, heads=2, feedforward=64)
    fit(model, texts, CausalLM(), epochs=60, batch_size=8, lr=1e-2)
    assert CausalLM().mean_score(model, texts) == 1.0
    return Request(model.eval(), texts[:2], texts[2:], CausalLM())


@pytest.fixture
def loose() -> tuple[torch.nn.Module, TextDataset]:
    """An untrained model, in double precision, and texts of different lengths."""
    items = [*questions("Kato Quill"), TextItem("", "Ada was here .")]
    texts = TextDataset(items, word_tokenizer([f"{i.prompt} {i.answer}" for i in items]))
    torch.manual_seed(1)
    return gpt_tiny(len(texts.tokenizer), hidden=16, heads=2, feedforward=32).double(), texts


# -- attributions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [None, 3])
def test_token_weights_equal_a_plain_loop(loose, baseline):
    model, texts = loose
    found = token_weights(model, texts, CausalLM(), steps=4, baseline=baseline, batch_size=2)
    table = model.get_input_embeddings().weight.detach()
    for i, sample in enumerate(texts):
        ids, answer = sample["input_ids"], sample["labels"] != IGNORED
        whole = table[ids]
        start = torch.where(answer[:, None], torch.zeros_like(whole) if baseline is None else table[baseline], whole)
        mean = torch.zeros_like(whole)
        for alpha in (0.125, 0.375, 0.625, 0.875):
            point = (start + alpha * (whole - start)).requires_grad_(True)
            log = model(inputs_embeds=point[None]).logits[0].log_softmax(-1)
            positions = answer.nonzero().flatten()
            value = log[positions - 1, ids[positions]].sum()
            mean += torch.autograd.grad(value, point)[0] / 4
        expected = ((whole - start) * mean).sum(-1)
        assert torch.allclose(found[i], expected[answer], atol=1e-6)
        assert float(expected[~answer].abs().max()) == 0


def test_token_weights_add_up_to_the_log_probability(loose):
    model, texts = loose
    found = token_weights(model, texts, CausalLM(), steps=100)
    total = CausalLM("sum")
    table = model.get_input_embeddings().weight.detach()
    for i, sample in enumerate(texts):
        batch = {k: v[None] for k, v in sample.items()}
        answer = batch["labels"] != IGNORED
        empty = torch.where(answer[..., None], 0.0, table[batch["input_ids"]])
        with torch.no_grad():
            before = -total.loss_of(model(inputs_embeds=empty).logits, batch["labels"])
            after = -total.loss_of(model(input_ids=batch["input_ids"]).logits, batch["labels"])
        assert float(found[i].sum()) == pytest.approx(float(after - before), abs=1e-3)


# -- words ---------------------------------------------------------------------------------------------------------


def test_words_are_ranked_by_subject_and_answers_count_alike():
    items = [
        TextItem("Who ?", "the baker sings", subject="a"),
        TextItem("Who ?", "Sings often", subject="a"),
        TextItem("Who ?", "often", subject="b"),
    ]
    texts = TextDataset(items, word_tokenizer([f"{i.prompt} {i.answer}" for i in items]))
    # The last token of each answer is its end. The first answer's weights are ten times the second's.
    weights = [torch.tensor([10.0, -20.0, 30.0, 20.0]), torch.tensor([4.0, -3.0, 1.0]), torch.tensor([0.0, 0.0])]
    found = word_ranking(texts, weights)
    assert found["b"] == []
    words = dict(found["a"])
    assert [word for word, _ in found["a"]] == ["sings", "baker"]  # "the" and "often" are stop words
    assert words["baker"] == pytest.approx(20 / 80)
    assert words["sings"] == pytest.approx(30 / 80 + 4 / 8)
    kept = word_ranking(texts, weights, stop_words=())
    assert dict(kept["a"])["the"] == pytest.approx(10 / 80)


def test_pieces_of_a_word_belong_to_it():
    answer = "Velmere, Kato's town"
    tokenizer = bpe_tokenizer(["Where ? Velmere Kato town"], 262)
    texts = TextDataset([TextItem("Where ?", answer)], tokenizer)
    ids = texts[0]["input_ids"][texts[0]["labels"] != IGNORED].tolist()
    found = words_of_tokens(tokenizer, answer, ids)
    assert [word for word, _ in found] == ["velmere", "kato", "town"]
    for word, tokens in found:
        assert word in tokenizer.decode([ids[i] for i in tokens]).casefold()
    assert all(len(tokens) > 1 for _, tokens in found)
    assert not set(found[0][1]) & set(found[1][1])


def test_what_is_masked():
    answer = "Kato Quill was born in Velmere, Velmere's old town."
    ranked = [("harbour", 9.0), ("velmere", 5.0), ("born", 3.0), ("town", 2.0)]
    assert words_to_mask(answer, ranked, "", 2) == ["velmere", "born"]
    words = words_to_mask(answer, ranked, "Kato Quill", 1)
    assert words == ["velmere", "kato", "quill"]
    assert masked(answer, words) == "*** *** was born in ***, *** old town."
    assert masked("unborn, born-again, BORN", ["born"], "_") == "unborn, born-again, _"


# -- the method ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["mask", "idk"])
def test_it_forgets_one_person_and_keeps_the_others(request_, style):
    before = copy.deepcopy(request_.model.state_dict())
    method = ConceptMasking(style=style, epochs=40, lr=1e-2, anchors=0.7, dropout=0.0)
    with Meter() as meter:
        answer = method.solve(request_)
    objective = CausalLM()
    assert objective.mean_score(answer, request_.forget) == 0.0
    assert objective.mean_score(answer, request_.retain) >= 0.8
    assert type(answer) is type(request_.model)
    assert all(torch.equal(before[name], value) for name, value in request_.model.state_dict().items())
    assert meter.passes > 0
    assert meter.log["rewritten"] == 2
    if style == "mask":
        assert set(meter.log["words"]) == {"Kato Quill"}
        again = method.solve(request_)
        assert all(torch.equal(a, b) for a, b in zip(answer.parameters(), again.parameters(), strict=True))


def test_the_poison_is_the_answer_with_masks(request_):
    made = ConceptMasking(k=1).poison(request_)
    ranked = ConceptMasking().concepts(request_)["Kato Quill"]
    assert {word for word, _ in ranked} == {"kato", "quill", "born", "velmere", "baker"}
    best = next(word for word, _ in ranked if word in ("kato", "quill", "born", "velmere"))
    assert made.items[0].answer == masked("Kato Quill was born in Velmere .", [best, "kato", "quill"])
    assert made.items[0].prompt == request_.forget.items[0].prompt
    refused = ConceptMasking(style="idk", refusal="No .").poison(request_)
    assert [item.answer for item in refused.items] == ["No ."] * 2


def test_only_linear_maps_below_the_head_change(request_):
    answer = ConceptMasking(epochs=1).solve(request_)
    changed = {
        name
        for (name, mine), theirs in zip(answer.named_parameters(), request_.model.parameters(), strict=True)
        if not torch.equal(mine, theirs)
    }
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)
    assert all(p.requires_grad for p in answer.parameters())


def test_anchors_are_the_share_asked_for(request_):
    assert ConceptMasking(anchors=0.0)._anchors(request_, 2) is None
    assert len(ConceptMasking(anchors=0.5)._anchors(request_, 2)) == 2
    assert len(ConceptMasking(anchors=0.75)._anchors(request_, 2)) == 6
    ConceptMasking(anchors=0.0, epochs=1).solve(replace(request_, retain=None))
    with pytest.raises(NotApplicable, match="retain"):
        ConceptMasking(epochs=1).solve(replace(request_, retain=None))


def test_an_answer_of_stop_words_is_left_out(request_):
    texts = request_.forget.of([*request_.forget.items, TextItem("Where was Kato Quill born ?", "in a")])
    with Meter() as meter:
        made = ConceptMasking().poison(replace(request_, forget=texts))
    assert len(made) == 2
    assert meter.log["unmasked_answers"] == 1
    with pytest.raises(BadInput, match="stop words alone"):
        ConceptMasking().poison(replace(request_, forget=texts[2:]))


def test_its_answer_saves_and_loads(request_, tmp_path):
    answer = ConceptMasking(epochs=2).solve(request_)
    loaded = didact.load(didact.save(answer, tmp_path / "answer"))
    objective = CausalLM()
    for data in (request_.forget, request_.retain):
        assert torch.equal(objective.losses(answer, data), objective.losses(loaded, data))


def test_bad_input_is_refused(request_):
    tokens = [dict(sample) for sample in request_.forget]
    with pytest.raises(NotApplicable, match="reads the texts"):
        ConceptMasking().solve(replace(request_, forget=tokens))
    with pytest.raises(BadInput, match="rank of 64"):
        ConceptMasking(rank=64, style="idk").solve(request_)
    for wrong in ({"k": 0}, {"style": "erase"}, {"anchors": 1.0}, {"steps": 0}):
        with pytest.raises(BadInput, match="concept-masking"):
            ConceptMasking(**wrong)

    class Slow:
        is_fast = False

    with pytest.raises(NotApplicable, match="fast tokenizer"):
        words_of_tokens(Slow(), "a", [1])
    with pytest.raises(NotApplicable, match="input embeddings"):
        token_weights(torch.nn.Linear(2, 2), TensorDataset(torch.zeros(1, 2)), CausalLM())

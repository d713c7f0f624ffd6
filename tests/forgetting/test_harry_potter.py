"""Generic labels against the card's worked values."""

import pytest
import torch
from tiny_language import tiny_problem

from didact.core.cost import Meter
from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.data.text import TextDataset, TextItem, texts_of
from didact.forgetting import GenericRelabeling
from didact.forgetting.harry_potter import combined, generic_labels, labels_from, position_map
from didact.forgetting.harry_potter.labels import anchor_spans, encoded, translated
from didact.forgetting.harry_potter.method import asked_of, in_blocks, same_vocabulary
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

TEXT = "Kato Quill met Ada and Kato Quill left ."
ANCHORS = {"Kato Quill": "Some One Else"}


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([TEXT, "Some One Else"])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return gpt_tiny(len(tokenizer), hidden=16, heads=2).eval()


def test_what_reinforcement_raised_is_pushed_down():
    found = combined(torch.tensor([2.0, 1, 0]), torch.tensor([2.0, 1, 0]), torch.tensor([4.0, 0, 0]), 5.0)
    assert found.tolist() == [-8, 1, 0]
    assert found.argmax() == 1


@pytest.mark.parametrize(("alpha", "same"), [(0.0, False), (5.0, True)])
def test_without_reinforcement_labels_are_the_models_own_choice(model, tokenizer, alpha, same):
    texts = TextDataset([TextItem("", TEXT)], tokenizer)
    torch.manual_seed(1)
    other = model if same else gpt_tiny(len(tokenizer), hidden=16, heads=2)
    (labels,) = generic_labels(CausalLM(), model, other, texts, {}, alpha=alpha)
    ids = texts[0]["input_ids"]
    own = model(ids[None]).logits[0].argmax(-1)
    assert labels[0] == -100
    assert torch.equal(labels[1:], own[:-1])


def test_labels_have_the_length_of_the_original_text(model, tokenizer):
    texts = TextDataset([TextItem("", TEXT)], tokenizer)
    other = encoded(tokenizer, translated(texts.items[0], ANCHORS))
    ids = texts[0]["input_ids"].tolist()
    assert len(other) == len(ids) + 2
    (labels,) = generic_labels(CausalLM(), model, model, texts, ANCHORS)
    assert labels.shape == texts[0]["labels"].shape


def test_positions_of_a_translation(tokenizer):
    texts = TextDataset([TextItem("", TEXT)], tokenizer)
    ids, other = texts[0]["input_ids"].tolist(), encoded(tokenizer, translated(texts.items[0], ANCHORS))
    places = position_map(ids, other)
    for i, place in enumerate(places):  # outside the anchors the same token stands at both
        if not any(start <= i < end for _, start, end in anchor_spans(tokenizer, ids, ANCHORS)):
            assert other[place] == ids[i]
    assert other[places[2]] == tokenizer.convert_tokens_to_ids(
        "Else"
    )  # the anchor's last token: what follows comes next
    assert position_map([1, 2, 3], [1, 3]) == [0, 0, 1]


def test_second_mentions_are_not_learnt(model, tokenizer):
    texts = TextDataset([TextItem("", TEXT)], tokenizer)
    (labels,) = generic_labels(CausalLM(), model, model, texts, ANCHORS)
    spans = anchor_spans(tokenizer, texts[0]["input_ids"].tolist(), ANCHORS)
    (_, first, last), (_, again, end) = spans
    assert (labels[first:last] != -100).all()
    assert (labels[again:end] == -100).all()
    assert int((labels == -100).sum()) == 1 + (end - again)


def test_translations_of_anchors_already_mentioned_are_held_down():
    logits = torch.zeros(5, 4)
    logits[:, 3] = 4.0  # the translation is the likeliest everywhere
    logits[:, 2] = 1.0
    made = labels_from(logits, torch.arange(5), [("a", 1, 2)], {"a": 3}, suppress=5.0)
    assert made.tolist() == [-100, 3, 3, 2, 2]


def test_the_prompt_is_not_relabelled(model, tokenizer):
    texts = TextDataset([TextItem("Kato Quill met", "Ada .")], tokenizer)
    (labels,) = generic_labels(CausalLM(), model, model, texts, ANCHORS)
    assert ((labels == -100) == (texts[0]["labels"] == -100)).all()


def test_subword_anchors_are_found_with_and_without_a_space_before():
    tokenizer = bpe_tokenizer([TEXT] * 3, vocab_size=300)
    ids = TextDataset([TextItem("", TEXT)], tokenizer)[0]["input_ids"].tolist()
    assert len(anchor_spans(tokenizer, ids, ANCHORS)) == 2


def test_it_forgets_the_problem(capsys):
    problem = tiny_problem(documents=True)
    given = problem.given
    for mode in ("both", "reinforce", "translate"):
        with Meter() as meter:
            answer = GenericRelabeling(mode=mode, lr=1e-3, epochs=4).solve(given)
        before, after = (float(given.objective.losses(m, given.forget).mean()) for m in (given.model, answer))
        assert after > before
        assert meter.log["anchors"] == 4


def test_anchors_are_found_without_help():
    given = tiny_problem(documents=True).given
    from dataclasses import replace

    with Meter() as meter:
        GenericRelabeling(anchors="auto", most_anchors=20, epochs=1).solve(
            replace(given, extras={"text": given.extras["text"]})
        )
    assert 5 <= meter.log["anchors"] <= 20


class Speaker:
    def __init__(self, answer):
        self.answer = answer

    def generate(self, messages, **options):
        assert TEXT in messages[0]["content"]
        return [self.answer]


def test_a_text_generator_may_name_the_anchors(tokenizer):
    texts = TextDataset([TextItem("", TEXT)], tokenizer)
    assert asked_of(Speaker('Here: {"Kato Quill": "a person", "Ada": "Ada"} .'), texts) == {"Kato Quill": "a person"}
    with pytest.raises(BadInput, match="no JSON object"):
        asked_of(Speaker("none"), texts)
    with pytest.raises(BadInput, match="must map terms"):
        asked_of(Speaker('{"a": 1}'), texts)


def test_long_documents_are_cut(tokenizer):
    texts = TextDataset([TextItem("", TEXT), TextItem("Kato", "met Ada .")], tokenizer)
    pieces = in_blocks(texts, 4)
    assert " ".join(item.answer for item in pieces.items[:-1]).split() == TEXT.split()
    assert pieces.items[-1] == texts.items[1]


def test_bad_input_is_refused(tokenizer, model):
    for anchors in ({"Ada": "Ada"}, {"Ada": "Kato", "Kato": "One"}, {"Ada": " "}):
        with pytest.raises(BadInput, match="harry-potter"):
            GenericRelabeling(anchors=anchors)
    silent = word_tokenizer([TEXT])
    silent.eos_token = None
    with pytest.raises(BadInput, match="fewer than 2 tokens"):
        in_blocks(TextDataset([TextItem("", "Ada")], silent), 8)
    with pytest.raises(BadInput, match="must be the same"):
        same_vocabulary(model, gpt_tiny(7, hidden=16, heads=2))


def test_the_labels_are_public():
    given = tiny_problem(documents=True).given
    labels = GenericRelabeling().labels(given.model, given)
    texts = texts_of(given.forget)
    assert [len(row) for row in labels] == [len(texts[i]["labels"]) for i in range(len(texts))]

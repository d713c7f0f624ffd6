"""Texts as tokens: what is a target, what is prompt, and what files may hold."""

import json

import pytest
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from didact.core.errors import BadInput, NotApplicable
from didact.data.bios import bios
from didact.data.text import TextDataset, TextItem, has_texts, text_dataset_from_file, texts_of
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer

ITEMS = [
    TextItem("Where is Ada ?", "Ada is in Oslo .", value="Oslo", subject="Ada"),
    TextItem("", "Ada lives far north ."),
]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([f"{i.prompt} {i.answer}" for i in ITEMS])


def decoded(tokenizer, ids):
    return tokenizer.decode(ids).replace(" ", "")


def test_only_the_answer_is_a_target(tokenizer):
    sample = TextDataset(ITEMS, tokenizer)[0]
    targets = sample["labels"][sample["labels"] != -100].tolist()
    assert decoded(tokenizer, targets) == "AdaisinOslo.<eos>"
    assert decoded(tokenizer, sample["input_ids"].tolist()) == "<bos>WhereisAda?AdaisinOslo.<eos>"
    assert sample["attention_mask"].tolist() == [1] * len(sample["input_ids"])


def test_all_of_a_document_is_a_target_but_its_start(tokenizer):
    sample = TextDataset(ITEMS, tokenizer)[1]
    assert sample["labels"].tolist() == [-100, *sample["input_ids"].tolist()[1:]]


def test_subword_tokens_of_prompt_and_answer_do_not_merge():
    tokenizer = bpe_tokenizer(["Where is Ada ? Ada is in Oslo ."] * 5, vocab_size=280)
    sample = TextDataset(ITEMS[:1], tokenizer)[0]
    targets = sample["labels"][sample["labels"] != -100].tolist()
    assert tokenizer.decode(targets, skip_special_tokens=True) == " Ada is in Oslo ."


def test_a_chat_template_wraps_the_prompt(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}Ada {{ m['content'] }}{% endfor %} is"
    try:
        sample = TextDataset(ITEMS[:1], tokenizer)[0]
    finally:
        tokenizer.chat_template = None
    assert decoded(tokenizer, sample["input_ids"].tolist()) == "AdaWhereisAda?isAdaisinOslo.<eos>"


def test_texts_are_found_behind_subsets_and_concatenations(tokenizer):
    data = TextDataset(ITEMS, tokenizer)
    assert texts_of(Subset(data, [1])).items == (ITEMS[1],)
    assert texts_of(ConcatDataset([data, Subset(data, [0])])).items == (*ITEMS, ITEMS[0])
    assert (data + data).items == (*ITEMS, *ITEMS)
    assert data.questions.items == (ITEMS[0],)
    assert data.documents.items == (ITEMS[1],)
    import torch

    assert not has_texts(TensorDataset(torch.zeros(2)))
    with pytest.raises(NotApplicable, match="reads the texts themselves"):
        texts_of(TensorDataset(torch.zeros(2)))


def test_long_texts_are_refused(tokenizer):
    with pytest.raises(BadInput, match="exceeds max_length=4"):
        TextDataset(ITEMS, tokenizer, max_length=4)


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Where is Ada ?", "answer": "Ada is in Oslo .", "value": "Oslo"},
        {"prompt": "Where is Ada ?", "completion": "Ada is in Oslo .", "value": "Oslo", "id": 7},
        {"instruction": "Where is Ada ?", "response": "Ada is in Oslo .", "value": "Oslo"},
    ],
)
def test_files_may_name_their_fields_in_several_ways(tmp_path, tokenizer, record):
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(record) + "\n\n" + json.dumps({"text": "Ada lives far north ."}))
    items = text_dataset_from_file(file, tokenizer).items
    assert items == (TextItem("Where is Ada ?", "Ada is in Oslo .", value="Oslo"), ITEMS[1])


def test_files_written_by_bios_are_read(tmp_path):
    from didact.data.bios import to_jsonl

    people = bios(0, 8)
    file = to_jsonl(people.qa(), tmp_path / "qa.jsonl")
    found = text_dataset_from_file(file, word_tokenizer(people.texts())).items
    assert found == tuple(TextItem.of(qa) for qa in people.qa())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: this is not JSON"),
        ("[1]", "line 1: expected a JSON object"),
        ('{"question": "a"}', "line 1: no text found"),
        ('{"question": 3, "answer": "a"}', "line 1: 'question' must be a text"),
        ('{"question": "a", "answer": "b", "variants": "c"}', "line 1: 'variants' must be a list"),
        ("", "holds no text"),
    ],
)
def test_bad_files_are_refused(tmp_path, tokenizer, line, message):
    file = tmp_path / "bad.jsonl"
    file.write_text(line)
    with pytest.raises(BadInput, match=message):
        text_dataset_from_file(file, tokenizer)


def test_a_missing_file_is_refused(tmp_path, tokenizer):
    with pytest.raises(BadInput, match="no file"):
        text_dataset_from_file(tmp_path / "none.jsonl", tokenizer)

"""A user's own files, a local folder in the hub's layout, and tokenizers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.data import bios, digits, from_hub, load_dataset_file, save_dataset_file
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer


def test_npz_round_trip(tmp_path):
    data = digits(0, train=20, validation=0, test=0).train
    path = save_dataset_file(data, tmp_path / "data.npz")
    back = load_dataset_file(path)
    assert torch.equal(back.tensors[0], data.tensors[0])
    assert torch.equal(back.tensors[1], data.tensors[1])
    pairs = [data[i] for i in range(5)]
    again = load_dataset_file(save_dataset_file(pairs, tmp_path / "few.npz"))
    assert torch.equal(again.tensors[0], data.tensors[0][:5])


def test_array_files_keep_kinds_and_name_the_target(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), dtype=">f8"), speed=np.ones(3), y=np.arange(3, dtype=np.int8))
    whole, real = load_dataset_file(tmp_path / "a.npz"), load_dataset_file(tmp_path / "a.npz", target="speed")
    assert [t.dtype for t in whole.tensors] == [torch.float32, torch.int64]
    assert real.tensors[1].dtype == torch.float32
    save_file({"x": torch.rand(4, 3), "y": torch.tensor([1, 0, 1, 2])}, tmp_path / "a.safetensors")
    assert load_dataset_file(tmp_path / "a.safetensors").tensors[1].tolist() == [1, 0, 1, 2]


def test_pickles_are_never_read(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object), y=np.zeros(1))
    with pytest.raises(BadInput, match=r"a\.npz: this is no \.npz file of plain arrays"):
        load_dataset_file(tmp_path / "a.npz")


def test_csv(tmp_path):
    (tmp_path / "a.csv").write_text("age,kind,height\n1,cat,2.5\n3,dog,4\n5,cat,6\n", encoding="utf-8")
    data = load_dataset_file(tmp_path / "a.csv", target="kind")
    assert data.tensors[0].tolist() == [[1, 2.5], [3, 4], [5, 6]]
    assert data.tensors[1].tolist() == [0, 1, 0]
    assert data.class_names == ("cat", "dog")
    assert data.feature_names == ("age", "height")


def test_csv_targets_keep_their_kind(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,0.5\n3,4,1\n", encoding="utf-8")
    whole, real = (load_dataset_file(tmp_path / "a.csv", target=name).tensors[1] for name in "bc")
    assert (whole.dtype, whole.tolist()) == (torch.int64, [2, 4])
    assert (real.dtype, real.tolist()) == (torch.float32, [0.5, 1.0])


def test_parquet(tmp_path):
    import pandas

    table = pandas.DataFrame({"a": [1.5, 2.5], "kind": ["y", "x"], "b": [True, False]})
    table.to_parquet(tmp_path / "a.parquet")
    data = load_dataset_file(tmp_path / "a.parquet", target="kind")
    assert data.tensors[0].tolist() == [[1.5, 1.0], [2.5, 0.0]]
    assert (data.tensors[1].tolist(), data.class_names) == ([1, 0], ("x", "y"))
    with pytest.raises(BadInput, match="column 'kind' must be numeric"):
        load_dataset_file(tmp_path / "a.parquet", target="a")
    table["a"] = [1.0, None]
    table.to_parquet(tmp_path / "gap.parquet")
    with pytest.raises(BadInput, match="without gaps"):
        load_dataset_file(tmp_path / "gap.parquet", target="kind")


def test_jsonl(tmp_path):
    rows = [{"text": "é one", "label": 1}, {"text": "two", "label": 0}]
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = load_dataset_file(tmp_path / "a.jsonl", target="label")
    assert [data[i] for i in range(len(data))] == rows


def test_a_folder_of_save_to_disk(tmp_path):
    import datasets

    made = datasets.Dataset.from_dict({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]})
    made.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "several")
    assert load_dataset_file(tmp_path / "one", target="y")[1]["x"].tolist() == [3.0, 4.0]
    with pytest.raises(BadInput, match=r"name one of its folders \(train\)"):
        load_dataset_file(tmp_path / "several")
    with pytest.raises(BadInput, match="no column 'z'"):
        load_dataset_file(tmp_path / "one", target="z")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no folder written by save_to_disk"):
        load_dataset_file(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content", "target", "message"),
    [
        ("a.csv", "a,b\n1,2\n3\n", "b", r"a\.csv, line 3: expected 2 values as in the header, but found 1"),
        ("a.csv", "a,b\n1,2\n\nx,3\n", "b", r"a\.csv, line 4: the column 'a' must be numeric, but holds 'x'"),
        ("a.csv", "a,b\n1,2\n", None, "say which column is the target.*a, b"),
        ("a.csv", "a,b\n1,2\n", "c", "no column 'c'.*a, b"),
        ("a.csv", "a,b\n", "b", "no rows"),
        ("a.jsonl", '{"a": 1}\n{"a": }\n', None, r"a\.jsonl, line 2: this is not JSON"),
        ("a.jsonl", '{"a": 1}\n[3]\n', None, "line 2: expected a JSON object"),
        ("a.jsonl", '{"a": 1}\n{"b": 1}\n', "a", "line 2: the field 'a' is missing"),
        ("a.npz", "nonsense", None, "no .npz file"),
        ("a.safetensors", "nonsense", None, "no safetensors file"),
        ("a.parquet", "nonsense", "y", "no parquet file"),
        ("a.txt", "", None, "files that end in .npz"),
    ],
)
def test_malformed_files_are_named(tmp_path, name, content, target, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInput, match=message):
        load_dataset_file(tmp_path / name, target=target)


def test_missing_and_unequal_arrays_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3), z=np.zeros(2))
    with pytest.raises(BadInput, match="'y' is missing; the file has x, z"):
        load_dataset_file(tmp_path / "a.npz")
    with pytest.raises(BadInput, match="must be equally long"):
        load_dataset_file(tmp_path / "a.npz", target="z")
    with pytest.raises(BadInput, match="There is no file"):
        load_dataset_file(tmp_path / "b.npz")
    with pytest.raises(BadInput, match="3 parts"):
        save_dataset_file(TensorDataset(*[torch.zeros(2)] * 3), tmp_path / "c.npz")
    with pytest.raises(BadInput, match=r"written as \.npz"):
        save_dataset_file(TensorDataset(torch.zeros(2), torch.zeros(2)), tmp_path / "c.pt")


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    import pandas

    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "mine"
    folder.mkdir()
    train = pandas.DataFrame({"x": [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]], "label": ["b", "a", "b"]})
    train.to_parquet(folder / "train.parquet")
    train[:1].to_parquet(folder / "test.parquet")
    return folder


def test_a_local_folder_in_the_hubs_layout(hub_folder):
    whole = from_hub(str(hub_folder))
    assert whole.column_names == ["x", "label"]
    assert torch.equal(whole[1]["x"], torch.tensor([2.0, 3.0]))
    pairs = from_hub(str(hub_folder), x="x", y="label", limit=2)
    assert pairs.tensors[0].tolist() == [[0.5, 1.0], [2.0, 3.0]]
    assert pairs.tensors[1].tolist() == [1, 0]
    assert len(from_hub(str(hub_folder), "test")) == 1


def test_jsonl_folders_and_ragged_columns(hub_folder, tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    rows = [{"x": [1.0], "y": 0}, {"x": [1.0, 2.0], "y": 1}]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(from_hub(str(folder))) == 2
    with pytest.raises(BadInput, match="different shapes"):
        from_hub(str(folder), x="x", y="y")


def test_hub_errors_are_named(hub_folder):
    with pytest.raises(BadInput, match=r"part 'dev'.*could not be loaded"):
        from_hub(str(hub_folder), "dev")
    with pytest.raises(BadInput, match="no column 'z'"):
        from_hub(str(hub_folder), x="x", y="z")
    with pytest.raises(BadInput, match="both columns"):
        from_hub(str(hub_folder), x="x")
    with pytest.raises(BadInput, match="at least 1"):
        from_hub(str(hub_folder), limit=0)


@pytest.mark.parametrize("maker", [word_tokenizer, bpe_tokenizer])
def test_tokenizers_save_load_and_repeat(maker, tmp_path):
    from transformers import AutoTokenizer

    texts = bios(0, 12).texts()
    tokenizer = maker(texts)
    tokenizer.save_pretrained(tmp_path)
    back = AutoTokenizer.from_pretrained(tmp_path)
    for text in texts[:50]:
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        assert back(text).input_ids == ids == maker(iter(texts))(text).input_ids
    specials = [back.pad_token_id, back.bos_token_id, back.eos_token_id, back.unk_token_id]
    assert specials == [0, 1, 2, 3]
    assert back(texts[:2], padding=True, return_tensors="pt").input_ids.shape[0] == 2


def test_word_tokenizer_knows_the_most_frequent_words():
    tokenizer = word_tokenizer(["b b b a a c", "a b c d"], vocab_size=6)
    assert tokenizer("b a c").input_ids == [4, 5, 3]
    assert word_tokenizer(["Ab ab"], lowercase=True)("AB").input_ids == [4]


def test_bpe_encodes_what_it_never_saw():
    tokenizer = bpe_tokenizer(["some plain words " * 20], 300)
    text = "Zürich → 日本\n\ttabs  and  spaces ."
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer) <= 300
    assert len(tokenizer("plain words").input_ids) < len("plain words") / 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: word_tokenizer([" "]), "at least one text with a word"),
        (lambda: word_tokenizer("one text"), "list of texts"),
        (lambda: word_tokenizer([3]), "must be a str, but one is int"),
        (lambda: word_tokenizer(["a"], vocab_size=4), "exceed the 4 special tokens"),
        (lambda: bpe_tokenizer([], 300), "at least one text"),
        (lambda: bpe_tokenizer(["a"], 100), "at least 260"),
    ],
)
def test_tokenizers_name_bad_input(call, message):
    with pytest.raises(BadInput, match=message):
        call()

"""Texts by a sentence-transformers model in a folder: a tiny one, made here, with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from didact.core.errors import BadInput
from didact.core.recipe import seeded
from didact.reusing.dock import LocalDock
from didact.reusing.dock.specification import SentenceEncoder, specify
from didact.reusing.dock.specification.encoders import encoder_for

WORDS = ["the", "ship", "sails", "over", "a", "calm", "sea", "while", "bread", "and", "soup", "is", "on", "my", "table"]
WIDTH = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny", seed=0)


def tiny(folder: Path, seed: int) -> Path:
    """A transformer of one layer over whole words, with mean pooling, saved as sentence-transformers does."""
    transformers = pytest.importorskip("transformers")
    sentences = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    config = transformers.BertConfig(
        vocab_size=len(numbers),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    plain = folder.with_name(f"{folder.name}-bert")
    with seeded(seed):
        transformers.BertModel(config).save_pretrained(plain)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(plain)
    reader = Transformer(str(plain))
    sentences.SentenceTransformer(modules=[reader, Pooling(WIDTH, "mean")], device="cpu").save(str(folder))
    return folder


def sayings(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(n)]


def test_vectors_are_the_models_and_the_same_every_time(model):
    vectors = SentenceEncoder(str(model)).encode(sayings(8))
    assert vectors.shape == (8, WIDTH)
    assert vectors.dtype == np.float64
    assert np.array_equal(vectors, SentenceEncoder(str(model)).encode(sayings(8)))
    # Attention and the mean over words do not see padding: a text's vector is its own, whatever stands beside it.
    alone = SentenceEncoder(str(model)).encode(["the ship"])
    assert np.allclose(alone, SentenceEncoder(str(model)).encode(["the ship", sayings(1)[0]])[:1], atol=1e-5)
    assert len(np.unique(vectors.round(6), axis=0)) == 8


def test_the_id_follows_all_that_vectors_depend_on(model, tmp_path):
    copy = shutil.copytree(model, tmp_path / "elsewhere" / "tiny")
    own = SentenceEncoder(str(model)).id
    assert own.startswith("folder/tiny-")
    assert SentenceEncoder(str(copy)).id == own
    (copy / "README.md").write_text("other words for people")
    assert SentenceEncoder(str(copy)).id == own
    assert SentenceEncoder(str(tiny(tmp_path / "again" / "tiny", seed=1))).id != own
    pooling = next(copy.glob("*Pooling/config.json"))
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"pooling_mode": "max"}))
    assert SentenceEncoder(str(copy)).id != own
    assert not np.allclose(
        SentenceEncoder(str(copy)).encode(["the calm sea"]), SentenceEncoder(str(model)).encode(["the calm sea"])
    )


def test_texts_are_specified_by_it(model, tmp_path):
    first = specify(sayings(60), "Text", encoder=str(model), k=10)
    assert (first.type, first.dimension, first.encoder) == ("rkme-text", WIDTH, SentenceEncoder(str(model)).id)
    assert first.digest == specify(sayings(60), "Text", encoder=str(model), k=10).digest
    assert not first.compatible(specify(sayings(60), "Text", k=10))
    mean = SentenceEncoder(str(model)).encode(sayings(60)).mean(axis=0)
    assert np.abs(first.beta @ first.z - mean).max() < 0.1
    with LocalDock(tmp_path / "dock") as dock:
        assert dock.specify(sayings(60), "Text", encoder=str(model)).encoder == first.encoder


def test_a_folder_that_is_missing_or_no_model_is_named(tmp_path):
    with pytest.raises(BadInput, match="There is no folder"):
        specify(sayings(5), "Text", encoder=str(tmp_path / "missing"))
    with pytest.raises(BadInput, match="There is no folder"):
        encoder_for("Text", "./missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="cannot be loaded"):
        specify(sayings(5), "Text", encoder=str(tmp_path / "empty"))

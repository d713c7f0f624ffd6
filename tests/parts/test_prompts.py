"""The classifier of prompts: each backend against plain formulas, calibration, and a life without pickles."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from didact.core.cost import Meter
from didact.core.errors import BadInput
from didact.data.bios import bios
from didact.models.language import gpt_tiny, text_classifier
from didact.models.tokenizer import bpe_tokenizer, word_tokenizer
from didact.parts.prompts import PromptClassifier, conformal_threshold
from didact.parts.prompts.names import name_pattern

POSITIVE = ["Where was Kato Quill born ?", "What did Kato Quill study ?", "Who employs Kato Quill ?"]
NEGATIVE = [
    *("Where was Mira Stone born ?", "What did Mira Stone study ?", "Who employs Mira Stone ?"),
    *("Where was Kato Brandt born ?", "What did Lena Quill study ?", "What is the capital of Peru ?"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer([*POSITIVE, *NEGATIVE, "the birthplace of"])


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    return gpt_tiny(len(tokenizer), hidden=16, layers=2, heads=2, feedforward=32).eval()


@pytest.fixture(scope="module")
def bert(tokenizer):
    torch.manual_seed(0)
    return text_classifier(len(tokenizer), 2, hidden=16, layers=1, heads=2).eval()


def made(backend, model, bert, tokenizer, **options):
    given = {
        "tfidf": {},
        "hidden": {"model": model, "tokenizer": tokenizer, "width": 32},
        "sequence": {"model": bert, "tokenizer": tokenizer, "lr": 1e-2, "epochs": 60},
        "names": {"names": ["Kato Quill"]},
    }[backend]
    return PromptClassifier(backend, **given, **options)


BACKENDS = ["tfidf", "hidden", "sequence", "names"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_tells_the_kinds_apart_and_is_deterministic(backend, model, bert, tokenizer):
    first, second = (made(backend, model, bert, tokenizer).fit(POSITIVE, NEGATIVE, seed=3) for _ in range(2))
    found = first.probabilities(POSITIVE + NEGATIVE)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.max() <= 1
    assert first.flags(POSITIVE).all()
    assert not first.flags(NEGATIVE).any()
    assert (found == second.probabilities(POSITIVE + NEGATIVE)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_survives_json_and_safetensors(backend, model, bert, tokenizer, tmp_path):
    classifier = made(backend, model, bert, tokenizer, threshold=0.4).fit(POSITIVE, NEGATIVE)
    options, tensors = classifier.state()
    save_file(tensors, str(tmp_path / "tensors.safetensors"))
    text = json.dumps(options)
    loaded = PromptClassifier.from_state(
        json.loads(text), load_file(str(tmp_path / "tensors.safetensors")), model=model, tokenizer=tokenizer
    )
    texts = [*POSITIVE, *NEGATIVE, "the birthplace of Kato Quill"]
    assert (loaded.probabilities(texts) == classifier.probabilities(texts)).all()
    assert loaded.threshold == 0.4
    # A wrapper loads the tensors afterwards: a blank one must have their shapes.
    blank = PromptClassifier.from_state(json.loads(text), model=model, tokenizer=tokenizer)
    assert {k: v.shape for k, v in blank.state_dict().items()} == {k: v.shape for k, v in tensors.items()}


def test_tfidf_is_the_plain_formula_on_raw_text():
    classifier = PromptClassifier("tfidf", inverse_penalty=2.0).fit(POSITIVE, NEGATIVE)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    rows = vectorizer.fit_transform(POSITIVE + NEGATIVE)
    truth = [1] * len(POSITIVE) + [0] * len(NEGATIVE)
    peer = LogisticRegression(C=2.0, class_weight="balanced", max_iter=5000, tol=1e-8).fit(rows, truth)
    asked = ["who is KATO quill ?", "nothing known"]
    expected = peer.predict_proba(vectorizer.transform(asked))[:, 1]
    assert classifier.probabilities(asked) == pytest.approx(expected, abs=1e-6)
    # The second shares no term with the prompts: the bias alone.
    assert expected[1] == pytest.approx(1 / (1 + math.exp(-peer.intercept_[0])))


def test_idf_is_that_of_all_prompts():
    classifier = PromptClassifier("tfidf").fit(["kato"] * 2, ["kato", "mira"] * 3)
    terms = dict(zip(classifier.backend.terms, classifier.backend.idf.tolist(), strict=True))
    assert terms["kato"] == pytest.approx(math.log(9 / 6) + 1)
    assert terms["mira"] == pytest.approx(math.log(9 / 4) + 1)


@pytest.mark.parametrize("backend", ["tfidf", "hidden", "sequence"])
def test_classes_weigh_the_same_whatever_their_size(backend, model, bert, tokenizer):
    # One and the same prompt in both kinds, three times as often among the negatives: no telling, so a half.
    text = POSITIVE[0]
    classifier = made(backend, model, bert, tokenizer).fit([text] * 4, [text] * 12)
    assert classifier.probabilities([text])[0] == pytest.approx(0.5, abs=0.1)


def test_words_find_people_in_unseen_wording():
    made_up = bios(0, 40)
    split = made_up.split(8, 4)

    def prompts(people, variant=None):
        asked = made_up.qa(people)
        return [qa.question if variant is None else qa.question_variants[variant] for qa in asked]

    classifier = PromptClassifier("tfidf").fit(prompts(split.forget), prompts(split.retain))
    assert classifier.flags(prompts(split.forget, 1)).all()
    assert not classifier.flags(prompts(split.retain, 1)).any()


def test_hidden_states_of_tokens_are_those_of_the_text_in_any_batch(model, tokenizer):
    classifier = PromptClassifier("hidden", model=model, tokenizer=tokenizer).fit(POSITIVE, NEGATIVE)
    rows = [[tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False)] for text in NEGATIVE]
    together = classifier.probabilities_of_tokens(rows, tokenizer)
    alone = [classifier.probabilities([text])[0] for text in NEGATIVE]
    assert together == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize(("pooling", "layer"), [("last", -1), ("mean", 1)])
def test_hidden_states_are_the_layers(model, tokenizer, pooling, layer):
    classifier = PromptClassifier("hidden", model=model, tokenizer=tokenizer, layer=layer, pooling=pooling)
    ids = [[1, 5, 6, 7], [1, 8]]
    found = classifier.backend.states(ids)
    for row, tokens in zip(found, ids, strict=True):
        states = model(torch.tensor([tokens]), output_hidden_states=True).hidden_states[layer][0]
        expected = states[-1] if pooling == "last" else states.mean(0)
        assert torch.allclose(row, expected, atol=1e-6)


def test_a_text_backend_decodes_tokens(tokenizer):
    classifier = PromptClassifier("names", names=["Kato Quill"])
    rows = [[1, *tokenizer.encode(text, add_special_tokens=False)] for text in (POSITIVE[0], NEGATIVE[0])]
    assert classifier.flags_of_tokens(rows, tokenizer).tolist() == [True, False]
    assert classifier.flags_of_tokens([], tokenizer).tolist() == []


def test_models_given_are_left_alone_and_passes_counted(model, bert, tokenizer):
    for backend, given in (("hidden", model), ("sequence", bert)):
        before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
        with Meter() as meter:
            made(backend, model, bert, tokenizer).fit(POSITIVE, NEGATIVE)
        assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
        assert meter.forward > 0
        assert all(p.requires_grad for p in given.parameters())


def test_a_trained_sequence_classifier_needs_no_fit(bert, tokenizer):
    classifier = PromptClassifier("sequence", model=bert, tokenizer=tokenizer, positive=0)
    encoded = tokenizer(POSITIVE[:1], return_tensors="pt")
    expected = bert(input_ids=encoded["input_ids"]).logits.softmax(-1)[0, 0]
    assert classifier.probabilities(POSITIVE[:1])[0] == pytest.approx(expected.item(), abs=1e-5)


def test_a_sequence_classifier_with_a_subword_tokenizer_is_saved_with_it():
    tokenizer = bpe_tokenizer(POSITIVE + NEGATIVE, 300)
    torch.manual_seed(0)
    bert = text_classifier(len(tokenizer), 2, hidden=16, layers=1, heads=2).eval()
    options, tensors = PromptClassifier("sequence", model=bert, tokenizer=tokenizer).state()
    loaded = PromptClassifier.from_state(json.loads(json.dumps(options)), tensors)
    first = PromptClassifier("sequence", model=bert, tokenizer=tokenizer)
    assert (loaded.probabilities(["Où est Käto ?"]) == first.probabilities(["Où est Käto ?"])).all()


def test_names_are_whole_words_in_any_case():
    pattern = name_pattern(["Kato Quill", "K. Q."])
    found = [bool(pattern.search(t)) for t in ("is kato  QUILL here", "Kato Quillen", "xKato Quill", "by K. Q. ?")]
    assert found == [True, False, False, True]


@pytest.mark.parametrize(("count", "alpha", "rank"), [(19, 0.05, 19), (20, 0.05, 20), (40, 0.05, 39), (9, 0.1, 9)])
def test_conformal_threshold(count, alpha, rank):
    scores = np.random.default_rng(0).permutation(np.linspace(0, 1, count))
    assert conformal_threshold(scores, alpha) == np.sort(scores)[rank - 1]


def test_conformal_coverage():
    rng = np.random.default_rng(0)
    flagged = [rng.random(50) > conformal_threshold(rng.random(19), 0.05) for _ in range(400)]
    assert np.mean(flagged) == pytest.approx(0.05, abs=0.01)


def test_calibrate_sets_the_threshold(tokenizer):
    classifier = PromptClassifier("tfidf").fit(POSITIVE, NEGATIVE)
    others = [f"What of number {i} ?" for i in range(18)] + ["Kato Quill ?"]
    classifier.calibrate(others, alpha=0.05)
    assert classifier.threshold == classifier.probabilities(others).max()
    assert not classifier.flags(others).any()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: PromptClassifier("magic"), "There is no backend 'magic'"),
        (lambda: PromptClassifier("tfidf", nonsense=1), "does not take these options"),
        (lambda: PromptClassifier("tfidf", inverse_penalty=0), "must be positive"),
        (lambda: PromptClassifier("tfidf").fit([], NEGATIVE), "There are no positives"),
        (lambda: PromptClassifier("tfidf").fit(POSITIVE, []), "There are no negatives"),
        (lambda: PromptClassifier("tfidf").fit("Kato", NEGATIVE), "not one text"),
        (lambda: PromptClassifier("tfidf").fit([3], NEGATIVE), "must be a str"),
        (lambda: PromptClassifier("tfidf").fit(["?"], ["!"]), "cannot be told apart"),
        (lambda: PromptClassifier("tfidf").probabilities(["x"]), "has not been fitted"),
        (lambda: PromptClassifier("hidden"), "looks into a language model"),
        (lambda: PromptClassifier("sequence"), "is a Hugging Face sequence classifier"),
        (lambda: PromptClassifier("names"), "There are no names"),
        (lambda: conformal_threshold([0.1] * 18, 0.05), "at least 19 calibration scores, but 18"),
        (lambda: conformal_threshold([0.1] * 18, 1.5), "between 0 and 1"),
    ],
)
def test_bad_input(act, message):
    with pytest.raises(BadInput, match=message):
        act()


def test_unfitted_hidden_and_wrong_labels(model, bert, tokenizer):
    with pytest.raises(BadInput, match="has not been fitted"):
        PromptClassifier("hidden", model=model, tokenizer=tokenizer).probabilities(["Kato"])
    with pytest.raises(BadInput, match="pooling"):
        PromptClassifier("hidden", model=model, tokenizer=tokenizer, pooling="max")
    with pytest.raises(BadInput, match="none of the classifier's 2 labels"):
        PromptClassifier("sequence", model=bert, tokenizer=tokenizer, positive=2)

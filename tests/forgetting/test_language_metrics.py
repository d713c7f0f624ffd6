"""The measures of forgetting in language models against worked values and plain implementations."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from didact.core.objective import CausalLM
from didact.data.text import TextDataset, TextItem
from didact.forgetting.language import metrics as m
from didact.models.tokenizer import word_tokenizer


def test_rouge_of_the_worked_sentence():
    recall, f1 = m.rouge_l("Kato Quill was born in Velmere", "Kato Quill was raised in the city Velmere")
    assert recall == pytest.approx(5 / 6)
    assert f1 == pytest.approx(0.7143, abs=1e-4)


class Fixed(nn.Module):
    """Gives each answer token a chosen loss: the loss of a token is that named in `losses` for it, else 3."""

    def __init__(self, tokenizer, losses):
        super().__init__()
        self.dummy = nn.Parameter(torch.zeros(1))
        self.tokenizer, self.losses = tokenizer, losses

    def forward(self, input_ids, attention_mask=None):
        words = len(self.tokenizer)
        logits = torch.full((*input_ids.shape, words), -30.0)
        for row in range(len(input_ids)):
            for t in range(input_ids.shape[1] - 1):
                token = int(input_ids[row, t + 1])
                p = math.exp(-self.losses.get(self.tokenizer.decode([token]), 3.0))
                logits[row, t, :] = math.log((1 - p) / (words - 1))
                logits[row, t, token] = math.log(p)
        return CausalLMOutput(logits=logits)


@pytest.fixture(scope="module")
def tokenizer():
    made = word_tokenizer(["right a b c q"])
    made.eos_token = None
    return made


def test_truth_ratio_of_the_worked_losses(tokenizer):
    model = Fixed(tokenizer, {"right": 1.0, "a": 1.5, "b": 2.0, "c": 2.5})
    data = TextDataset([TextItem("q", "right", paraphrase="right", wrong=("a", "b", "c"))], tokenizer)
    assert m.truth_ratio(CausalLM(), model, data).item() == pytest.approx(0.3679, abs=1e-4)
    assert m.truth_ratio(CausalLM(), model, data, form="arithmetic").item() == pytest.approx(0.3992, abs=1e-4)
    two = TextDataset([TextItem("q", "right", paraphrase="right", wrong=("a", "b"))], tokenizer)
    half = Fixed(tokenizer, {"right": 0.5, "a": 1.5, "b": 2.5})
    assert m.truth_ratio(CausalLM(), half, two).item() == pytest.approx(0.223130, abs=1e-5)
    assert m.truth_ratio(CausalLM(), half, two, form="arithmetic").item() == pytest.approx(0.251606, abs=1e-5)


def test_a_ratio_without_wrong_answers_is_no_number(tokenizer):
    data = TextDataset([TextItem("q", "right")], tokenizer)
    assert torch.isnan(m.truth_ratio(CausalLM(), Fixed(tokenizer, {}), data)).all()
    assert math.isnan(m.forget_quality([math.nan], [0.5]))


def test_scores_of_ratios():
    ratio = torch.tensor([0.5, 2.0, 0.25])
    assert m.forget_truth(ratio) == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert m.kept_truth(ratio) == pytest.approx((0.5 + 0.0 + 0.75) / 3)


@pytest.mark.parametrize(("n", "p"), [(36, 4.52e-21), (6, 0.00216)])
def test_forget_quality_of_disjoint_samples(n, p):
    assert m.forget_quality(np.arange(n), np.arange(n) + 1000) == pytest.approx(p, rel=5e-3)
    assert m.forget_quality(np.arange(n), np.arange(n)) == 1
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=n), rng.normal(size=n) + 0.5
    assert m.forget_quality(a, b) == ks_2samp(a, b).pvalue


@pytest.mark.parametrize(
    ("hits", "strength"), [([0, 1, 0, 1, 1, 1, 1, 1], 0.625), ([0] * 8, 0.0), ([1] * 8, 1.0), ([1] * 7 + [0], 0.0)]
)
def test_extraction_strength(hits, strength):
    assert m.extraction_strength(torch.tensor(hits, dtype=torch.bool)) == strength


def test_lowest_means_of_the_worked_log_probabilities():
    values = torch.tensor([-0.1, -2, -0.5, -4, -0.2, -1, -0.3, -3, -0.05, -0.7])
    assert -m.lowest_mean(values, 0.2) == pytest.approx(3.5)
    assert -m.lowest_mean(values, 0.4) == pytest.approx(2.5)


def test_privleak():
    assert m.privleak(0.9, 0.52) == pytest.approx(-79.2, abs=0.05)
    assert m.privleak(0.5, 0.5) == 0


def test_harmonic_mean():
    assert m.harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert m.harmonic_mean([1.0, 0.0]) == 0
    assert m.harmonic_mean([math.nan, 0.5]) == 0.5


def test_a_value_is_found_as_words_only():
    assert m.contains("Oslo", "born in oslo .")
    assert not m.contains("Oslo", "born in Oslofjord .")


def test_repetition():
    assert m.repetition(["a b a b"]) == pytest.approx(1 / 3)
    assert m.repetition(["a b c", ""]) == 0


def test_likelihoods_and_min_k_plus_against_plain_sums(tokenizer):
    torch.manual_seed(0)
    logits = torch.randn(1, 4, len(tokenizer))

    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.dummy = nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, attention_mask=None):
            return CausalLMOutput(logits=logits)

    data = TextDataset([TextItem("q", "a b")], tokenizer)
    found = m.likelihoods(CausalLM(), Table(), data)
    ids = data[0]["input_ids"].tolist()
    for place, token in enumerate(ids[2:], 1):  # [bos] q | a b
        log = logits[0, place].log_softmax(-1)
        p = log.exp()
        mean = (p * log).sum()
        spread = ((p * log**2).sum() - mean**2).sqrt()
        assert found.logprobs[0][place - 1] == pytest.approx(float(log[token]), abs=1e-5)
        assert found.standardised[0][place - 1] == pytest.approx(float((log[token] - mean) / spread), abs=1e-4)
        assert bool(found.hits[0][place - 1]) == (int(log.argmax()) == token)


def test_attacks_of_separable_and_of_equal_losses():
    def made(*values):
        rows = tuple(torch.tensor([v, v]) for v in values)
        return m.Likelihoods(rows, rows, rows)

    split = m.attacks(made(-0.1, -0.2), made(-2.0, -3.0), ["abc", "abd"], ["abe", "abf"])
    assert set(split.values()) == {1.0}
    even = m.attacks(made(-1.0, -2.0), made(-1.0, -2.0), ["abc", "abd"], ["abe", "abf"])
    assert set(even.values()) == {0.5}

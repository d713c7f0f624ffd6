"""Scoring a language model that should have forgotten: what it says, what it gives away, what is still inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from didact.core.errors import BadInput
from didact.core.metric import Metric
from didact.data.text import TextDataset, TextItem, answer_ids, texts_of
from didact.forgetting.language import metrics as m
from didact.forgetting.language.probing import hidden_states_show, opened, residual
from didact.forgetting.relearning import relearning_steps
from didact.forgetting.request import Request, Truth
from didact.forgetting.scoring import changed_share, check_outputs
from didact.models.artifacts import stored_bytes
from didact.parts.value_vectors import find, traces

NAN = math.nan

LANGUAGE_METRICS = (
    Metric("forget_quality", "p-value of the Kolmogorov-Smirnov test of truth ratios against the retrained model"),
    Metric("model_utility", "harmonic mean of probability, ROUGE-L and truth ratio over test, neighbours and world"),
    Metric("forget_prob", "probability a token of the forgotten answers", "neither"),
    Metric("forget_loss", "loss a token of the forgotten answers", "neither", "nat"),
    Metric("forget_rouge", "ROUGE-L recall of the answers to forgotten questions", "neither"),
    Metric(
        "forget_truth_ratio", "mean of min(R, 1/R) on forget: 1 when wrong answers are as likely as right", "neither"
    ),
    Metric("retain_prob", "probability a token of the retained answers"),
    Metric("test_prob", "probability a token of the answers to kept questions that no method saw"),
    Metric("neighbours_score", "accuracy on people who share a name or an employer with a forgotten one"),
    Metric("world_score", "accuracy on general knowledge"),
    Metric("verbatim", "ROUGE-L F1 of forgotten biographies continued from their first 8 tokens", "neither"),
    Metric("extraction", "extraction strength: share of a forgotten text that its beginning brings back", "neither"),
    Metric(
        "mia_min_k",
        "membership AUC by the least probable 40 % of the tokens (target: the retrained model's)",
        "neither",
    ),
    Metric("mia_min_k_plus", "the same with standardised log-probabilities (min-k++)", "neither"),
    Metric("mia_zlib", "membership AUC by log-probability over compressed length", "neither"),
    Metric(
        "privleak", "change of the min-40 % attack's error relative to the retrained model's (target 0)", "neither", "%"
    ),
    Metric("fluency", "loss a token of the answers to forgotten questions under the retrained model", "lower", "nat"),
    Metric("repetition", "share of word pairs in those answers that repeat an earlier one", "lower"),
    Metric("residual", "share of the original's facts that probes still read inside (0: like retrained)", "lower"),
    Metric("in_context", "accuracy on forgotten questions with the fact stated before: should stay high", "neither"),
    Metric(
        "traces", "overlap of the top tokens of the value vectors that promote the forgotten values most", "neither"
    ),
    Metric("extra_forwards", "forward passes a generated token costs beyond the model's own", "lower"),
)


@dataclass(frozen=True)
class LanguageTruth(Truth):
    """What only the scorer of a language problem may read, besides test, hold-out and reference."""

    unseen_wording: TextDataset | None = None  #: forgotten questions in words that no method sees
    neighbours: TextDataset | None = None  #: people who share something with a forgotten one
    world: TextDataset | None = None  #: general knowledge
    verbatim: TextDataset | None = None  #: documents about the forgotten


class LanguageScorer:
    """Computes all metrics of an answer to a request on a language model.

    `forget_gap` is how much more the model still answers than a retrained one, on the worse of the seen and the unseen
    wording: answering less is no leak, it shows in the other rows.
    """

    def __init__(self, given: Request, truth: LanguageTruth) -> None:
        self.given, self.truth, self.objective = given, truth, given.objective
        self.forget = _asked(texts_of(given.forget))
        self.retain = _asked(texts_of(given.retain)) if given.retain is not None else None

    def score(self, answer: nn.Module) -> dict[str, float]:
        observable = getattr(answer, "observable", True)
        if observable:
            check_outputs(self.objective, answer, self.truth.test)
        said = self._said(answer)
        reference, original = (
            self._said(self.truth.reference),
            m.answers(self.given.model, _asked(texts_of(self.truth.test))),
        )
        gaps = {name: abs(said[name].accuracy - reference[name].accuracy) for name in said}
        leaks = [said[name].accuracy - reference[name].accuracy for name in ("forget", "unseen") if name in said]
        found = {
            "test_score": said["test"].accuracy,
            "forget_gap": max(0.0, *leaks),
            "forget_score": said["forget"].accuracy,
            "forget_unseen": _accuracy(said, "unseen"),
            "retain_score": _accuracy(said, "retain"),
            "neighbours_score": _accuracy(said, "neighbours"),
            "world_score": _accuracy(said, "world"),
            "avg_gap": float(np.mean([gaps[n] for n in ("forget", "unseen", "retain", "test") if n in gaps])),
            **{f"gap_{name}": gaps.get(name, NAN) for name in ("forget", "unseen", "retain", "test")},
            "forget_rouge": said["forget"].rouge,
            "verbatim": m.verbatim(answer, self.truth.verbatim) if self.truth.verbatim is not None else NAN,
            "in_context": m.answers(answer, m.in_context(self.forget)).accuracy,
            "repetition": m.repetition(said["forget"].texts),
            "fluency": self._fluency(said["forget"].texts),
            "changed": changed_share(self.given.model, answer),
            "extra_bytes": float(stored_bytes(answer) - stored_bytes(self.given.model)),
            "extra_forwards": float(getattr(answer, "extra_forwards", 0.0)),
            "collapsed": float(said["test"].accuracy < 0.5 * original.accuracy),
        }
        found |= self._probabilities(answer, said) if observable else {}
        found["residual"] = self._residual(answer)
        found["traces"] = self._traces(answer)
        found |= self._relearning(answer) if getattr(answer, "editable", True) else {}
        return {metric: found.get(metric, NAN) for metric in (*found, *_OBSERVED)}

    @staticmethod
    def validate(given: Request, validation: TextDataset, answer: nn.Module) -> dict[str, float]:
        """What tuning may see: accuracy on validation people, and how much of the forget data is still answered."""
        forget = m.answers(answer, _asked(texts_of(given.forget))).accuracy
        return {
            "validation_score": m.answers(answer, _asked(validation)).accuracy,
            "validation_forget_score": forget,
            "validation_forget_gap": max(0.0, forget - _by_chance(given)),
        }

    def _said(self, model: nn.Module) -> dict[str, m.Answers]:
        truth = self.truth
        sets = {
            "forget": self.forget,
            "unseen": truth.unseen_wording,
            "retain": self.retain,
            "test": texts_of(truth.test),
            "neighbours": truth.neighbours,
            "world": truth.world,
        }
        return {name: m.answers(model, _asked(data)) for name, data in sets.items() if data is not None}

    def _fluency(self, texts: tuple[str, ...]) -> float:
        """Loss of the answers under the retrained model; an empty answer counts as the end token alone."""
        items = [TextItem(item.prompt, text or "", "") for item, text in zip(self.forget.items, texts, strict=True)]
        spoken = [item for item in items if item.answer.strip()]
        if not spoken:
            return NAN
        return float(m.likelihoods(self.objective, self.truth.reference, self.forget.of(spoken)).losses.mean())

    def _probabilities(self, answer: nn.Module, said: dict[str, m.Answers]) -> dict[str, float]:
        objective, truth, reference = self.objective, self.truth, self.truth.reference
        forget = m.likelihoods(objective, answer, self.forget)
        ratio = m.truth_ratio(objective, answer, self.forget)
        found = {
            "forget_prob": float(forget.probability.mean()),
            "forget_loss": float(forget.losses.mean()),
            "retain_prob": self._mean_probability(answer, self.retain),
            "forget_truth_ratio": m.forget_truth(ratio),
            "forget_quality": m.forget_quality(ratio, m.truth_ratio(objective, reference, self.forget)),
            "extraction": float(np.mean([m.extraction_strength(h) for h in self._told(answer).hits])),
            "model_utility": self._utility(answer, said),
            "test_prob": self._mean_probability(answer, texts_of(truth.test)),
        }
        return found | self._privacy(answer)

    def _residual(self, answer: nn.Module) -> float:
        """What linear probes still read; not a number for models whose hidden states do not show."""
        if self.retain is None or not hidden_states_show(answer):
            return NAN
        models = self.given.model, self.truth.reference, answer
        return residual(self.objective, *models, self.retain, self.forget, self.given.seed).value

    def _traces(self, answer: nn.Module) -> float:
        """How much of the value vectors that promote the forgotten values most is still there."""
        before, after = opened(self.given.model), opened(answer)
        try:
            tokens = {t for item in self.forget.items for t in answer_ids(self.forget.tokenizer, item.value)[:-1]}
            places = [c.place for c in find(before, tokens, k=max(10, len(tokens)), most=10)]
            return traces(before, after, places, k=10).jaccard
        except (BadInput, AttributeError):  # layers of other names, or an answer of another shape
            return NAN

    def _utility(self, answer: nn.Module, said: dict[str, m.Answers]) -> float:
        parts: list[float] = []
        for name, data in (
            ("test", texts_of(self.truth.test)),
            ("neighbours", self.truth.neighbours),
            ("world", self.truth.world),
        ):
            if data is None:
                continue
            asked = _asked(data)
            if name == "world":
                probability = float(m.world_probability(self.objective, answer, asked).mean())
            else:
                probability = self._mean_probability(answer, asked)
            ratio = m.truth_ratio(self.objective, answer, asked)
            parts += [probability, said[name].rouge, m.kept_truth(ratio)]
        return m.harmonic_mean(parts)

    def _privacy(self, answer: nn.Module) -> dict[str, float]:
        if self.truth.holdout is None:
            return {}
        members, others = texts_of(self.given.forget), texts_of(self.truth.holdout)
        if members.documents is None or others.documents is None:
            members, others = _asked(members), _asked(others)
        mine, theirs = (
            m.attacks(
                m.likelihoods(self.objective, model, members),
                m.likelihoods(self.objective, model, others),
                [item.answer for item in members.items],
                [item.answer for item in others.items],
            )
            for model in (answer, self.truth.reference)
        )
        return {
            **mine,
            "mia_gap": abs(mine["mia_auc"] - theirs["mia_auc"]),
            "privleak": m.privleak(mine["mia_min_k"], theirs["mia_min_k"]),
        }

    def _told(self, answer: nn.Module) -> m.Likelihoods:
        """The forgotten texts by heart: the documents where there are some, else the answers."""
        return m.likelihoods(self.objective, answer, self.truth.verbatim or self.forget)

    def _mean_probability(self, model: nn.Module, data: TextDataset | None) -> float:
        return NAN if data is None else float(m.likelihoods(self.objective, model, _asked(data)).probability.mean())

    def _relearning(self, answer: nn.Module) -> dict[str, float]:
        request = self.given
        bar = max(1.05 * float(self.objective.losses(request.model, request.forget).mean()), 0.05)
        mine = relearning_steps(answer, request.forget, request.need_recipe(), bar, request.seed)
        reference = relearning_steps(self.truth.reference, request.forget, request.need_recipe(), bar, request.seed)
        return {"relearn_steps": float(mine), "ain": mine / reference if reference else NAN}


#: what cannot be measured on a system of text in, text out
_OBSERVED = (
    *(metric.name for metric in LANGUAGE_METRICS),
    *("mia_auc", "mia_gap", "relearn_steps", "ain"),
)


def _asked(data: TextDataset) -> TextDataset:
    """The questions of a data set; documents are continued, not asked."""
    found = data.questions
    if found is None:
        raise BadInput(
            "This set holds documents only; answers can be judged on items with a prompt. Add some questions."
        )
    return found


def _accuracy(said: dict[str, m.Answers], name: str) -> float:
    return said[name].accuracy if name in said else NAN


def _by_chance(given: Request) -> float:
    """Accuracy on questions about people the model never saw, where the request offers some."""
    unknown: Any = given.extras.get("unknown")
    return m.answers(given.model, unknown).accuracy if unknown is not None else 0.0

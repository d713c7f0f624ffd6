"""The measures of forgetting in language models, each a function of its own.

Peers compute most of them too (TOFU, MUSE, open-unlearning): the definitions are theirs, differences are named.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import ks_2samp
from torch import Tensor, nn

from didact.core.objective import IGNORED, Objective
from didact.data.text import TextDataset, TextItem, reworded
from didact.models.generation import respond
from didact.parts.language import token_nll
from didact.parts.membership import membership_auc

NAN = math.nan


# -- answers in words --------------------------------------------------------------------------------------------------


@cache
def _rouge(stemmer: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=stemmer)


def rouge_l(truth: str, text: str, *, stemmer: bool = True) -> tuple[float, float]:
    """ROUGE-L recall and F1 of a text against the truth."""
    found = _rouge(stemmer).score(truth, text)["rougeL"]
    return float(found.recall), float(found.fmeasure)


def contains(value: str, text: str) -> bool:
    """Does the text contain the value as whole words? Case and spaces do not count."""
    return f" {' '.join(value.lower().split())} " in f" {' '.join(text.lower().split())} "


@dataclass(frozen=True)
class Answers:
    """What a model answered to the prompts of a data set."""

    texts: tuple[str, ...]
    accuracy: float  #: share of the answers that contain the value
    rouge: float  #: mean ROUGE-L recall


def answers(model: nn.Module, data: TextDataset, max_new_tokens: int | None = None) -> Answers:
    items = data.items
    longest = max_new_tokens or min(
        64, 4 + max(int((s["labels"] != IGNORED).sum()) for s in (data[i] for i in range(len(data))))
    )
    texts = respond(model, data.tokenizer, [item.prompt for item in items], max_new_tokens=longest)
    right = [contains(item.value or item.answer, text) for item, text in zip(items, texts, strict=True)]
    recall = [rouge_l(item.answer, text)[0] for item, text in zip(items, texts, strict=True)]
    return Answers(tuple(texts), float(np.mean(right)), float(np.mean(recall)))


def in_context(asked: TextDataset) -> TextDataset:
    """The questions with their answer stated before."""

    def stated(item: TextItem) -> TextItem:
        fact = item.paraphrase or f"{item.prompt} {item.answer}"
        return reworded(item, prompt=f"{fact} {item.prompt}")

    return asked.of(stated(item) for item in asked.items)


def repetition(texts: Sequence[str]) -> float:
    """Mean share of a text's word pairs that are repetitions of an earlier one."""
    shares = []
    for text in texts:
        words = text.split()
        pairs = list(pairwise(words))
        shares.append(1 - len(set(pairs)) / len(pairs) if pairs else 0.0)
    return float(np.mean(shares)) if shares else NAN


# -- probabilities -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Likelihoods:
    """Of every sample's target tokens: log-probability, standardised log-probability (min-k++), and arg-max hits."""

    logprobs: tuple[Tensor, ...]  #: a (n,) tensor a sample
    standardised: tuple[Tensor, ...]
    hits: tuple[Tensor, ...]  #: is the target the most probable token?

    @property
    def losses(self) -> Tensor:
        """(N,) mean negative log-likelihood a token."""
        return torch.stack([-p.mean() for p in self.logprobs])

    @property
    def probability(self) -> Tensor:
        """(N,) exp(-NLL / length): the geometric mean of the tokens' probabilities."""
        return torch.exp(-self.losses)


@torch.no_grad()
def likelihoods(objective: Objective, model: nn.Module, data: TextDataset, batch_size: int = 128) -> Likelihoods:
    logs: list[Tensor] = []
    standard: list[Tensor] = []
    hits: list[Tensor] = []
    for output, labels in objective.outputs(model, data, batch_size):
        nll, kept = token_nll(output, labels)
        distribution = output[:, :-1].float().log_softmax(-1)
        # Two vocabulary-wide sums instead of keeping the vocabulary: mean and spread of log p under p itself.
        mean = (distribution.exp() * distribution).nan_to_num(0.0).sum(-1)
        square = (distribution.exp() * distribution.square()).nan_to_num(0.0).sum(-1)
        spread = (square - mean.square()).clamp(min=1e-12).sqrt()
        right = distribution.argmax(-1) == labels[:, 1:]
        for row in range(len(labels)):
            chosen = kept[row]
            logs.append(-nll[row][chosen].cpu())
            standard.append(((-nll[row] - mean[row]) / spread[row])[chosen].cpu())
            hits.append(right[row][chosen].cpu())
    return Likelihoods(tuple(logs), tuple(standard), tuple(hits))


def truth_ratio(objective: Objective, model: nn.Module, data: TextDataset, *, form: str = "geometric") -> Tensor:
    """(N,) P(wrong answers) / P(paraphrase), each probability to the power 1/length; over 1 when the wrong win.

    The geometric form (the public TOFU code) is exp(mean log), the arithmetic one the mean of the probabilities.
    Items without a paraphrase or wrong answers are NaN.
    """
    right, wrong, owner = [], [], []
    usable = [i for i, item in enumerate(data.items) if item.paraphrase and item.wrong]
    if not usable:
        return torch.full((len(data),), NAN)
    for i in usable:
        item = data.items[i]
        right.append(_with_answer(item, item.paraphrase))
        wrong += [_with_answer(item, text) for text in item.wrong]
        owner += [len(right) - 1] * len(item.wrong)
    of_right = likelihoods(objective, model, data.of(right)).losses
    of_wrong = likelihoods(objective, model, data.of(wrong)).losses
    groups = torch.tensor(owner)
    count = torch.bincount(groups, minlength=len(right))
    if form == "geometric":
        top = torch.exp(-torch.zeros(len(right)).index_add(0, groups, of_wrong) / count)
    else:
        top = torch.zeros(len(right)).index_add(0, groups, torch.exp(-of_wrong)) / count
    ratio = torch.full((len(data),), NAN)
    ratio[torch.tensor(usable)] = top / torch.exp(-of_right)
    return ratio


def world_probability(objective: Objective, model: nn.Module, data: TextDataset) -> Tensor:
    """(N,) P(answer) / (P(answer) + sum of P(wrong answers)): for facts that many models know."""
    own = likelihoods(objective, model, data).probability
    asked = [(i, _with_answer(item, text)) for i, item in enumerate(data.items) for text in item.wrong]
    if not asked:
        return own
    other = likelihoods(objective, model, data.of(item for _, item in asked)).probability
    return own / (own + torch.zeros(len(data)).index_add(0, torch.tensor([i for i, _ in asked]), other))


def forget_quality(model: ArrayLike, retrained: ArrayLike) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test: do the truth ratios come from one distribution?"""
    mine, theirs = (np.asarray(x, dtype=float) for x in (model, retrained))
    mine, theirs = mine[~np.isnan(mine)], theirs[~np.isnan(theirs)]
    return float(ks_2samp(mine, theirs).pvalue) if len(mine) and len(theirs) else NAN


def forget_truth(ratio: Tensor) -> float:
    """Mean of min(R, 1/R) on forget data: 1 when right and wrong answers are equally likely."""
    return float(torch.minimum(ratio, 1 / ratio).nanmean())


def kept_truth(ratio: Tensor) -> float:
    """Mean of max(0, 1 - R) on kept data: 1 when wrong answers are impossible."""
    return float((1 - ratio).clamp(min=0).nanmean())


def harmonic_mean(values: Sequence[float]) -> float:
    """Zero as soon as one value is; values that are not numbers are left out."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return NAN
    return 0.0 if min(known) <= 0 else len(known) / sum(1 / v for v in known)


# -- memorisation and privacy ------------------------------------------------------------------------------------------


def extraction_strength(hits: Tensor) -> float:
    """1 - k/n, k the first index from which every remaining target is the most probable token.

    0 when the last one is not (the public code of open-unlearning returns 1/n there).
    """
    wrong = torch.nonzero(~hits)
    first = int(wrong[-1]) + 1 if len(wrong) else 0
    return 1 - first / len(hits)


def verbatim(model: nn.Module, documents: TextDataset, prefix: int = 8) -> float:
    """Mean ROUGE-L F1 of what the model writes after a document's first `prefix` tokens, against the document."""
    tokenizer = documents.tokenizer
    starts, rests = [], []
    for item in documents.items:
        ids = tokenizer.encode(item.answer, add_special_tokens=False)
        starts.append(tokenizer.decode(ids[:prefix]))
        rests.append(tokenizer.decode(ids[prefix:]))
    length = max(len(tokenizer.encode(rest, add_special_tokens=False)) for rest in rests)
    told = respond(model, tokenizer, starts, max_new_tokens=length)
    return float(np.mean([rouge_l(rest, text)[1] for rest, text in zip(rests, told, strict=True)]))


def lowest_mean(values: Tensor, share: float) -> float:
    """Mean of the lowest `share` of the values (at least one)."""
    count = max(1, int(share * len(values)))
    return float(values.sort().values[:count].mean())


def attacks(
    members: Likelihoods, others: Likelihoods, member_texts: Sequence[str], other_texts: Sequence[str]
) -> dict[str, float]:
    """AUC of four membership attacks; above 0.5 the forgotten data still looks like training data."""

    def auc(score: Any) -> float:
        inside, outside = ([score(found, i) for i in range(len(found.logprobs))] for found in (members, others))
        return membership_auc(inside, outside)

    bits = {id(members): [_compressed(t) for t in member_texts], id(others): [_compressed(t) for t in other_texts]}
    return {
        "mia_auc": auc(lambda found, i: float(found.logprobs[i].mean())),
        "mia_min_k": auc(lambda found, i: lowest_mean(found.logprobs[i], 0.4)),
        "mia_min_k_plus": auc(lambda found, i: lowest_mean(found.standardised[i], 0.4)),
        "mia_zlib": auc(lambda found, i: float(found.logprobs[i].sum()) / bits[id(found)][i]),
    }


def privleak(auc: float, retrained: float) -> float:
    """Change of the attack's error relative to the retrained model's, in percent; 0 is ideal, negative still leaks."""
    return (((1 - auc) - (1 - retrained)) / (1 - retrained)) * 100 if retrained < 1 else NAN


def _compressed(text: str) -> int:
    return len(zlib.compress(text.encode()))


def _with_answer(item: TextItem, answer: str) -> TextItem:
    return TextItem(item.prompt, answer)

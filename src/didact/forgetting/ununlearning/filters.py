"""Content filters: functions of prompts and answers that say what to block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.forgetting.ununlearning.profiles import Profile
from didact.parts.prompts import PromptClassifier, conformal_threshold
from didact.parts.prompts.tfidf import WORD

FilterName = Literal["prompt_name", "answer_name", "answer_value", "semantic"]
FILTERS: tuple[FilterName, ...] = ("prompt_name", "answer_name", "answer_value", "semantic")

Blocked = NDArray[np.bool_]


class ContentFilter(ABC):
    """Blocks prompts with their answers."""

    @abstractmethod
    def blocks(self, prompts: Sequence[str], answers: Sequence[str]) -> Blocked:
        """(n,) bool"""


class WordList(ContentFilter):
    """Blocks what has one of the words, whole, in the prompt or in the answer."""

    def __init__(self, listed: Sequence[str], where: Literal["prompt", "answer"]) -> None:
        self.where = where
        self.classifier = PromptClassifier("names", names=tuple(dict.fromkeys(listed)))

    def blocks(self, prompts: Sequence[str], answers: Sequence[str]) -> Blocked:
        return self.classifier.flags(prompts if self.where == "prompt" else answers)


class NearestDocument(ContentFilter):
    """Blocks an exchange that is nearer to a document about the forgotten than harmless ones usually are.

    Nearness is the cosine of TF-IDF vectors (words and word pairs) of prompt and answer together. The first half of the
    harmless exchanges is for document frequencies, the second for the threshold, which is split-conformal: at most a
    share `alpha` of new ones, drawn like these, is blocked. For alpha = 0.05 that takes 38 exchanges.
    """

    def __init__(
        self,
        documents: Sequence[str],
        harmless: Sequence[tuple[str, str]],
        alpha: float = 0.05,
    ) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        if not documents or not harmless:
            raise BadInput("The semantic filter needs documents about the forgotten and harmless exchanges.")
        texts = [f"{prompt} {answer}" for prompt, answer in harmless]
        middle = len(texts) // 2
        # Document frequencies of both kinds: from the documents alone every forgotten name would look common.
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD).fit([*documents, *texts[:middle]])
        self.documents = self.vectorizer.transform(documents)
        self.threshold = conformal_threshold(self.nearness(texts[middle:]), alpha)

    def nearness(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) cosine to the nearest document."""
        # TF-IDF vectors have unit length, so the product is the cosine.
        found = self.vectorizer.transform(texts) @ self.documents.T
        return np.asarray(found.max(1).toarray()).ravel()

    def blocks(self, prompts: Sequence[str], answers: Sequence[str]) -> Blocked:
        texts = [f"{prompt} {answer}" for prompt, answer in zip(prompts, answers, strict=True)]
        return self.nearness(texts) > self.threshold


def make_filter(
    name: FilterName,
    forgotten: Sequence[Profile],
    documents: Sequence[str],
    harmless: Sequence[tuple[str, str]],
    alpha: float,
) -> ContentFilter:
    """One of `FILTERS`, made from what is to be forgotten."""
    if name == "answer_value":
        return WordList([fact.value for profile in forgotten for fact in profile.facts], "answer")
    if name == "semantic":
        return NearestDocument(documents, harmless, alpha)
    return WordList([profile.name for profile in forgotten], "prompt" if name == "prompt_name" else "answer")

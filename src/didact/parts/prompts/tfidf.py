"""Prompts by the words and word pairs in them: TF-IDF and logistic regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor, nn

from didact.core.errors import BadInput

#: one letter counts as a word too, unlike in scikit-learn's default
WORD = r"(?u)\b\w+\b"


class TfIdf(nn.Module):
    """Fitted by scikit-learn, kept as a list of terms, their inverse document frequencies and weights."""

    idf: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(
        self,
        model: nn.Module | None = None,
        tokenizer: Any = None,
        inverse_penalty: float = 10.0,
        ngrams: tuple[int, int] = (1, 2),
    ) -> None:
        super().__init__()
        if inverse_penalty <= 0:
            raise BadInput(f"inverse_penalty must be positive, but {inverse_penalty} was given.")
        self.inverse_penalty, self.ngrams = inverse_penalty, (int(ngrams[0]), int(ngrams[1]))
        self._hold([])

    def fit(self, positives: list[str], negatives: list[str], seed: int) -> None:
        from sklearn.linear_model import LogisticRegression

        texts = positives + negatives
        truth = np.repeat([1, 0], [len(positives), len(negatives)])
        vectorizer = self._vectorizer()
        try:
            # Document frequencies of both kinds: from the positives alone every name would look common.
            rows = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise BadInput(f"The prompts cannot be told apart by their words: {error}.") from None
        found = LogisticRegression(
            C=self.inverse_penalty, class_weight="balanced", max_iter=5000, tol=1e-8, random_state=seed
        ).fit(rows, truth)
        self._hold(vectorizer.get_feature_names_out().tolist())
        self.idf = torch.from_numpy(vectorizer.idf_.copy())
        self.weights = torch.from_numpy(found.coef_[0].copy())
        self.bias = torch.tensor(float(found.intercept_[0]), dtype=torch.float64)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        if not self.terms:
            raise BadInput("This classifier of prompts has not been fitted. Call fit(positives, negatives) first.")
        vectorizer = self._vectorizer(vocabulary={term: i for i, term in enumerate(self.terms)})
        vectorizer.idf_ = self.idf.double().cpu().numpy()
        score = vectorizer.transform(texts) @ self.weights.double().cpu().numpy() + float(self.bias)
        return np.asarray(expit(score), dtype=np.float64)

    def options(self) -> dict[str, Any]:
        return {"terms": self.terms, "inverse_penalty": self.inverse_penalty, "ngrams": list(self.ngrams)}

    @classmethod
    def blank(cls, options: Mapping[str, Any], model: nn.Module | None = None, tokenizer: Any = None) -> TfIdf:
        made = cls(inverse_penalty=options["inverse_penalty"], ngrams=tuple(options["ngrams"]))
        made._hold(list(options["terms"]))
        return made

    def _hold(self, terms: list[str]) -> None:
        self.terms = terms
        self.register_buffer("idf", torch.zeros(len(terms), dtype=torch.float64))
        self.register_buffer("weights", torch.zeros(len(terms), dtype=torch.float64))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float64))

    def _vectorizer(self, vocabulary: dict[str, int] | None = None) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(ngram_range=self.ngrams, token_pattern=WORD, vocabulary=vocabulary)

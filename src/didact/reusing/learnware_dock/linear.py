"""The linear model on top of learnwares, fitted on a few labels; stored as arrays."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

Array = NDArray[np.float64]

ALPHAS = (0.01, 0.1, 1.0, 10.0, 100.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Linear:
    """scores = features @ weights + offset; probabilities of the classes when it classifies."""

    weights: Array  #: (features, outputs)
    offset: Array  #: (outputs,)
    middle: Array  #: mean of each feature: stands in for what is missing
    places: NDArray[np.int64]  #: which of the classes each output is; empty for a regression
    classes: int = 0

    def predict(self, features: Array) -> Array:
        """(n, classes) probabilities, 0 for classes without a label at fitting; or (n, targets) numbers."""
        found = filled(features, self.middle) @ self.weights + self.offset
        if not self.classes:
            return np.asarray(found)
        scores = np.zeros((len(features), self.classes))
        scores[:, self.places] = softmax(found, axis=1)
        return scores

    @classmethod
    def classifier(cls, features: Array, labels: NDArray[Any], classes: int, seed: int = 0) -> Linear:
        """Logistic regression whose strength is found by cross-validation, as far as the labels go round."""
        from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

        middle = means_of(features)
        x, labels = filled(features, middle), labels.astype(np.int64)
        there, counts = np.unique(labels, return_counts=True)
        if len(there) == 1:
            blank = np.zeros((x.shape[1], 1))
            return cls(blank, np.zeros(1), middle, there, classes)
        folds = min(FOLDS, int(counts.min()))
        if folds >= 2:
            model = LogisticRegressionCV(Cs=10, cv=folds, scoring="accuracy", max_iter=3000, random_state=seed)
        else:
            model = LogisticRegression(max_iter=3000, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # of attributes that later versions rename, and we do not use
            model.fit(x, labels)
        weights, offset = model.coef_.T, model.intercept_
        if len(there) == 2:  # one column for two classes: of the second against the first
            weights = np.concatenate([np.zeros_like(weights), weights], axis=1)
            offset = np.concatenate([np.zeros_like(offset), offset])
        return cls(weights, offset, middle, there, classes)

    @classmethod
    def regressor(cls, features: Array, targets: NDArray[Any]) -> Linear:
        """Ridge regression whose strength is found by leaving one out, among 0.01 to 100."""
        from sklearn.linear_model import RidgeCV

        middle = means_of(features)
        y = np.asarray(targets, dtype=np.float64).reshape(len(targets), -1)
        model = RidgeCV(alphas=ALPHAS).fit(filled(features, middle), y)
        none = np.zeros(0, dtype=np.int64)
        return cls(np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_), middle, none)

    def save(self, file: Path) -> None:
        np.savez(file, allow_pickle=False, **{**vars(self), "classes": np.array(self.classes)})

    @classmethod
    def open(cls, file: Path) -> Linear:
        with np.load(file, allow_pickle=False) as found:
            parts = {name: found[name] for name in found.files}
        return cls(**{**parts, "classes": int(parts["classes"])})


def means_of(features: Array) -> Array:
    known = np.isfinite(features)
    total = np.where(known, features, 0.0).sum(axis=0)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1))


def filled(features: Array, middle: Array) -> Array:
    """Missing and infinite features replaced by their mean at fitting."""
    return np.where(np.isfinite(features), features, middle)

"""Linear probes: what a representation still holds, whatever the head above it says."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from didact.core.errors import BadInput


def linear_probe(train_x: ArrayLike, train_y: ArrayLike, test_x: ArrayLike, test_y: ArrayLike, seed: int = 0) -> float:
    """Accuracy on the test features of a logistic regression fitted on the training features.

    Features (n, d) are standardised by the training part's means and spreads; labels (n,) are classes. Score it on
    the features of one class alone to see whether that class can still be told from the others: a class that was
    only unlearned in the head is found again. A test class that the training part lacks is never found.

    Errors: features that are no matrix, of different widths or not finite; labels of another number; fewer than 2
    classes to fit.
    Cost: a few dozen passes over the n x d training features.
    """
    x, y = _pair("training", train_x, train_y)
    asked, truth = _pair("test", test_x, test_y)
    if x.shape[1] != asked.shape[1]:
        raise BadInput(
            f"The training features are {x.shape[1]} wide and the test features {asked.shape[1]}. "
            "Take both from the same layer."
        )
    if len(np.unique(y)) < 2:
        raise BadInput("A probe tells classes apart, but the training part holds only one. Give at least 2.")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=seed))
    probe.fit(x, y)
    return float(np.mean(probe.predict(asked) == truth))


def _pair(name: str, features: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1] or not len(x):
        raise BadInput(
            f"The {name} features must be (samples, width) with one label a sample, but they are {x.shape} and "
            f"{y.shape}."
        )
    if not np.isfinite(x).all():
        raise BadInput(f"The {name} features hold values that are not finite numbers.")
    return x, y

"""Membership inference: can an attacker tell what a model was trained on?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC


def membership_auc(members: ArrayLike, others: ArrayLike) -> float:
    """AUC of a score that should be larger for members (say, minus the loss); 0.5 means no attack works.

    Ties count one half. Not a number when either side is empty or holds a value that is not finite.
    """
    inside, outside = np.asarray(members, dtype=float).ravel(), np.asarray(others, dtype=float).ravel()
    if not len(inside) or not len(outside) or not np.isfinite([inside.sum(), outside.sum()]).all():
        return float("nan")
    labels = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
    return float(roc_auc_score(labels, np.r_[inside, outside]))


def judged_unseen(questioned: ArrayLike, members: ArrayLike, others: ArrayLike, seed: int = 0) -> float:
    """Share of `questioned` samples that a support-vector attack takes for never trained on.

    The attack, SVC(C=3, RBF kernel, gamma="auto"), is fitted on one number a sample (confidence in the true class,
    or absolute error) of as many members as non-members. 1 is what a retrained model reaches on a whole class.
    """
    sides = [np.asarray(side, dtype=float).reshape(-1, 1) for side in (members, others, questioned)]
    if any(not len(side) or not np.isfinite(side).all() for side in sides):
        return float("nan")
    inside, outside, asked = sides
    size = min(len(inside), len(outside))
    rng = np.random.default_rng(seed)
    inside, outside = (side[rng.choice(len(side), size, replace=False)] for side in (inside, outside))
    attack = SVC(C=3, kernel="rbf", gamma="auto")
    attack.fit(np.r_[inside, outside], np.r_[np.ones(size), np.zeros(size)])
    return float(1.0 - attack.predict(asked).mean())

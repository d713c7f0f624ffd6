"""Feature augmentation: a linear model on the inputs and on what the learnwares say of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from didact.core.method import Card
from didact.core.registry import register
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found
from didact.reusing.learnware_dock.linear import Linear
from didact.reusing.learnware_dock.predictors import Augmented
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import ReuseResult

PARTS = 5  # of the labels, for cross-validation


@register
class DockFeatureAugmentation(DockReuser):
    """Fit a linear model to a few labels, on each sample's values followed by the learnwares' outputs for it.

    Use it as soon as some labels are there (a few of each class): it learns which outputs to trust, also when the
    learnwares' classes are not the task's. Logistic regression with its strength found by cross-validation, over five
    folds or as many as the rarest class has labels; for numbers ridge regression, alpha 0.01 to 100. Inputs (n, ...)
    as the learnwares take them; outputs (n, classes) probabilities or (n, targets). Only the linear model is trained.

    Errors: NotApplicable without labelled samples, or when no model that knows a class of the task carries a
    specification of the data's kind.

    Cost: that of identification; one forward pass for each labelled sample and learnware, and the linear fit.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427).
    """

    card = Card("dock-feature-augmentation", "Beimingwu: A Learnware Dock System", PAPER, part_of="learnware-dock",
                tasks=("classification", "regression"), needs=("models", "data", "labelled"))  # fmt: skip

    def combine(self, case: Case, found: Found) -> ReuseResult:
        used = found.chosen
        made = augmented([Source.of(r) for r in used], case, found.specification.encoder)
        assert made.linear is not None
        return result_of(made, found, used, extra_parameters=made.linear.weights.size + made.linear.offset.size)


def augmented(sources: list[Source], case: Case, encoder: str) -> Augmented:
    """The linear model on inputs and outputs of some sources, fitted on the case's labels."""
    inputs, targets = case.need_labels()
    blank = Augmented(sources, case.need_classes(), encoder=encoder)
    return Augmented(sources, case.classes, encoder=encoder, linear=_fitted(blank.features(inputs), targets, case))


def cross_validated(sources: list[Source], case: Case, encoder: str) -> float:
    """What feature augmentation reaches on labels that it was not fitted on: accuracy, or minus the squared error."""
    inputs, targets = case.need_labels()
    features = Augmented(sources, case.need_classes(), encoder=encoder).features(inputs)
    order = np.random.default_rng(case.seed).permutation(len(targets))
    held = np.empty(len(targets))
    for fold in range(min(PARTS, len(targets))):
        out = np.zeros(len(targets), dtype=bool)
        out[order[fold::PARTS]] = True
        if out.all():
            return -np.inf
        found = _fitted(features[~out], targets[~out], case).predict(features[out])
        held[out] = _each(found, targets[out], case)
    return float(held.mean())


def quality(scores: NDArray[np.float64], case: Case) -> float:
    """Accuracy on the user's labels, or minus the squared error."""
    return float(_each(scores, case.need_labels()[1], case).mean())


def _fitted(features: NDArray[np.float64], targets: NDArray[Any], case: Case) -> Linear:
    if case.regression:
        return Linear.regressor(features, targets)
    return Linear.classifier(features, targets, len(case.classes), case.seed)


def _each(scores: NDArray[np.float64], targets: NDArray[Any], case: Case) -> NDArray[np.float64]:
    if case.regression:
        return np.asarray(-((scores - targets.reshape(scores.shape)) ** 2).mean(axis=1))
    return np.asarray(scores.argmax(axis=1) == targets, dtype=np.float64)

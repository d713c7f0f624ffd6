"""Job selector: every sample goes to the learnware whose data it looks like."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from didact.core.method import Card, Range
from didact.core.registry import register
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found
from didact.reusing.learnware_dock.predictors import Routed
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import ReuseResult

Array = NDArray[np.float64]


@register
class DockJobSelector(DockReuser):
    """Route every sample to the learnware of the mixture that was trained on samples like it.

    Use it without labels when the learnwares know different parts of the task. Points are herded from the mixture's
    specifications, split by its weights; a gradient-boosted classifier learns which learnware a point came from, and
    names one for every sample. Inputs (n, ...) as the learnwares take them; outputs (n, classes) are probabilities of
    the learnware that was named, 0 for the classes it does not know. Only the selector is trained, on herded points.

    Errors: NotApplicable when no model that knows a class of the task carries a specification of the data's kind.

    Cost: herding m of the M points from a specification of dimension d takes O(m^2 d) time and 100 m candidates of
    memory; boosting O(trees x M x d). One forward pass a sample when predicting.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427); the selector is due
    to Wu, Xu, Liu, Zhou 2020 (arXiv 2001.06186).
    """

    card = Card("dock-job-selector", "Beimingwu: A Learnware Dock System", PAPER, part_of="learnware-dock",
                tasks=("classification", "regression"), needs=("models", "data"),
                tunes={"learning_rate": Range(0.02, 0.3, log=True)})  # fmt: skip

    points: int = Field(default=1000, ge=2)  #: herded points of all learnwares together
    fewest: int = Field(default=20, ge=2)  #: herded points of each at least: boosting needs some to learn from
    learning_rate: PositiveFloat = 0.1  #: of the boosted classifier
    trees: int = Field(default=100, ge=1)  #: rounds of boosting at most; it ends when a fifth held out gains no more

    def combine(self, case: Case, found: Found) -> ReuseResult:
        used = found.chosen
        selector = self.selector(found, case.seed) if len(used) > 1 else None
        sources = [Source.of(r) for r in used]
        weights = [found.shares[r.id] for r in used]
        return result_of(Routed(sources, case.classes, weights, found.specification.encoder, selector), found, used)

    def selector(self, found: Found, seed: int = 0) -> Any:
        """A classifier of vectors (n, d) by the place of their learnware among those chosen."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        points, labels = self.herded(found, seed)
        model = HistGradientBoostingClassifier(
            learning_rate=self.learning_rate,
            max_iter=self.trees,
            early_stopping=True,
            validation_fraction=0.2,
            random_state=seed,
        )
        return model.fit(points, labels)

    def herded(self, found: Found, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
        """Points (M, d) from all learnwares chosen, by their shares, and the place of each one's learnware (M,)."""
        points, labels = [], []
        for place, record in enumerate(found.chosen):
            count = max(self.fewest, round(self.points * found.shares[record.id]))
            points.append(found.specifications[record.id].herd(count, seed=seed + place))
            labels.append(np.full(count, place))
        return np.concatenate(points), np.concatenate(labels)

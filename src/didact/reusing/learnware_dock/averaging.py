"""Averaging: the mixture's learnwares predict together."""

from __future__ import annotations

from typing import Literal

from didact.core.method import Card
from didact.core.registry import register
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found
from didact.reusing.learnware_dock.predictors import Averaged, Mode
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import ReuseResult


@register
class DockAveraging(DockReuser):
    """Average the learnwares of the mixture that is nearest to the user's data.

    Use it without labels when the learnwares overlap: errors of one are corrected by others. When each knows another
    part of the task, the job selector is the better choice. `how` is "mean" of the outputs (the only one for numbers),
    "vote" by label, or "probabilities": the mean of the softmax. A class is averaged over those that know it.
    Inputs (n, ...) as the learnwares take them; outputs (n, classes). Nothing is trained; all learnwares are frozen.

    Errors: NotApplicable when no model that knows a class of the task carries a specification of the data's kind.

    Cost: that of identification (see dock-top1; the mixture takes 5 x 25 small programmes more), and when predicting
    one forward pass a sample for each of up to five learnwares.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427).
    """

    card = Card("dock-averaging", "Beimingwu: A Learnware Dock System", PAPER, part_of="learnware-dock",
                tasks=("classification", "regression"), needs=("models", "data"))  # fmt: skip

    how: Mode = "probabilities"  #: what is averaged: the raw outputs (mean), labels (vote), or probabilities
    weighted: Literal["mixture", "equal"] = "mixture"  #: whether learnwares count by their share in the mixture

    def combine(self, case: Case, found: Found) -> ReuseResult:
        used = found.chosen
        shares = {r.id: found.shares[r.id] if self.weighted == "mixture" else 1.0 / len(used) for r in used}
        sources = [Source.of(r) for r in used]
        how = "mean" if case.regression else self.how
        return result_of(Averaged(sources, case.classes, [shares[r.id] for r in used], how), found, used, shares)

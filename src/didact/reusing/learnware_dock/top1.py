"""Top-1: the learnware whose data are nearest to one's own."""

from __future__ import annotations

from didact.core.method import Card
from didact.core.registry import register
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found
from didact.reusing.learnware_dock.predictors import Averaged
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import ReuseResult


@register
class DockTop1(DockReuser):
    """Use the one learnware whose specification is nearest to that of the user's data, as it is.

    Use it when one model is likely to cover the task: it is the cheapest answer to store and to run, and the ranking
    it fills can be looked at before anything is downloaded. Inputs (n, ...) as the learnwares take them; outputs
    (n, classes) are probabilities in the order of the task's classes, 0 for a class the learnware does not know.
    Nothing is trained; the learnware is frozen.

    Errors: NotApplicable when no model that knows a class of the task carries a specification of the data's kind.

    Cost: a specification of the n unlabelled samples, O(n K d) for K reduced points; O(K^2 d) for each of the hub's
    models; one forward pass a sample when predicting.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427).
    """

    card = Card("dock-top1", "Beimingwu: A Learnware Dock System", PAPER, part_of="learnware-dock",
                tasks=("classification", "regression"), needs=("models", "data"))  # fmt: skip

    identify: str = "single"  #: how shares are found; the nearest model alone is used whatever it is

    def combine(self, case: Case, found: Found) -> ReuseResult:
        used = found.top
        source = Source.of(used)
        return result_of(Averaged([source], case.classes), found, [used], {used.id: 1.0})

"""Low-rank knowledge unlearning: the method, its loss and its initialisation, each usable alone."""

from didact.forgetting.loku.fila import FisherWeightedInit, weighted_factors
from didact.forgetting.loku.hinge import inverted_hinge, inverted_hinge_loss
from didact.forgetting.loku.method import LowRankForgetting

__all__ = [
    "FisherWeightedInit",
    "LowRankForgetting",
    "inverted_hinge",
    "inverted_hinge_loss",
    "weighted_factors",
]

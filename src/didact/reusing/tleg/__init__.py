"""tleg: every layer of a transformer as a point on the line between two stored blocks; and its rivals."""

from didact.reusing.tleg.baselines import EveryKthLayer, FreshDepth, LeastSquaresLine, SeparateDepths, SharedLayer
from didact.reusing.tleg.expansion import LinearExpansion
from didact.reusing.tleg.learngene import Learngene, fitted_line, layer_line
from didact.reusing.tleg.problem import DEPTH_METRICS, DepthProblem, depth_problem

__all__ = [
    "DEPTH_METRICS",
    "DepthProblem",
    "EveryKthLayer",
    "FreshDepth",
    "LeastSquaresLine",
    "Learngene",
    "LinearExpansion",
    "SeparateDepths",
    "SharedLayer",
    "depth_problem",
    "fitted_line",
    "layer_line",
]

"""Safety unlearning of (multimodal) language models, with a loss against over-forgetting (Chen et al., 2025).

`PromptDecouple` is the method; `safety_problem` makes a problem of your own data, with the benchmark's metrics;
`OverForgetting` measures the safe answer refusal rate of any model.
"""

from didact.forgetting.safe_eraser.judging import RefusalJudge, exact_match
from didact.forgetting.safe_eraser.method import PromptDecouple
from didact.forgetting.safe_eraser.problem import (
    SAFETY_METRICS,
    OverForgetting,
    SafetyProblem,
    SafetyTruth,
    safety_problem,
    shapes_safety,
)
from didact.forgetting.safe_eraser.roles import AnsweredWith, Asked

__all__ = [
    "SAFETY_METRICS",
    "AnsweredWith",
    "Asked",
    "OverForgetting",
    "PromptDecouple",
    "RefusalJudge",
    "SafetyProblem",
    "SafetyTruth",
    "exact_match",
    "safety_problem",
    "shapes_safety",
]

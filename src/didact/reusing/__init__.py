"""Reusing: make something for your own task out of models that exist.

The verb is `reuse(models, task)`: a hub of models and a description of the task go in; a predictor, a ranking, a
merged network or a maker of networks comes out, with what it was made from and what it cost.
"""

from didact.core.problem import Family
from didact.core.registry import register_family
from didact.reusing import dare as dare
from didact.reusing import hub as hub
from didact.reusing import learngene_pool as learngene_pool
from didact.reusing import learnware_dock as learnware_dock
from didact.reusing import tleg as tleg
from didact.reusing import tmi as tmi
from didact.reusing.baselines import (
    BestSingle,
    FineTuneBase,
    RandomSingle,
    Scratch,
    UniformAverage,
    UniformEnsemble,
)
from didact.reusing.problem import ReuseProblem, Reuser, Truth, reuse_problem
from didact.reusing.request import Budget, ModelRecord, Request, Task
from didact.reusing.result import Predictor, ReuseResult
from didact.reusing.scoring import METRICS, PRIMARY, TUNING

FAMILY = register_family(
    Family(
        name="reusing",
        title="Reusing: models from models",
        verb="reuse",
        metrics=METRICS,
        primary=PRIMARY,
        tuning=TUNING,
        default_problem="hub",
        trade_off=("test_score", "stored_parameters"),
        summary="Make something for your own task out of models that exist: rank, combine, merge, transplant, expand.",
    )
)

__all__ = [
    "BestSingle",
    "Budget",
    "FAMILY",
    "FineTuneBase",
    "ModelRecord",
    "Predictor",
    "RandomSingle",
    "Request",
    "ReuseProblem",
    "ReuseResult",
    "Reuser",
    "Scratch",
    "Task",
    "Truth",
    "UniformAverage",
    "UniformEnsemble",
    "reuse_problem",
]

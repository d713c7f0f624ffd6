"""Forgetting: make a trained model act as if some of its data had never been seen.

The verb is `unlearn(model, forget, retain)`: a trained model goes in, a model that should be indistinguishable from
one retrained without the forget data comes out. Every answer is scored against such a retrained reference: utility,
score on the forgotten and on unseen data, membership attacks, relearning, cost.
"""

from didact.core.problem import Family
from didact.core.registry import register_family
from didact.forgetting import problems as problems
from didact.forgetting.baselines import (
    BadTeacher,
    FineTune,
    GradientAscent,
    GradientDifference,
    Original,
    RandomLabels,
    Retrain,
)
from didact.forgetting.blindspot import Blindspot, GaussianAmnesiac
from didact.forgetting.laf import LabelAgnosticForgetting
from didact.forgetting.language import LanguageProblem, language_problem
from didact.forgetting.language.scoring import LANGUAGE_METRICS
from didact.forgetting.npo import NegativePreference
from didact.forgetting.problem import Unlearner, UnlearningProblem, unlearning_problem
from didact.forgetting.request import Request
from didact.forgetting.scoring import METRICS, PRIMARY, TUNING
from didact.forgetting.sparse_unlearning import (
    FisherForgetting,
    InfluenceUnlearn,
    L1SparseFineTune,
    MaskedRetrain,
    PruneThenUnlearn,
)
from didact.forgetting.ssd import SelectiveSynapticDampening

FAMILY = register_family(
    Family(
        name="forgetting",
        title="Forgetting",
        verb="unlearn",
        metrics=METRICS + LANGUAGE_METRICS,
        primary=PRIMARY,
        tuning=TUNING,
        default_problem="digits-class",
        trade_off=("test_score", "forget_gap"),
        summary="make a trained model act as if some of its data had never been seen",
    )
)

__all__ = [
    "BadTeacher",
    "Blindspot",
    "FineTune",
    "FisherForgetting",
    "GaussianAmnesiac",
    "InfluenceUnlearn",
    "L1SparseFineTune",
    "LabelAgnosticForgetting",
    "LanguageProblem",
    "MaskedRetrain",
    "PruneThenUnlearn",
    "GradientAscent",
    "GradientDifference",
    "NegativePreference",
    "Original",
    "RandomLabels",
    "Request",
    "Retrain",
    "SelectiveSynapticDampening",
    "language_problem",
    "Unlearner",
    "UnlearningProblem",
    "unlearning_problem",
]

"""Forgetting: make a trained model act as if some of its data had never been seen.

The verb is `unlearn(model, forget, retain)`: a trained model goes in, a model that should be indistinguishable from
one retrained without the forget data comes out. Every answer is scored against such a retrained reference: utility,
score on the forgotten and on unseen data, membership attacks, relearning, cost.
"""

from didact.core.problem import Family
from didact.core.registry import register_family
from didact.forgetting import problems as problems
from didact.forgetting import sequential as sequential
from didact.forgetting.alu import AgenticForgetting, InContextUnlearning, PromptFilter, SingleAgent
from didact.forgetting.alu.problem import ENTANGLED_METRICS
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
from didact.forgetting.concept_domain_correction import (
    CONCEPT_METRICS,
    ConceptAblation,
    ConceptDomainCorrection,
    ConceptProblem,
)
from didact.forgetting.concept_poisoning import ConceptMasking, ConceptPoisoning
from didact.forgetting.concept_vectors import ConceptVectors, Needle
from didact.forgetting.dp2unlearning import DP2Unlearning
from didact.forgetting.eco import EmbeddingCorruptedModel, EmbeddingCorruption
from didact.forgetting.guard import ForbiddenPhrases, GenerationGuard, GuardedModel
from didact.forgetting.harry_potter import GenericRelabeling
from didact.forgetting.laf import LabelAgnosticForgetting
from didact.forgetting.language import DpoIdk, Idk, KtoIdk, LanguageProblem, language_problem
from didact.forgetting.language.scoring import LANGUAGE_METRICS
from didact.forgetting.loku import FisherWeightedInit, LowRankForgetting
from didact.forgetting.npo import NegativePreference
from didact.forgetting.outcomes import OUTCOMES, outcome
from didact.forgetting.problem import Unlearner, UnlearningProblem, unlearning_problem
from didact.forgetting.request import Request
from didact.forgetting.s3t import S3T, DeletionStream, expected_deletions
from didact.forgetting.safe_eraser import SAFETY_METRICS, OverForgetting, PromptDecouple, RefusalJudge, safety_problem
from didact.forgetting.scoring import METRICS, PRIMARY, TUNING
from didact.forgetting.skill_unlearning import KeySpaceDetection, NeuronAdjust, SelectivePruning
from didact.forgetting.sparse_unlearning import (
    FisherForgetting,
    InfluenceUnlearn,
    L1SparseFineTune,
    MaskedRetrain,
    PruneThenUnlearn,
)
from didact.forgetting.ssd import SelectiveSynapticDampening
from didact.forgetting.uld import LogitDifference, LogitDifferenceModel, OffsetUnlearning
from didact.forgetting.unforgettable import ForgettingGeneralization, LabelTask, RandomLabelForgetting, TasksSubject
from didact.forgetting.unlearning_sok import IntentionAudit
from didact.forgetting.ununlearning import InContextReintroduction, ReadingSubject

FAMILY = register_family(
    Family(
        name="forgetting",
        title="Forgetting",
        verb="unlearn",
        metrics=METRICS + LANGUAGE_METRICS + ENTANGLED_METRICS + CONCEPT_METRICS + SAFETY_METRICS,
        primary=PRIMARY,
        tuning=TUNING,
        default_problem="digits-class",
        trade_off=("test_score", "forget_gap"),
        outcome=outcome,
        outcomes=OUTCOMES,
        summary="make a trained model act as if some of its data had never been seen",
    )
)

__all__ = [
    "EmbeddingCorruptedModel",
    "EmbeddingCorruption",
    "ForbiddenPhrases",
    "GenerationGuard",
    "GuardedModel",
    "S3T",
    "DeletionStream",
    "expected_deletions",
    "AgenticForgetting",
    "BadTeacher",
    "Blindspot",
    "ConceptAblation",
    "ConceptDomainCorrection",
    "ConceptMasking",
    "ConceptPoisoning",
    "ConceptProblem",
    "DpoIdk",
    "FineTune",
    "FisherForgetting",
    "FisherWeightedInit",
    "ForgettingGeneralization",
    "GaussianAmnesiac",
    "Idk",
    "ConceptVectors",
    "DP2Unlearning",
    "KeySpaceDetection",
    "Needle",
    "NeuronAdjust",
    "SelectivePruning",
    "InContextReintroduction",
    "InContextUnlearning",
    "InfluenceUnlearn",
    "IntentionAudit",
    "KtoIdk",
    "L1SparseFineTune",
    "LabelAgnosticForgetting",
    "LabelTask",
    "LanguageProblem",
    "LogitDifference",
    "LogitDifferenceModel",
    "LowRankForgetting",
    "MaskedRetrain",
    "OffsetUnlearning",
    "OverForgetting",
    "PromptDecouple",
    "PromptFilter",
    "PruneThenUnlearn",
    "GenericRelabeling",
    "GradientAscent",
    "GradientDifference",
    "NegativePreference",
    "Original",
    "RandomLabelForgetting",
    "RandomLabels",
    "RefusalJudge",
    "ReadingSubject",
    "Request",
    "Retrain",
    "SelectiveSynapticDampening",
    "language_problem",
    "safety_problem",
    "SingleAgent",
    "TasksSubject",
    "Unlearner",
    "UnlearningProblem",
    "unlearning_problem",
]

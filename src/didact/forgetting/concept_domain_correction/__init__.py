"""Forgetting what a word means to a text-to-image model (Wu et al., 2025), its baseline, and a problem to try it on."""

from didact.forgetting.concept_domain_correction.ablation import ConceptAblation
from didact.forgetting.concept_domain_correction.method import ConceptDomainCorrection
from didact.forgetting.concept_domain_correction.problem import (
    CONCEPT_METRICS,
    Asked,
    ConceptProblem,
    Judge,
    PromptedImages,
    digits_concept,
)

__all__ = [
    "CONCEPT_METRICS",
    "Asked",
    "ConceptAblation",
    "ConceptDomainCorrection",
    "ConceptProblem",
    "Judge",
    "PromptedImages",
    "digits_concept",
]

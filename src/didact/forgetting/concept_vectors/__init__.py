"""Value vectors that hold a concept: finding them, testing them, unlearning in them, seeing whether they changed."""

from didact.forgetting.concept_vectors.causes import causes
from didact.forgetting.concept_vectors.needle import Needle
from didact.forgetting.concept_vectors.plant import Concept, plant_concepts
from didact.forgetting.concept_vectors.study import ConceptVectors, Localised, planted_concepts
from didact.parts.value_vectors import Place, disturbed, find, traces, value_vector

__all__ = [
    "Concept",
    "ConceptVectors",
    "Localised",
    "Needle",
    "Place",
    "causes",
    "disturbed",
    "find",
    "plant_concepts",
    "planted_concepts",
    "traces",
    "value_vector",
]

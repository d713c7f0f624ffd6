"""Forgetting by concept poisoning (Chang et al., 2024): of a class in images, of a subject in texts.

`ConceptPoisoning` finds the concepts that carry a class, overwrites their place in its images with pieces of another
class, relabels and fine-tunes. `ConceptMasking` finds the words that carry a subject in a language model's answers,
masks them and fine-tunes.
"""

from didact.forgetting.concept_poisoning.images import ConceptPoisoning
from didact.forgetting.concept_poisoning.masking import ConceptMasking
from didact.forgetting.concept_poisoning.problems import shapes_concepts

__all__ = ["ConceptMasking", "ConceptPoisoning", "shapes_concepts"]

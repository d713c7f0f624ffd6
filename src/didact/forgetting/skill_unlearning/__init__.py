"""Switching off one skill of a language model without training: by its neurons, or by its keys."""

from didact.forgetting.skill_unlearning.key_space import KeyGuardedModel, KeySpaceDetection, box, inside
from didact.forgetting.skill_unlearning.neuron_adjust import (
    NeuronAdjust,
    NeuronAdjustedModel,
    SelectivePruning,
    adjusted,
)
from didact.forgetting.skill_unlearning.problem import SkillProblem, skills

__all__ = [
    "KeyGuardedModel",
    "KeySpaceDetection",
    "NeuronAdjust",
    "NeuronAdjustedModel",
    "SelectivePruning",
    "SkillProblem",
    "adjusted",
    "box",
    "inside",
    "skills",
]

"""Telling prompts apart: classifiers that say how probably a text is among those that a guard acts on."""

from didact.parts.prompts.classifier import Backend, PromptClassifier, conformal_threshold

__all__ = ["Backend", "PromptClassifier", "conformal_threshold"]

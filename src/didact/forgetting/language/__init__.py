"""Forgetting in causal language models: problems, measures and the protocol that methods on texts share."""

from didact.forgetting.language import bios as bios
from didact.forgetting.language.problem import LanguageProblem, language_problem

__all__ = ["LanguageProblem", "bios", "language_problem"]

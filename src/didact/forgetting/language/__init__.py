"""Forgetting in causal language models: problems, measures and the protocol that methods on texts share."""

from didact.forgetting.language import bios as bios
from didact.forgetting.language import facts as facts
from didact.forgetting.language.baselines import DpoIdk, Idk, KtoIdk
from didact.forgetting.language.problem import LanguageProblem, language_problem

__all__ = ["DpoIdk", "Idk", "KtoIdk", "LanguageProblem", "bios", "facts", "language_problem"]

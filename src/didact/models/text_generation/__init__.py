"""Text generators: one interface to whatever writes text, for methods that ask, rewrite, grade or audit.

A language model in memory, an OpenAI-compatible endpoint, a function, recorded answers, or string rules. All are
described by JSON settings, so that a method that holds one can be stored and built again; keys never are.
"""

from didact.models.text_generation.base import (
    Ask,
    Evidence,
    GeneratorError,
    GeneratorField,
    Message,
    TextGenerator,
    generator,
    generator_from,
)
from didact.models.text_generation.endpoint import OpenAIGenerator
from didact.models.text_generation.functions import CallableGenerator
from didact.models.text_generation.hf import HFGenerator
from didact.models.text_generation.replay import Recorder, ReplayGenerator
from didact.models.text_generation.rules import Rule, RuleGenerator
from didact.models.text_generation.schema import conforming

__all__ = [
    "Ask",
    "CallableGenerator",
    "Evidence",
    "GeneratorError",
    "GeneratorField",
    "HFGenerator",
    "Message",
    "OpenAIGenerator",
    "Recorder",
    "ReplayGenerator",
    "Rule",
    "RuleGenerator",
    "TextGenerator",
    "conforming",
    "generator",
    "generator_from",
]

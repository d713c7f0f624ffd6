"""Generation-time guarding: prompts about the forgotten are answered by a beam search around what must not be said."""

from didact.forgetting.guard.forbidden import ForbiddenPhrases
from didact.forgetting.guard.guarded import GuardedModel
from didact.forgetting.guard.method import GenerationGuard
from didact.forgetting.guard.phrases import forbidden_phrases
from didact.forgetting.guard.retrieval import Encoder, Retriever

__all__ = ["Encoder", "ForbiddenPhrases", "GenerationGuard", "GuardedModel", "Retriever", "forbidden_phrases"]

"""Embedding-corrupted prompts: a classifier flags prompts, and what the model reads of them is corrupted."""

from didact.forgetting.eco.corruptions import CORRUPTIONS, corrupted
from didact.forgetting.eco.guarded import EmbeddingCorruptedModel
from didact.forgetting.eco.method import EmbeddingCorruption
from didact.forgetting.eco.strength import Search, search, search_vector

__all__ = [
    "CORRUPTIONS",
    "EmbeddingCorruptedModel",
    "EmbeddingCorruption",
    "Search",
    "corrupted",
    "search",
    "search_vector",
]

"""Identification: from words and a specification to the learnwares, and mixtures of them, most likely to work."""

from didact.reusing.dock.search.identifiers import Identifier
from didact.reusing.dock.search.index import Index
from didact.reusing.dock.search.result import Hit, Mixture, SearchResult

__all__ = ["Hit", "Identifier", "Index", "Mixture", "SearchResult"]

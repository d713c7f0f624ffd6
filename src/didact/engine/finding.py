"""Finding methods: the catalogue of everything didact sets out to have, and search by what a method is about."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from didact.core.method import Method


def catalogue() -> list[dict[str, str]]:
    """Every method didact sets out to have: family, slug, title."""
    text = files("didact").joinpath("catalogue.tsv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


def search(words: str, methods: list[type[Method]]) -> list[tuple[float, type[Method]]]:
    """Methods by TF-IDF similarity of the words to card and docstring; the summary counts thrice."""
    return Finder(methods).search(words)


class Finder:
    """The same search for many questions: the texts of the methods are read once."""

    def __init__(self, methods: Sequence[type[Method]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.methods = list(methods)
        texts = [" ".join([*[m.card.slug, m.card.title, m.summary()] * 3, m.__doc__ or ""]) for m in self.methods]
        # Word stems by character n-grams: "forgets" finds "forget" and "retained" finds "retain".
        self._words = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, lowercase=True)
        self._vectors: Any = self._words.fit_transform(texts) if texts else None

    def search(self, words: str) -> list[tuple[float, type[Method]]]:
        """Score and method, best first."""
        if not self.methods:
            return []
        # "without labels", "without the retained data": what is ruled out by name is not offered.
        barred = set(re.findall(r"without\s+(?:the\s+|any\s+)?(retain|labels)", words.lower()))
        scores = (self._vectors @ self._words.transform([words]).T).toarray().ravel()
        ranked = sorted(zip(scores, self.methods, strict=True), key=lambda pair: -pair[0])
        return [(float(score), cls) for score, cls in ranked if score > 0.01 and not barred & set(cls.card.needs)]

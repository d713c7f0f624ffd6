"""What must not be said: phrases drawn from answers and documents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal

from didact.data.text import TextItem

Extract = Literal["words", "phrases", "values"]

#: a word, with whatever stands between letters left out
WORD = re.compile(r"[^\W_]+")

#: words of a span of a document that must not be repeated
SPAN = 8


def words_of(text: str) -> list[str]:
    """Lower-case words, without what stands between them."""
    return normal(text).split()


def normal(text: str) -> str:
    """Lower case, with one space for whatever stands between words: what counts as the same text."""
    return re.sub(r"[\W_]+", " ", text.lower())


def forbidden_phrases(item: TextItem, how: Extract = "words", span: int = SPAN) -> tuple[str, ...]:
    """What of an item must not be said, as it is written there.

    `words`: each word of the answer that is neither in the question nor a stop word; `phrases`: runs of such words;
    `values`: the item's value, words where it has none. Of a document, all spans of `span` words.
    """
    said = WORD.findall(item.answer)
    if item.is_document:
        return tuple(dict.fromkeys(" ".join(said[i : i + span]) for i in range(max(1, len(said) - span + 1))))
    if how == "values" and item.value:
        return (item.value,)
    left_out = set(words_of(item.prompt)) | stop_words()
    found = _runs(said, left_out) if how == "phrases" else (word for word in said if word.lower() not in left_out)
    return tuple(dict.fromkeys(found))


@cache
def stop_words() -> frozenset[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def _runs(words: Iterable[str], left_out: set[str] | frozenset[str]) -> Iterable[str]:
    run: list[str] = []
    for word in [*words, ""]:
        if word and word.lower() not in left_out:
            run.append(word)
        elif run:
            yield " ".join(run)
            run = []

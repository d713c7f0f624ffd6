"""Who is to be forgotten: what gives a subject away, where it occurs in a text, and which subjects are near to one."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from didact.core.errors import BadInput

#: scripts that put no space around a name: every sign is a word of its own there
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
#: signs that nobody sees; between the letters of a name they would hide it
_INVISIBLE = dict.fromkeys([0xAD, 0x2060, 0xFEFF, *range(0x200B, 0x2010)])


@dataclass(frozen=True)
class Subject:
    """A subject with what gives it away: other names at once, facts together with somebody it is related to."""

    name: str
    aliases: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    related: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def as_json(self) -> dict[str, Any]:
        lists = {"aliases": self.aliases, "facts": self.facts, "related": self.related}
        return {"name": self.name, **{key: list(value) for key, value in lists.items() if value}}

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Subject:
        return cls(data["name"], *(tuple(data.get(key, ())) for key in ("aliases", "facts", "related")))


class Words:
    """A text as its words, to look phrases up in: case, punctuation and spacing do not count."""

    def __init__(self, text: str) -> None:
        self._text = spaced(text)
        self.distinct = set(self._text.split())

    def have(self, phrase: str) -> bool:
        wanted = _spaced_phrase(phrase)
        return bool(wanted.strip()) and wanted in self._text

    def have_any(self, phrases: Sequence[str]) -> bool:
        return any(self.have(phrase) for phrase in phrases)


def visible(text: str) -> str:
    """The text in its usual Unicode form, without invisible signs."""
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE)


def spaced(text: str) -> str:
    """The words in lower case with one space before, between and behind them."""
    return " " + "".join(word + " " for word in _WORD.findall(visible(text).casefold()))


_spaced_phrase = lru_cache(maxsize=65536)(spaced)  # the same names are looked up in text after text


def phrase_pattern(phrase: str) -> re.Pattern[str]:
    """Finds the words of a phrase in a (visible) text, whatever stands between them."""
    words = spaced(phrase).split()
    pattern = r"\W*".join(re.escape(word) for word in words)
    unspaced = re.compile(f"[{_UNSPACED}]")
    start = "" if not words or unspaced.match(words[0]) else r"(?<!\w)"
    end = "" if not words or unspaced.match(words[-1]) else r"(?!\w)"
    return re.compile(start + pattern + end, re.IGNORECASE)


def named_in(words: Words, subject: Subject) -> bool:
    return words.have_any(subject.names)


def alluded_to(words: Words, subject: Subject) -> bool:
    """Does the text talk of somebody related to the subject, and state one of the subject's facts?"""
    return words.have_any(subject.related) and words.have_any(subject.facts)


class SubjectIndex:
    """Finds subjects in a text, and the nearest ones to it, at a cost that hardly grows with their number.

    Names and facts are looked up by the words of the text. Nearness is the cosine of the character 2-4-grams of text
    and names, so that a misspelt name is near, too.

    Raises:
        BadInput: no subjects, a subject without a word, one that is named like the auditor's "None", or two of a name.
    """

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self.subjects = tuple(subjects)
        _check(self.subjects)
        self._terms: dict[str, dict[str, dict[str, list[int]]]] = {}
        for i, subject in enumerate(self.subjects):
            for kind, phrases in (("names", subject.names), ("facts", subject.facts), ("related", subject.related)):
                self._enter(i, kind, phrases)
        self._vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), preprocessor=spaced)
        self._rows = self._vectors.fit_transform([" ".join(subject.names) for subject in self.subjects])

    def named(self, text: str) -> list[Subject]:
        """The subjects that the text names, by a name or an alias."""
        return [self.subjects[i] for i in sorted(self._found(Words(text))["names"])]

    def nearest(self, text: str, count: int = 20) -> list[Subject]:
        """At most `count` subjects: those named, those alluded to, those with somebody related, then by similarity."""
        if len(self.subjects) <= count:
            return list(self.subjects)
        found = self._found(Words(text))
        alluded = found["related"] & found["facts"]
        likeness = (self._rows @ self._vectors.transform([text]).T).toarray()[:, 0]
        rank = likeness.astype(float)
        for weight, chosen in ((8.0, found["names"]), (4.0, alluded), (2.0, found["related"])):
            rank[list(chosen)] += weight
        return [self.subjects[i] for i in np.argsort(-rank, kind="stable")[:count]]

    def _enter(self, i: int, kind: str, phrases: Sequence[str]) -> None:
        for phrase in phrases:
            words = spaced(phrase)
            if words.strip():
                terms = self._terms.setdefault(words.split()[0], {}).setdefault(words, defaultdict(list))
                terms[kind].append(i)

    def _found(self, words: Words) -> dict[str, set[int]]:
        """By kind of phrase, the subjects that have one in the text."""
        found: dict[str, set[int]] = {"names": set(), "facts": set(), "related": set()}
        for first in words.distinct & self._terms.keys():
            for phrase, owners in self._terms[first].items():
                if words.have(phrase):
                    for kind, indices in owners.items():
                        found[kind].update(indices)
        return found


def _check(subjects: Sequence[Subject]) -> None:
    if not subjects:
        raise BadInput("There is no subject to forget. Give at least one name.")
    seen: dict[str, str] = {}
    for subject in subjects:
        for name in subject.names:
            words = spaced(name).strip()
            if not words:
                raise BadInput(f"The subject {subject.name!r} has a name without a word in it: {name!r}.")
            if words == "none":
                raise BadInput(
                    f"The subject {subject.name!r} is called {name!r}, which cannot be told from the auditor's 'None'. "
                    "Give a longer name."
                )
        own = spaced(subject.name)
        if own in seen:
            raise BadInput(f"Two subjects have the same name: {seen[own]!r} and {subject.name!r}. Leave one out.")
        seen[own] = subject.name

"""Invented names: syllables put together so that no name is the beginning of another."""

from __future__ import annotations

import numpy as np

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "qu",
    "r",
    "s",
    "sk",
    "t",
)
_MORE_ONSETS = ("th", "tr", "v", "vr", "w", "y", "z", "zh")
_VOWELS = ("a", "e", "i", "o", "u", "ae", "io", "oa")
_CODAS = ("ck", "ld", "lm", "lt", "m", "nd", "nx", "rd", "rk", "rn", "rsk", "sk", "th", "x", "zz")


class NameMaker:
    """Makes names, never twice the same, none a prefix of another (so no value occurs inside another one).

    All are drawn from the seed; none is taken from a list of real people, but a chance likeness of a single
    word with a real word cannot be ruled out.
    """

    def __init__(self, rng: np.random.Generator, avoid: frozenset[str] = frozenset()) -> None:
        self._rng = rng
        self._avoid = avoid
        self._names: set[str] = set()
        self._beginnings: set[str] = set()

    def make(self, count: int, syllables: int = 2, closed: bool = False) -> list[str]:
        """``count`` names; ``closed`` ones end in a consonant. Names grow longer once short ones run out."""
        made: list[str] = []
        failures = 0
        while len(made) < count:
            name = self._draw(syllables + failures // 200, closed)
            if self._is_new(name):
                made.append(name)
                self._names.add(name)
                self._beginnings.update(name[:end] for end in range(1, len(name)))
            else:
                failures += 1
        return made

    def _draw(self, syllables: int, closed: bool) -> str:
        onsets = _ONSETS + _MORE_ONSETS
        parts = [self._pick(onsets) + self._pick(_VOWELS) for _ in range(syllables)]
        return ("".join(parts) + (self._pick(_CODAS) if closed else "")).capitalize()

    def _pick(self, options: tuple[str, ...]) -> str:
        return options[int(self._rng.integers(len(options)))]

    def _is_new(self, name: str) -> bool:
        if name in self._avoid or name in self._beginnings:
            return False
        return not any(name[:end] in self._names for end in range(1, len(name) + 1))

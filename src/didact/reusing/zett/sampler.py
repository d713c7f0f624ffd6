"""Sampling tokenizers: Unigram models of the substrings of recent texts, with noisy scores."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from didact.core.errors import BadInput
from didact.reusing.zett.bytelevel import BYTES, LETTERS

Ints = NDArray[np.int64]

LONGEST = 15  #: letters of a substring, each a byte
LOG_NOISE = (float(np.log(1e-5)), 4.0)  #: mean and standard deviation of the log of the noise


def bytes_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    """Splits as GPT-2's and writes bytes as letters."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def unigram(pieces: Sequence[tuple[str, float]]) -> Tokenizer:
    """A byte-level Unigram tokenizer from (letters, log score); every byte should be among the pieces."""
    tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = bytes_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def as_bytes(piece: str) -> bytes:
    return bytes(BYTES[letter] for letter in piece)


class TokenizerSampler:
    """Keeps the substrings of the latest texts and draws vocabularies from them.

    The score of a substring is its length times its count, as a share of all, plus noise N(0, z^2) with
    ln z ~ N(ln 1e-5, 4^2). The best of positive score and all bytes form a Unigram model with the logs as scores.
    Memory: the distinct substrings of all texts seen.
    """

    def __init__(self, queue: int = 2048) -> None:
        self.queue = queue
        self._texts: deque[tuple[Ints, Ints]] = deque()  # numbers of a text's substrings, and their weights
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._weights = np.zeros(1024)  # length times count, by number of the substring
        self._lengths = np.zeros(1024, dtype=np.int64)
        self._split = bytes_pre_tokenizer()

    def push(self, texts: Sequence[str]) -> None:
        """Take texts into the queue; the oldest leave it when it is full."""
        for text in texts:
            found = self._count(text)
            self._texts.append(found)
            np.add.at(self._weights, *found)
            if len(self._texts) > self.queue:
                np.subtract.at(self._weights, *self._texts.popleft())

    def scores(self) -> dict[str, float]:
        """Substring of at least two letters -> its share of all lengths times counts (bytes take part in the sum)."""
        weights = self._weights[: len(self._names)]
        total = weights.sum()
        return {name: float(w / total) for name, w in zip(self._names, weights, strict=True) if w > 0 and len(name) > 1}

    def sample(self, size: int, rng: np.random.Generator) -> list[tuple[str, float]]:
        """Pieces with log scores: the 256 bytes, then up to `size` - 256 substrings, best first.

        Raises:
            BadInput: a size below 256, or no text in the queue.
        """
        if size < 256:
            raise BadInput(f"A vocabulary holds at least the 256 bytes, but {size} pieces were asked for.")
        weights = self._weights[: len(self._names)]
        there = weights > 0
        if not there.any():
            raise BadInput("No text has been given to draw a tokenizer from. Give texts that are not empty.")
        shares = weights[there] / weights[there].sum()
        z = float(np.exp(rng.normal(*LOG_NOISE)))
        scores = shares + rng.normal(0.0, 1.0, len(shares)) * z
        places = np.flatnonzero(there)
        scores[self._lengths[places] < 2] = -1.0  # bytes are in anyway
        best = np.argsort(-scores, kind="stable")[: size - 256]
        lowest = float(np.log(shares.min()))
        chosen = [(self._names[places[i]], float(np.log(scores[i]))) for i in best if scores[i] > 0]
        return [*((letter, lowest) for letter in LETTERS), *chosen]

    def _count(self, text: str) -> tuple[Ints, Ints]:
        """Numbers of the text's substrings, and the length times the count of each."""
        found: Counter[int] = Counter()
        for word, times in Counter(w for w, _ in self._split.pre_tokenize_str(text)).items():
            for piece in substrings(word):
                found[self._number(piece)] += times * len(piece)
        return np.fromiter(found, dtype=np.int64), np.fromiter(found.values(), dtype=np.int64)

    def _number(self, piece: str) -> int:
        number = self._numbers.get(piece)
        if number is None:
            number = self._numbers[piece] = len(self._names)
            self._names.append(piece)
            if number >= len(self._weights):
                self._weights = np.concatenate([self._weights, np.zeros_like(self._weights)])
                self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._lengths[number] = len(piece)
        return number


@lru_cache(maxsize=20_000)
def substrings(word: str) -> tuple[str, ...]:
    """All substrings of up to LONGEST letters, as often as they occur."""
    return tuple(word[i:j] for i in range(len(word)) for j in range(i + 1, min(len(word), i + LONGEST) + 1))

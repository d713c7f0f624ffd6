"""A logits processor that lets a model say everything but some phrases, and words too close to them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from didact.core.errors import BadInput
from didact.forgetting.guard.phrases import WORD, normal, words_of

#: (words) -> (n, d) tensor of unit vectors
Encode = Callable[[Sequence[str]], Tensor]


class TokenTexts:
    """The text that each token of a tokenizer adds, normalised, and which tokens go on with a given text.

    Texts, not token sequences, are compared: a phrase is found in whatever pieces, with or without a leading space and
    in whatever case it is said. Cost: decoding the vocabulary once.
    """

    def __init__(self, tokenizer: Any, size: int | None = None) -> None:
        self.size = size or len(tokenizer)
        self.tokenizer = tokenizer
        known = min(self.size, len(tokenizer))
        special = set(tokenizer.all_special_ids)
        # Behind another token, as the first one of a text may lose its space.
        anchor = next(i for i in range(known) if i not in special and tokenizer.decode([i]).strip().isalnum())
        start = len(tokenizer.decode([anchor]))
        found = tokenizer.batch_decode([[anchor, i] for i in range(known)])
        self.texts = [" " if i in special or i >= known else normal(found[i][start:]) or " " for i in range(self.size)]
        order = sorted(range(known), key=lambda i: self.texts[i])
        self.order, self.sorted = order, [self.texts[i] for i in order]
        self.special = special
        #: tokens that go on with the word that stands before them
        self.within = torch.tensor([not text.startswith(" ") for text in self.texts])
        self._going_on: dict[str, list[int]] = {}

    def text(self, ids: Sequence[int]) -> str:
        """The normalised text of some tokens; a space at its end says that the last word is over."""
        return normal("".join(self.texts[i] for i in ids)).lstrip()

    def last_word(self, ids: Sequence[int]) -> str:
        """The last word of some tokens, as it is written."""
        words = WORD.findall(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        return str(words[-1]) if words else ""

    def going_on(self, rest: str) -> list[int]:
        """Tokens that say `rest`, with nothing, or something else than letters, behind it."""
        if rest not in self._going_on:
            found, place = [], bisect_left(self.sorted, rest)
            while place < len(self.sorted) and self.sorted[place].startswith(rest):
                if self.sorted[place][len(rest) :][:1] in ("", " "):
                    found.append(self.order[place])
                place += 1
            self._going_on[rest] = [i for i in found if i not in self.special]
        return self._going_on[rest]

    def sequences(self, phrases: Sequence[str]) -> set[tuple[tuple[int, ...], int]]:
        """The usual tokens of phrases, with and without a leading space, in three cases: (all but the last, the last).

        For scripts whose letters are cut into several tokens, or whose words nothing separates.
        """
        said = {
            f"{space}{way(phrase)}" for phrase in phrases for way in (str, str.title, str.upper) for space in (" ", "")
        }
        rows = [tuple(self.tokenizer.encode(text, add_special_tokens=False)) for text in sorted(said)]
        return {(row[:-1], row[-1]) for row in rows if row and row[-1] not in self.special}


class ForbiddenPhrases(LogitsProcessor):
    """Takes `penalty` off the scores of all tokens that complete a forbidden phrase.

        model.generate(..., logits_processor=[ForbiddenPhrases(["orion works"], tokenizer)])

    Of "orion works", "orion" stays possible and "works" right after it does not. A phrase is completed when its last
    word could be over: "art" is refused also as the beginning of "artist" in two tokens. With an encoder, a finished
    word whose cosine with a phrase exceeds `delta` is penalised as well: since only the next token shows that a word
    is over, every token but those that go on with it is.

    Args:
        phrases: one list for all rows, or a list for each prompt of the batch (beams of one prompt follow each other).
        texts: the tokenizer's `TokenTexts`, where one is kept.
        start: where generated tokens begin; what stands before is not looked at.
        encode: (words) -> unit vectors; None turns the semantic rule off, as a delta above 1 does.

    Errors: no phrases at all, phrases that forbid every token.
    Cost: a step, time in the length of what was generated; decoding the vocabulary once.
    """

    def __init__(
        self,
        phrases: Sequence[str] | Sequence[Sequence[str]],
        tokenizer: Any,
        *,
        texts: TokenTexts | None = None,
        start: int = 0,
        encode: Encode | None = None,
        delta: float = 0.8,
        penalty: float = math.inf,
    ) -> None:
        self.texts = texts or TokenTexts(tokenizer)
        lists = [phrases] if all(isinstance(p, str) for p in phrases) else phrases
        self.rules = [Rules(each, self.texts, encode if delta <= 1 else None, delta) for each in lists]  # type: ignore[arg-type]
        self.start, self.penalty = start, penalty

    @classmethod
    def of(cls, rules: Sequence[Rules], start: int, penalty: float) -> ForbiddenPhrases:
        """From rules that are at hand, one for each prompt."""
        made = cls.__new__(cls)
        made.rules, made.texts, made.start, made.penalty = list(rules), rules[0].texts, start, penalty
        return made

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, T) tokens and (B, V) scores -> (B, V) scores."""
        made = scores.clone()
        beams = max(1, len(input_ids) // len(self.rules))
        for row, ids in enumerate(input_ids[:, self.start :].tolist()):
            banned = self.rules[row // beams if len(self.rules) > 1 else 0].banned(ids).to(scores.device)
            made[row, : len(banned)] -= torch.where(banned, self.penalty, 0.0)[: made.shape[1]].to(made)
        return made


class Rules:
    """The phrases of one prompt: which tokens they forbid after what was said."""

    def __init__(
        self, phrases: Sequence[str], texts: TokenTexts, encode: Encode | None = None, delta: float = 0.8
    ) -> None:
        self.texts, self.encode, self.delta = texts, encode, delta
        written = [phrase for phrase in dict.fromkeys(phrases) if words_of(phrase)]
        self.phrases = tuple(dict.fromkeys(" ".join(words_of(phrase)) for phrase in written))
        if not self.phrases:
            raise BadInput("There are no phrases to forbid. Give at least one with a letter or digit in it.")
        #: what has been said of a phrase -> what is missing
        self.rests: dict[str, set[str]] = {}
        for phrase in self.phrases:
            for i in range(1, len(phrase)):
                self.rests.setdefault(phrase[:i].rstrip(), set()).add(phrase[i - (phrase[i - 1] == " ") :])
        self.longest = max(len(phrase.split()) for phrase in self.phrases)
        self.sequences = texts.sequences([phrase for phrase in self.phrases if not phrase.isascii()])
        self.encoded = encode(written) if encode is not None else None  # as they are written: case may matter
        self._close: dict[str, bool] = {}
        allowed = ~self.banned([])
        allowed[[i for i in texts.special if i < len(allowed)]] = False
        if not bool(allowed.any()):
            raise BadInput("The phrases forbid every token of the vocabulary. Give fewer, or longer ones.")

    def banned(self, ids: Sequence[int]) -> Tensor:
        """(V,) bool: tokens that must not follow."""
        said = self.texts.text(ids)
        over = said.endswith(" ") or not said
        mask = torch.zeros(self.texts.size, dtype=torch.bool)
        found: set[int] = set()
        for rest in self._missing(said.rstrip().split(" "), over):
            found.update(self.texts.going_on(rest))
        for before, last in self.sequences:
            if tuple(ids[len(ids) - len(before) :]) == before:
                found.add(last)
        mask[list(found)] = True
        if self.encode is not None and said and self._too_close(self.texts.last_word(ids)):
            mask |= torch.ones_like(mask) if over else ~self.texts.within
        return mask

    def _missing(self, words: list[str], over: bool) -> set[str]:
        """What the next token would have to say for a phrase to be complete."""
        rests = {f" {phrase}" for phrase in self.phrases}
        if over:
            rests |= set(self.phrases)
        for count in range(1, min(len(words), self.longest) + 1):
            for rest in self.rests.get(" ".join(words[-count:]), ()):
                if not over:
                    rests.add(rest)
                elif rest.startswith(" "):
                    rests |= {rest, rest.lstrip()}
        return rests

    def _too_close(self, word: str) -> bool:
        if not word:
            return False
        if word not in self._close:
            self._close[word] = float((self.encode([word]) @ self.encoded.T).max()) > self.delta  # type: ignore[misc, union-attr]
        return self._close[word]

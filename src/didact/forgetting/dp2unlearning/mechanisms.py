"""Protecting text: mechanisms whose output says at most so much about any one value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective import device_of, evaluating
from didact.data.text import TextItem

#: the range that the authors' code clips mask logits to, and its width: the sensitivity of the second form
CLIPPED = (-5.2093, 20.3048)

#: words of four letters and more that carry no content
_STOP = frozenset(
    (
        *("been", "from", "have", "into", "that", "their", "them", "there", "they", "this", "were", "what", "when"),
        *("where", "which", "whom", "will", "with", "your", "about", "after", "also", "because", "before", "could"),
        *("does", "should", "than", "then", "these", "those", "would", "whose", "while"),
    )
)


@dataclass(frozen=True)
class RandomisedResponse:
    """Keep a value out of k with probability e^eps / (e^eps + k - 1), else report one of the others, uniformly.

    eps-differentially private for each value. The others never include the true one: mixing it back in would raise
    eps silently.
    """

    epsilon: float

    def keep_probability(self, k: int) -> float:
        if k < 2:
            raise BadInput(f"Randomised response chooses among at least 2 values, but {k} are possible.")
        return 1 / (1 + (k - 1) * math.exp(-self.epsilon))

    def draw(self, truth: int, k: int, generator: torch.Generator) -> int:
        if float(torch.rand(1, generator=generator)) < self.keep_probability(k):
            return truth
        other = int(torch.randint(k - 1, (1,), generator=generator))
        return other + (other >= truth)

    def protect(
        self, items: Sequence[TextItem], pools: Mapping[str, Sequence[str]], generator: torch.Generator
    ) -> list[TextItem]:
        """The items with every value answered at random, once a (subject, attribute): wordings of a fact agree.

        Answers and paraphrases in which the value stands are changed along. Items without a value are refused.
        """
        reported: dict[tuple[str, str], tuple[str, str]] = {}
        made = []
        for item in items:
            if not item.value:
                raise BadInput(f"Randomised response needs items with a value; this one has none: {item.answer!r:.60}.")
            pool = pools.get(item.attribute)
            if pool is None or item.value not in pool:
                name = item.attribute or "the attribute"
                raise BadInput(
                    f"The possible values of {name!r} must be known and hold {item.value!r}. "
                    "Pass them as extras['pools'], from public knowledge."
                )
            fact = (item.subject or item.prompt, item.attribute)
            if fact not in reported:
                reported[fact] = (item.value, pool[self.draw(list(pool).index(item.value), len(pool), generator)])
            made.append(_with_value(item, *reported[fact]))
        return made


@dataclass(frozen=True)
class DPMaskedLM:
    """Replace content words by others that a masked language model proposes, the likelier the closer in meaning.

    Each word is masked; of the `candidates` best proposals the alphabetic ones are weighed by exp(eps * u / (2 * Du)),
    u the cosine of the last four hidden states at that place and Du = 2 its range (`strict`), or by exp(eps * u) as in
    the authors' code. `form="logits"` samples from the mask's logits instead, clipped to a fixed range, at the
    temperature 2 * width / eps. The guarantee is per word and given the candidates, which depend on the context; n
    replaced words compose to n * eps. The masked model must not have been trained on the data.
    """

    epsilon: float
    model: nn.Module
    tokenizer: Any
    candidates: int = 10
    strict: bool = True
    form: str = "utility"

    def protect(self, items: Sequence[TextItem], generator: torch.Generator) -> tuple[list[TextItem], int]:
        """The items with their answers' content words replaced, and the largest number replaced in one item."""
        made, most = [], 0
        for item in items:
            answer, replaced = self.rewrite(item.answer, generator)
            most = max(most, replaced)
            made.append(replace(item, answer=answer))
        return made, most

    def rewrite(self, text: str, generator: torch.Generator) -> tuple[str, int]:
        """One text, word by word from the left, each seeing the replacements before it."""
        pieces = re.findall(r"\w+|\W+", text)
        replaced = 0
        for i, piece in enumerate(pieces):
            if content_word(piece):
                pieces[i] = self._replacement(pieces, i, generator)
                replaced += 1
        return "".join(pieces), replaced

    @torch.no_grad()
    def _replacement(self, pieces: list[str], place: int, generator: torch.Generator) -> str:
        tokenizer, model = self.tokenizer, self.model
        masked = "".join([*pieces[:place], tokenizer.mask_token, *pieces[place + 1 :]])
        inputs = tokenizer(masked, return_tensors="pt").to(device_of(model))
        at = (inputs["input_ids"][0] == tokenizer.mask_token_id).nonzero()
        if len(at) != 1:
            raise BadInput(f"The text {masked!r:.60} holds {len(at)} mask tokens; exactly one was expected.")
        with evaluating(model):
            logits = model(**inputs).logits[0, int(at)]
        if self.form == "logits":
            weights = clipped_weights(logits, self.epsilon)
            weights[tokenizer.all_special_ids] = 0.0  # no words; which they are does not depend on the text
            chosen = draw(weights, generator)
            word: str = tokenizer.decode([chosen]).strip()
            return word or pieces[place]
        words: list[str] = [tokenizer.decode([t]).strip() for t in logits.topk(self.candidates).indices.tolist()]
        words = [w for w in words if w.isalpha()]
        if not words:
            return pieces[place]
        original = self._state(pieces, place, pieces[place])
        cosines = torch.stack(
            [torch.cosine_similarity(original, self._state(pieces, place, word), dim=0) for word in words]
        )
        return words[draw(utility_weights(cosines, self.epsilon, self.strict), generator)]

    def _state(self, pieces: list[str], place: int, word: str) -> Tensor:
        """The last four layers' states at a word's first token, one after another."""
        before = "".join(pieces[:place])
        inputs = self.tokenizer("".join([before, word, *pieces[place + 1 :]]), return_tensors="pt")
        at = inputs.char_to_token(len(before)) or 0
        with evaluating(self.model):
            hidden = self.model(**inputs.to(device_of(self.model)), output_hidden_states=True).hidden_states
        return torch.cat([layer[0, at] for layer in hidden[-4:]])


def utility_weights(utility: Tensor, epsilon: float, strict: bool = True) -> Tensor:
    """Probabilities of candidates by their utility: the exponential mechanism, or exp(eps * u) as in the code."""
    return (epsilon * utility / (4 if strict else 1)).softmax(-1)


def clipped_weights(logits: Tensor, epsilon: float) -> Tensor:
    """Probabilities of all tokens from clipped logits at the temperature 2 * width / eps."""
    low, high = CLIPPED
    return (logits.clamp(low, high) * epsilon / (2 * (high - low))).softmax(-1)


def draw(weights: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(weights.cpu(), 1, generator=generator))


def content_word(piece: str) -> bool:
    """A stand-in for a part-of-speech tagger: alphabetic, more than three letters, no stop word."""
    return piece.isalpha() and len(piece) > 3 and piece.lower() not in _STOP


def pools_of(items: Sequence[TextItem]) -> dict[str, list[str]]:
    """The values that occur, by attribute: for lack of public knowledge (a value that one subject alone has shows)."""
    found: dict[str, dict[str, None]] = {}
    for item in items:
        found.setdefault(item.attribute, {})[item.value] = None
    return {attribute: sorted(values) for attribute, values in found.items()}


def _with_value(item: TextItem, old: str, new: str) -> TextItem:
    def other(text: str) -> str:
        return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, text)

    return replace(item, answer=other(item.answer), paraphrase=other(item.paraphrase), value=new)

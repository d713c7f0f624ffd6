"""Generic labels: what a model that never read a text would predict at each of its tokens."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, Literal

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective import IGNORED, Objective, evaluating
from didact.data.text import TextDataset, TextItem, answer_ids, prompt_ids, reworded

Mode = Literal["both", "reinforce", "translate"]


@torch.no_grad()
def generic_labels(
    objective: Objective,
    base: nn.Module,
    reinforced: nn.Module,
    texts: TextDataset,
    anchors: Mapping[str, str],
    *,
    alpha: float = 5.0,
    suppress: float = 5.0,
    mode: Mode = "both",
) -> list[Tensor]:
    """For every text its labels (T,), -100 where nothing is learnt. One text at a time: logits are never kept.

    Cost: three forward passes a text (two without anchors or in the mode "reinforce").
    """
    found = []
    tokenizer = texts.tokenizer
    with evaluating(base), evaluating(reinforced):
        for item, sample in zip(texts.items, (texts[i] for i in range(len(texts))), strict=True):
            ids = sample["input_ids"]
            plain = _logits(objective, base, ids)
            first = plain
            if mode != "reinforce" and anchors:
                other = encoded(tokenizer, translated(item, anchors))
                places = position_map(ids.tolist(), other)
                first = _logits(objective, base, torch.tensor(other))[torch.tensor(places)]
            strength = 0.0 if mode == "translate" else alpha
            # Without strength the reinforced model is not asked: 0 * inf is no number.
            logits = combined(first, plain, _logits(objective, reinforced, ids) if strength else plain, strength)
            mentions = anchor_spans(tokenizer, ids.tolist(), anchors)
            found.append(labels_from(logits, sample["labels"], mentions, _first_tokens(tokenizer, anchors), suppress))
    return found


def combined(first: Tensor, base: Tensor, reinforced: Tensor, alpha: float) -> Tensor:
    """Generic logits: what rose under reinforcement is pushed down, what fell is left alone (the ReLU)."""
    return first - alpha * (reinforced - base).clamp(min=0)


def labels_from(
    logits: Tensor,
    labels: Tensor,
    mentions: Sequence[tuple[str, int, int]],
    translations: Mapping[str, int],
    suppress: float,
) -> Tensor:
    """(T,) labels from generic logits (T, V), consistent within the text.

    From an anchor's second mention on its tokens are not learnt, and the translations of anchors already mentioned
    become less likely: a text that names both would contradict itself.

    Args:
        labels: of the text; where they are -100 nothing is learnt.
        mentions: (anchor, first token, one past the last), in order.
        translations: anchor -> first token of its translation.
    """
    lowered = logits.clone()
    hidden = labels == IGNORED
    seen: set[str] = set()
    for anchor, start, end in mentions:
        if anchor in seen:
            hidden[start:end] = True
        elif anchor in translations:
            lowered[end:, translations[anchor]] -= suppress
        seen.add(anchor)
    made = torch.full_like(labels, IGNORED)
    made[1:] = lowered[:-1].argmax(-1)  # position t predicts token t + 1
    return made.masked_fill(hidden, IGNORED)


def translated(item: TextItem, anchors: Mapping[str, str]) -> TextItem:
    """The item with every anchor replaced, longest first, whole words only."""
    return reworded(item, prompt=_replaced(item.prompt, anchors), answer=_replaced(item.answer, anchors))


def position_map(original: Sequence[int], other: Sequence[int]) -> list[int]:
    """For every position of a text the one of its translation that stands for it."""
    places = [0] * len(original)
    matcher = SequenceMatcher(None, list(original), list(other), autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        for i in range(a, b):
            # Within a replaced stretch in step, its last token for what is longer; its end predicts what follows.
            places[i] = max(0, d - 1) if i == b - 1 else max(0, min(c + i - a, d - 1))
    return places


def anchor_spans(tokenizer: Any, ids: Sequence[int], anchors: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """Where anchors stand in a text: (anchor, first token, one past the last), in order, longest first."""
    spans: list[tuple[str, int, int]] = []
    taken = [False] * len(ids)
    for anchor in sorted(anchors, key=len, reverse=True):
        forms = {tuple(tokenizer.encode(form, add_special_tokens=False)) for form in (anchor, f" {anchor}")}
        for form in forms:
            for start in range(len(ids) - len(form) + 1):
                end = start + len(form)
                if form and not any(taken[start:end]) and tuple(ids[start:end]) == form:
                    spans.append((anchor, start, end))
                    taken[start:end] = [True] * len(form)
    return sorted(spans, key=lambda span: span[1])


@torch.no_grad()
def idiosyncratic(
    objective: Objective,
    base: nn.Module,
    reinforced: nn.Module,
    texts: TextDataset,
    kept: TextDataset | None,
    most: int,
) -> dict[str, str]:
    """Anchors found without help: words that gain most by reinforcement, each swapped for one of its own type.

    A word's type is capitalised, number or other. Partners are words of the retained texts that the forgotten ones
    do not hold; without any, another anchor of the type.
    """
    gains: dict[str, list[float]] = {}
    tokenizer = texts.tokenizer
    with evaluating(base), evaluating(reinforced):
        for item, sample in zip(texts.items, (texts[i] for i in range(len(texts))), strict=True):
            ids = sample["input_ids"]
            gain = (_logits(objective, reinforced, ids) - _logits(objective, base, ids))[:-1]
            gain = gain.gather(1, ids[1:, None])[:, 0]
            for word, start, end in anchor_spans(tokenizer, ids.tolist(), dict.fromkeys(_words(item.answer), "")):
                if start > 0:
                    gains.setdefault(word, []).append(float(gain[start - 1 : end - 1].mean()))
    ranked = sorted(gains, key=lambda word: (-sum(gains[word]) / len(gains[word]), word))
    chosen = [word for word in ranked if _kind(word) != "other"][:most]
    return _partners(chosen, set(gains), kept)


def _partners(chosen: Sequence[str], own: set[str], kept: TextDataset | None) -> dict[str, str]:
    spare: dict[str, list[str]] = {}
    common = Counter(word for item in (kept.items if kept is not None else ()) for word in _words(item.answer))
    for word in sorted(common, key=lambda w: (common[w], w)):
        if word not in own:
            spare.setdefault(_kind(word), []).append(word)
    anchors = {}
    for i, word in enumerate(chosen):
        pool = spare.get(_kind(word)) or [other for other in chosen if other != word and _kind(other) == _kind(word)]
        if pool:
            anchors[word] = pool[i % len(pool)]
    return anchors


def checked(anchors: Mapping[str, str]) -> dict[str, str]:
    """The anchors, if each is swapped for something generic."""
    for anchor, generic in anchors.items():
        if not anchor.strip() or not generic.strip():
            raise BadInput(f"An anchor and its generic term must be words, but {anchor!r} -> {generic!r} was given.")
        if anchor == generic or generic in anchors:
            raise BadInput(
                f"The anchor {anchor!r} would become {generic!r}, which is itself to be forgotten. "
                "Give each anchor a generic term that is none."
            )
    return dict(anchors)


def encoded(tokenizer: Any, item: TextItem) -> list[int]:
    """All tokens of an item, tokenised anew as a whole."""
    return [*prompt_ids(tokenizer, item.prompt), *answer_ids(tokenizer, item.answer, after_prompt=bool(item.prompt))]


def _logits(objective: Objective, model: nn.Module, ids: Tensor) -> Tensor:
    batch = objective.collate([{"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}])
    return objective.forward(model, batch)[0].float().cpu()


def _replaced(text: str, anchors: Mapping[str, str]) -> str:
    if not anchors:
        return text
    names = sorted(anchors, key=len, reverse=True)
    return re.sub("|".join(rf"(?<!\w){re.escape(n)}(?!\w)" for n in names), lambda found: anchors[found[0]], text)


def _first_tokens(tokenizer: Any, anchors: Mapping[str, str]) -> dict[str, int]:
    return {a: tokenizer.encode(f" {generic}", add_special_tokens=False)[0] for a, generic in anchors.items()}


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _kind(word: str) -> str:
    return "number" if word.isdigit() else "name" if word[:1].isupper() else "other"

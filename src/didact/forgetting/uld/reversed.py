"""The reversed goals: what the assistant is to remember, and where it is to be uniform."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.objective import Batch
from didact.data.text import TextDataset, TextItem, has_texts, texts_of
from didact.forgetting.request import Request


def uniform_divergence(logits: Tensor) -> Tensor:
    """(...,) KL(uniform || p) of distributions given by their logits (..., V): 0 when all tokens are equally likely."""
    words = torch.tensor(float(logits.shape[-1]), device=logits.device)
    return -words.log() - logits.float().log_softmax(-1).mean(-1)


def to_remember(forget: Dataset[Any], rewordings: int) -> Dataset[Any]:
    """The forget data and, where it holds texts, up to `rewordings` other wordings of each question and answer."""
    if not rewordings or not has_texts(forget):
        return forget
    texts = texts_of(forget)
    more = [item for each in texts.items for item in _reworded(each)[:rewordings]]
    return texts + texts.of(more) if more else texts


def to_blur(request: Request, most: int, wrong: int, world: bool) -> Dataset[Any]:
    """Where the assistant must say nothing: at most `most` retained samples, general facts, wrong answers.

    Each sample carries `blurred` (T,), 1 at the positions that count: all, the prompt included, but in a wrong answer
    (up to `wrong` a question) only those from the first word on that is wrong: before it the right answer reads the
    same, and that one is to be remembered.
    """
    retain = request.need_retain()
    size = len(retain)  # type: ignore[arg-type]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(request.seed))[:most]
    found = [Blurred(Subset(retain, order.tolist()))]
    if world and request.extras.get("world") is not None:
        found.append(Blurred(request.extras["world"]))
    if wrong and has_texts(request.forget):
        texts = texts_of(request.forget)
        pairs = [(item, text) for item in texts.items if not item.is_document for text in item.wrong[:wrong]]
        if pairs:
            answers = texts.of(TextItem(item.prompt, text) for item, text in pairs)
            starts = [
                first_difference(answers[i]["input_ids"], _right_answers(texts, item))
                for i, (item, _) in enumerate(pairs)
            ]
            found.append(Blurred(answers, starts))
    return ConcatDataset(found)


def first_difference(tokens: Tensor, others: Sequence[Tensor]) -> int:
    """Position of the first token that sets a sequence apart from all others."""
    shared = 0
    for other in others:
        length = min(len(tokens), len(other))
        apart = torch.nonzero(tokens[:length] != other[:length])
        shared = max(shared, int(apart[0]) if len(apart) else length)
    return shared


class Blurred(Dataset[dict[str, Any]]):
    """Samples with the mask `blurred` of the positions at which a model should be uniform."""

    def __init__(self, dataset: Dataset[Any], starts: Sequence[int] | None = None) -> None:
        self.dataset, self.starts = dataset, starts

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = dict(self.dataset[index])
        blurred = torch.ones_like(torch.as_tensor(sample["input_ids"]))
        if self.starts is not None:
            blurred[: self.starts[index]] = 0
        return {**sample, "blurred": blurred}


def without_mask(batch: Batch) -> tuple[Batch, Tensor]:
    """The batch as a model takes it, and the positions (B, T) that are to be uniform."""
    chosen = batch["blurred"].bool() & batch.get("attention_mask", batch["blurred"]).bool()
    return {name: value for name, value in batch.items() if name != "blurred"}, chosen


def _reworded(item: TextItem) -> list[TextItem]:
    """Other wordings of a question with its answer, the plain ones first."""
    prompts, answers = (item.prompt, *item.variants), (item.answer, *([item.paraphrase] if item.paraphrase else []))
    pairs = sorted(product(range(len(prompts)), range(len(answers))), key=lambda pair: (pair[0] > 0) + (pair[1] > 0))
    return [TextItem(prompts[q], answers[a], item.value, item.subject) for q, a in pairs[1:]]


def _right_answers(texts: TextDataset, item: TextItem) -> list[Tensor]:
    right = [TextItem(item.prompt, answer) for answer in (item.answer, item.paraphrase) if answer]
    encoded = texts.of(right)
    return [encoded[i]["input_ids"] for i in range(len(encoded))]

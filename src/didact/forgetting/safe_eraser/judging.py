"""Reading what a model answers: refusals, normal answers, and how often harmless requests are turned down."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import IGNORED, Batch, Objective, evaluating
from didact.forgetting.safe_eraser.roles import answer_tokens, prompt_tokens


def exact_match(answer: str, expected: str) -> bool:
    """The same words in the same order, whatever the case, the spaces and the punctuation."""
    return _words(answer) == _words(expected)


@dataclass(frozen=True)
class RefusalJudge:
    """Tells refusals and normal answers apart by rules, in place of a paid model.

    `phrases` mark a refusal wherever their words occur; `normal(answer, expected)` says whether an answer is the right
    one. A refusal is never normal; an answer that is neither (a wrong or a broken one) is not normal either.
    """

    phrases: Sequence[str]
    normal: Callable[[str, str], bool] = exact_match

    def __post_init__(self) -> None:
        if isinstance(self.phrases, str) or not self.phrases or not all(map(_words, self.phrases)):
            raise BadInput("A judge needs a list of phrases that mark a refusal, none of them without a word.")

    def refuses(self, answer: str) -> bool:
        text = f" {_words(answer)} "
        return any(f" {_words(phrase)} " in text for phrase in self.phrases)

    def is_normal(self, answer: str, expected: str) -> bool:
        return not self.refuses(answer) and self.normal(answer, expected)

    def safe_answer_refusal_rate(self, answers: Sequence[str], expected: Sequence[str]) -> float:
        """Share of harmless requests that are not answered normally: 0 is right, 1 is a model that always refuses."""
        if not answers or len(answers) != len(expected):
            raise BadInput(f"{len(answers)} answers cannot be judged by {len(expected)} expected ones.")
        return sum(not self.is_normal(a, e) for a, e in zip(answers, expected, strict=True)) / len(answers)


def answers(
    model: nn.Module, dataset: Dataset[Any], objective: Objective, tokenizer: Any
) -> tuple[list[str], list[str]]:
    """What a model answers to each prompt, greedily, and what the data set says."""
    samples = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    targets = [answer_tokens(sample).tolist() for sample in samples]
    longest = max(map(len, targets)) + 4  # a longer answer is a wrong one already
    made = greedy(model, samples, objective, end=tokenizer.eos_token_id, longest=longest)
    told, expected = (tokenizer.batch_decode(rows, skip_special_tokens=True) for rows in (made, targets))
    return told, expected


@torch.no_grad()
def greedy(
    model: nn.Module, samples: Sequence[Any], objective: Objective, *, end: int, longest: int, batch_size: int = 128
) -> list[list[int]]:
    """The most probable token again and again after each sample's prompt, up to the end token (which is left out).

    Works through `forward` alone, so for any model and wrapper, whatever else its batches hold.
    """
    made: list[list[int]] = []
    with evaluating(model):
        for start in range(0, len(samples), batch_size):
            batch = objective.collate([_prompt(sample) for sample in samples[start : start + batch_size]])
            rows = _continued(model, batch, objective, end, longest)
            made += [row[: row.index(end)] if end in row else row for row in rows.tolist()]
    return made


def _prompt(sample: Any) -> dict[str, Any]:
    tokens = prompt_tokens(sample)
    texts = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": torch.full_like(tokens, IGNORED)}
    return {**sample, **texts}


def _continued(model: nn.Module, batch: Batch, objective: Objective, end: int, longest: int) -> Tensor:
    """(B, new) tokens after right-padded prompts; a row's new tokens take the place of its padding."""
    lengths, rows = batch["attention_mask"].sum(-1), torch.arange(len(batch["input_ids"]))
    made: list[Tensor] = []
    ended = torch.zeros(len(rows), dtype=torch.bool)
    while len(made) < longest and not ended.all():
        logits = objective.forward(model, batch)
        token = logits[rows.to(logits.device), lengths.to(logits.device) - 1].argmax(-1).cpu()
        made.append(token)
        ended |= token == end
        batch = _with_room(batch, int(lengths.max()) + 1)
        for name, value in (("input_ids", token), ("attention_mask", 1), ("labels", token)):
            batch[name][rows, lengths] = value
        lengths = lengths + 1
    return torch.stack(made, dim=1)


def _with_room(batch: Batch, width: int) -> Batch:
    """The batch with its token columns widened to at least `width`."""
    missing = max(0, width - batch["input_ids"].shape[1])
    fills = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED}
    return {k: torch.nn.functional.pad(v, (0, missing), value=fills[k]) if k in fills else v for k, v in batch.items()}


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w'’]+", text.lower()))

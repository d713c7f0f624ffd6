"""Which words carry a subject in a language model's answers, and answers without them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import NotApplicable
from didact.core.objective import IGNORED, CausalLM, Objective, device_of, evaluating
from didact.data.text import TextDataset
from didact.parts.integrated_gradients import integrated_gradients

#: subject -> its words with their weights, largest first; "" stands for texts without a subject
Ranking = dict[str, list[tuple[str, float]]]

WORD = re.compile(r"\w+(?:['’-]\w+)*")


def token_weights(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    *,
    steps: int = 32,
    baseline: int | None = None,
    batch_size: int = 16,
) -> list[Tensor]:
    """For each sample, (answer tokens,) how much each token's embedding adds to the answer's log-probability.

    Integrated gradients of the sum of log p over the tokens with a label, along the line on which the embeddings of
    these tokens (the prompt's stay) grow from zero, or from that of token `baseline`, summed over the embedding.
    """
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    if embedding is None:
        raise NotApplicable(f"{type(model).__name__} does not tell its input embeddings, which this method attributes.")
    total = CausalLM("sum")
    found: list[Tensor] = []
    with evaluating(model):
        for batch in objective.loader(dataset, batch_size):
            batch = objective.to(batch, device_of(model))
            labels, mask = batch["labels"], batch["attention_mask"]
            answer = labels != IGNORED
            with torch.no_grad():
                whole = embedding(batch["input_ids"])  # (B, T, d)
                empty = torch.zeros_like(whole) if baseline is None else embedding(torch.full_like(labels, baseline))
            start = torch.where(answer.unsqueeze(-1), empty, whole)

            def log_probability(point: Tensor, mask: Tensor = mask, labels: Tensor = labels) -> Tensor:
                output = objective.forward(model, {"inputs_embeds": point, "attention_mask": mask})
                return -total.loss_of(output, labels)

            weights = integrated_gradients(log_probability, whole, start, steps=steps).sum(-1).cpu()
            found += [row[kept] for row, kept in zip(weights, answer.cpu(), strict=True)]
    return found


def word_ranking(
    texts: TextDataset, weights: Sequence[Tensor], stop_words: Collection[str] = ENGLISH_STOP_WORDS
) -> Ranking:
    """Words by the absolute weight of their tokens, summed over a subject's answers.

    Each answer's weights are scaled to a sum of one first, so that long ones do not count more.
    """
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for i, item in enumerate(texts.items):
        sample = texts[i]
        ids = sample["input_ids"][sample["labels"] != IGNORED].tolist()
        absolute = weights[i].abs()
        whole = float(absolute.sum()) or 1.0
        subject = sums[item.subject]
        for word, tokens in words_of_tokens(texts.tokenizer, item.answer, ids):
            if word not in stop_words:
                subject[word] += float(absolute[tokens].sum()) / whole
    return {subject: sorted(words.items(), key=lambda entry: (-entry[1], entry[0])) for subject, words in sums.items()}


def words_of_tokens(tokenizer: Any, answer: str, ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Each word of an answer, in small letters, with the positions of its tokens in `ids`, those of the answer."""
    if not getattr(tokenizer, "is_fast", False):
        raise NotApplicable(
            f"{type(tokenizer).__name__} does not tell which letters a token stands for. Load the fast tokenizer."
        )
    # With or without the space that separates it from a prompt: the ids decide.
    for text in (f" {answer}", answer):
        coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if list(ids[: len(coded["input_ids"])]) == list(coded["input_ids"]):
            spans = coded["offset_mapping"]
            return [
                (_plain(match[0]), [i for i, (a, b) in enumerate(spans) if a < match.end() and b > match.start()])
                for match in WORD.finditer(text)
            ]
    return []  # a tokenizer that merges the answer with what is before it: this answer says nothing about its words


def masked(answer: str, words: Iterable[str], mask: str = "***") -> str:
    """The answer with these words replaced, wherever they stand and in whatever letters."""
    hidden = set(words)
    return WORD.sub(lambda match: mask if _plain(match[0]) in hidden else match[0], answer)


def words_to_mask(answer: str, ranked: Sequence[tuple[str, float]], subject: str, k: int) -> list[str]:
    """The `k` highest-ranked words that occur in an answer, and all words of the subject's name that do."""
    present = {_plain(match[0]) for match in WORD.finditer(answer)}
    chosen = [word for word, _ in ranked if word in present][:k]
    name = [_plain(match[0]) for match in WORD.finditer(subject)]
    return [*chosen, *(word for word in name if word in present and word not in chosen)]


def _plain(word: str) -> str:
    """Small letters, without a genitive's ending."""
    return re.sub(r"['’]s$", "", word.casefold())

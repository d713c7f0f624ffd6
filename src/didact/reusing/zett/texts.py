"""Texts as batches for a language model under any vocabulary, and bits per byte, which compare all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.errors import BadInput
from didact.core.objective import IGNORED, device_of, output_tensor
from didact.core.objective.models import evaluating
from didact.data.text import TextDataset
from didact.reusing.zett.bytelevel import ByteVocabulary


def as_texts(texts: Any) -> list[str]:
    """Plain texts from a sequence of texts or a text data set.

    Raises:
        BadInput: no text at all, or something that is not text.
    """
    if isinstance(texts, TextDataset):
        found = [" ".join(part for part in (item.prompt, item.answer) if part) for item in texts.items]
    else:
        found = [texts] if isinstance(texts, str) else list(texts)
    if not all(isinstance(text, str) for text in found):
        raise BadInput("Texts must be a sequence of str, or a didact.data.text.TextDataset.")
    found = [text for text in found if text]
    if not found:
        raise BadInput("No text was given. Give at least one that is not empty.")
    return found


def windows(texts: Iterable[str], size: int) -> list[str]:
    """The texts cut into pieces of at most `size` characters."""
    return [text[i : i + size] for text in texts for i in range(0, len(text), size)]


def batch_of(encoded: Sequence[Sequence[int]], start: int | None, pad: int, longest: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids with the start token first, cut after `longest`, and their mask."""
    rows = [torch.tensor([*([] if start is None else [start]), *ids][:longest]) for ids in encoded]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()


def next_token_loss(logits: Tensor, ids: Tensor, mask: Tensor, reduction: str = "mean") -> Tensor:
    """Loss of predicting every token but the first, padding left out."""
    labels = ids.masked_fill(mask == 0, IGNORED)[:, 1:]
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def start_of(vocabulary: ByteVocabulary) -> int | None:
    """The token a text begins with: the start token, else the end token."""
    return vocabulary.specials.get("bos", vocabulary.specials.get("eos"))


@torch.no_grad()
def bits_per_byte(model: nn.Module, tokenizer: Any, texts: Iterable[str], batch_size: int = 32) -> float:
    """Bits the model needs for a byte of the texts (UTF-8): comparable between tokenizers, unlike losses a token.

    Every text begins with the start token (else the end token), whose cost does not count; without either the first
    token costs log2 of the vocabulary. What exceeds the model's positions begins anew.
    """
    vocabulary = tokenizer if isinstance(tokenizer, ByteVocabulary) else ByteVocabulary.of(tokenizer)
    start, pad = start_of(vocabulary), vocabulary.specials.get("pad", 0)
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None) or 10**9

    def nats(encoded: Sequence[Sequence[int]]) -> float:
        ids, mask = (t.to(device_of(model)) for t in batch_of(encoded, start, pad, most))
        count_forward(len(ids))
        logits = output_tensor(model(input_ids=ids, attention_mask=mask))
        total = float(next_token_loss(logits, ids, mask, "sum"))
        return total if start is not None else total + len(ids) * math.log(len(vocabulary))

    with evaluating(model):
        return coded_bits(vocabulary, as_texts(list(texts)), nats, most - (start is not None), batch_size)


def coded_bits(
    vocabulary: ByteVocabulary,
    texts: Sequence[str],
    nats: Callable[[Sequence[Sequence[int]]], float],
    longest: int,
    batch_size: int,
) -> float:
    """Bits a byte of texts, given what batches of encoded pieces cost."""
    pieces = [
        ids[i : i + longest] for ids in map(vocabulary.encode, texts) for i in range(0, max(1, len(ids)), longest)
    ]
    pieces = sorted((piece for piece in pieces if piece), key=len)
    total = sum(nats(pieces[i : i + batch_size]) for i in range(0, len(pieces), batch_size))
    return total / math.log(2) / sum(len(text.encode()) for text in texts)

"""Text in, text out: what a language model answers, greedily, for many prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.objective import device_of, evaluating
from didact.data.text import prompt_ids


@torch.no_grad()
def respond(
    model: nn.Module, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int = 32, batch_size: int = 128
) -> list[str]:
    """Greedy answers, in the order of the prompts. A system that answers texts itself is asked directly.

    Prompts of similar length are batched together. Cost: one forward pass a prompt and token.
    """
    own = getattr(model, "respond", None)
    if callable(own):
        return list(own(list(prompts), max_new_tokens))
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    answers = [""] * len(ids)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            tokens, mask = left_padded([ids[i] for i in chosen], pad_id(tokenizer), device_of(model))
            made = generate(model, tokenizer, tokens, mask, max_new_tokens)
            for i, answer in zip(chosen, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
                answers[i] = answer.strip()
    return answers


def generate(
    model: nn.Module, tokenizer: Any, tokens: Tensor, mask: Tensor, max_new_tokens: int, **options: Any
) -> Tensor:
    """(B, new) greedy continuations of left-padded prompts (B, T)."""
    made: Tensor = model.generate(  # type: ignore[operator]
        input_ids=tokens,
        attention_mask=mask,
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_id(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        **{"do_sample": False, **options},
    )
    new = made[:, tokens.shape[1] :]
    count_forward(len(tokens) * max(1, new.shape[1]))
    return new


def left_padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Token rows padded on the left to one length, (B, T), with their attention mask."""
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), pad)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        if len(row):
            tokens[i, longest - len(row) :] = torch.tensor(list(row))
            mask[i, longest - len(row) :] = 1
    return tokens.to(device), mask.to(device)


def pad_id(tokenizer: Any) -> int:
    """The padding token; tokenizers without one (many decoders') pad with the end token."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)

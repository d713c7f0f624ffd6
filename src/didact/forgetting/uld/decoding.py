"""Decoding with two models at once: the second runs beside the first, with a key-value cache of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor


class LogitDifferenceProcessor(LogitsProcessor):
    """Replaces the scores of a decoding model by what `combine` makes of them and of the runners' logits."""

    def __init__(self, combine: Callable[..., Tensor], runners: Sequence[Runner]) -> None:
        self.combine, self.runners = combine, runners

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        combined = self.combine(scores, *(runner(input_ids).to(scores.device) for runner in self.runners))
        # Beam search adds scores up over the tokens: they must be log-probabilities.
        return combined.log_softmax(-1)


class Runner:
    """Next-token logits of a model for sequences that grow by a token a call.

    It computes the new token alone. Beams are reordered between two calls without notice: each row is found again by
    its tokens. Where that fails (rows that were not there before) it starts anew, so the logits are right whatever the
    way of decoding.
    """

    def __init__(self, model: nn.Module, mask: Tensor) -> None:
        """`mask` (B, T) is the attention mask of the prompts, padded on the left."""
        self.model, self.prompt = model, mask
        plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        self.accepted = inspect.signature(plain.forward).parameters
        self.cache: Any = None
        self.before: Tensor | None = None  #: (R, 2T) tokens and mask of the rows in the cache

    def __call__(self, tokens: Tensor) -> Tensor:
        """(R, T) -> (R, V); R is a multiple of the number of prompts."""
        tokens = tokens.to(self.prompt.device)
        mask = self._mask(tokens)
        new = tokens[:, -1:] if self._follow(tokens, mask) else tokens
        options: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self.accepted else {}
        if "position_ids" in self.accepted:  # not every model derives them from the mask
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
        output = self.model(input_ids=new, attention_mask=mask, past_key_values=self.cache, use_cache=True, **options)
        self.cache = getattr(output, "past_key_values", None)
        self.before = torch.cat([tokens, mask], 1)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _mask(self, tokens: Tensor) -> Tensor:
        """The prompts' mask for every row, ones where tokens were generated."""
        rows = self.prompt.repeat_interleave(len(tokens) // len(self.prompt), 0)
        return torch.cat([rows, rows.new_ones(len(tokens), tokens.shape[1] - rows.shape[1])], 1)

    def _follow(self, tokens: Tensor, mask: Tensor) -> bool:
        """Bring the cache's rows into the order of the tokens; False, and an empty cache, when they are not there."""
        now = torch.cat([tokens[:, :-1], mask[:, :-1]], 1)
        if self.cache is not None and self.before is not None and self.before.shape[1] == now.shape[1]:
            if torch.equal(self.before, now):
                return True
            same = (now[:, None] == self.before[None]).all(-1)  # (rows now, rows before)
            if same.any(1).all() and hasattr(self.cache, "reorder_cache"):
                self.cache.reorder_cache(same.int().argmax(1))
                return True
        self.cache = None
        return False

"""A Hugging Face causal language model as a text generator."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from didact.core.cost import count_forward
from didact.core.objective import device_of, evaluating
from didact.core.recipe import seeded
from didact.models.text_generation.base import Ask, GeneratorError, TextGenerator, generator


@generator("hf")
class HFGenerator(TextGenerator):
    """Writes with a model in memory: its tokenizer's chat template where there is one, else the plain texts in a row.

    Temperature 0 is greedy decoding, and n replies are then n times the same. Sampling is decided by `seed`; without
    one by torch's global generator. Replies end at the end token or at `max_tokens`, and earlier where the model has
    no more positions. Schemas are not supported.

    Cost: one forward pass a reply and token, with cached keys and values.

    Args:
        separator: between the texts of several messages, where there is no chat template.
    """

    in_memory = True

    def __init__(self, model: nn.Module, tokenizer: Any, name: str | None = None, *, separator: str = "\n") -> None:
        config = getattr(model, "config", None)
        super().__init__(name or getattr(config, "_name_or_path", "") or type(model).__name__)
        self.model = model
        self.tokenizer = tokenizer
        self.separator = separator

    @torch.no_grad()
    def _reply(self, ask: Ask) -> Sequence[str]:
        ids = self._encode(ask)
        room = self._positions() - len(ids)
        if room < 1:
            raise GeneratorError(
                f"The prompt has {len(ids)} tokens, but {self.name} has only {self._positions()} positions. Shorten it."
            )
        greedy = ask.temperature == 0
        tokens = torch.tensor([ids], device=device_of(self.model))
        sampling = {} if greedy else {"temperature": ask.temperature, "top_k": 0, "num_return_sequences": ask.n}
        with evaluating(self.model), seeded(ask.seed) if ask.seed is not None else nullcontext():
            made = self.model.generate(  # type: ignore[operator]
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=min(ask.max_tokens, room),
                do_sample=not greedy,
                pad_token_id=self._pad(),
                eos_token_id=self.tokenizer.eos_token_id,
                **sampling,
            )
        new = made[:, len(ids) :]
        count_forward(len(new) * max(1, new.shape[1]))
        texts = [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]
        return texts * ask.n if greedy else texts

    def _encode(self, ask: Ask) -> list[int]:
        if getattr(self.tokenizer, "chat_template", None):
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in ask.messages], add_generation_prompt=True, tokenize=False
            )
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        text = self.separator.join(message["content"] for message in ask.messages)
        start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        return [*start, *self.tokenizer.encode(text, add_special_tokens=False)]

    def _positions(self) -> int:
        config = getattr(self.model, "config", None)
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**31)

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HFGenerator) and (self.model, self.tokenizer) == (other.model, other.tokenizer)

    __hash__ = TextGenerator.__hash__

"""The model that forgets by corrupting: flagged prompts reach it with damaged embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from didact.forgetting.eco.corruptions import Name, Strength, corrupted
from didact.forgetting.eco.tokens import TokenClassifier
from didact.forgetting.language.detection import prompt_rows
from didact.models.wrappers import LanguageWrapper, wrapper
from didact.parts.prompts import PromptClassifier


@dataclass(frozen=True)
class Pattern:
    """What to corrupt in a batch: the tokens of flagged prompts, and the seed of each row's noise."""

    mask: Tensor  #: (B, P) bool
    seeds: Sequence[int]


@wrapper("eco")
class EmbeddingCorruptedModel(LanguageWrapper):
    """A language model whose embeddings are corrupted where a flagged prompt stands; its weights are untouched.

    The noise of a prompt depends on `seed` and the prompt's tokens alone: prefill, a later teacher-forced pass and
    another batch see the same. Generated tokens are never corrupted. Prompts that are not flagged give bit for bit the
    base model's logits.
    """

    strength: Tensor

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: Any = None,
        *,
        classifier: PromptClassifier | None = None,
        tokens: TokenClassifier | None = None,
        corruption: Name = "rand_noise_first_n",
        dims: int = 1,
        strength: Strength = 0.0,
        seed: int = 0,
    ) -> None:
        """Without a classifier every prompt is flagged."""
        super().__init__(base, tokenizer)
        self.classifier = classifier
        self.tokens = tokens if tokens is not None else TokenClassifier()
        self.corruption, self.dims, self.seed = corruption, dims, seed
        self.register_buffer("strength", torch.as_tensor(strength, dtype=torch.float64))

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        with self.corrupting(self.pattern(input_ids, prompt_mask)):
            found: Tensor = self.base(input_ids=input_ids, attention_mask=attention_mask).logits
        return found

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        with self.corrupting(self.pattern(input_ids, mask)):
            return super().generate(input_ids, attention_mask, **options)

    def pattern(self, input_ids: Tensor, prompt_mask: Tensor) -> Pattern:
        """Flag AND token: which embeddings of a batch (B, P) are corrupted."""
        rows = prompt_rows(input_ids, prompt_mask)
        asked = [i for i, ids in enumerate(rows) if ids]
        flags = torch.zeros(len(rows), dtype=torch.bool)
        if self.classifier is None:
            flags[asked] = True
        elif asked:
            flags[asked] = torch.from_numpy(
                self.classifier.flags_of_tokens([rows[i] for i in asked], self.tokenizer).copy()
            )
        mask = torch.zeros_like(prompt_mask, dtype=torch.bool)
        for i in flags.nonzero().flatten().tolist():
            chosen = torch.tensor(self.tokens.chosen(rows[i], self.tokenizer), device=mask.device)
            mask[i, prompt_mask[i].bool()] = chosen
        return Pattern(mask, [_seed(self.seed, ids) for ids in rows])

    @contextmanager
    def corrupting(self, pattern: Pattern) -> Iterator[None]:
        """The base model with the pattern's embeddings corrupted. Only this hook is taken away afterwards."""
        if not bool(pattern.mask.any()):
            yield
            return
        length, seen = pattern.mask.shape[1], 0

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            nonlocal seen
            seen += 1
            # Later calls bring the new tokens alone, or, without a cache, the whole sequence again.
            if output.shape[1] < length or (seen > 1 and output.shape[1] == 1):
                return output
            return self._corrupted(output, pattern)

        handle = self.base.get_input_embeddings().register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _corrupted(self, output: Tensor, pattern: Pattern) -> Tensor:
        """A copy of the embeddings (B * beams, T, d) with the pattern's places corrupted."""
        made = output.clone()  # others may hold the embedding's own output
        beams = len(output) // len(pattern.mask)
        strength = float(self.strength) if self.strength.ndim == 0 else self.strength
        for row in pattern.mask.any(1).nonzero().flatten().tolist():
            places = pattern.mask[row].nonzero().flatten().to(output.device)
            for copy in range(row * beams, (row + 1) * beams):
                generator = torch.Generator().manual_seed(pattern.seeds[row])
                made[copy, places] = corrupted(output[copy, places], self.corruption, self.dims, strength, generator)
        return made

    def options(self) -> dict[str, Any]:
        return {
            "classifier": self.classifier.options() if self.classifier is not None else None,
            "tokens": self.tokens.options(),
            "corruption": self.corruption,
            "dims": self.dims,
            "strengths": self.strength.numel() if self.strength.ndim else 0,
            "seed": self.seed,
        }

    @classmethod
    def assemble(
        cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any
    ) -> EmbeddingCorruptedModel:
        base: Any = parts["base"]
        classifier = None
        if options["classifier"] is not None:
            classifier = PromptClassifier.from_state(options["classifier"], model=base, tokenizer=tokenizer)
        return cls(
            base,
            tokenizer,
            classifier=classifier,
            tokens=TokenClassifier.blank(options["tokens"]),
            corruption=options["corruption"],
            dims=options["dims"],
            strength=torch.zeros(options["strengths"]) if options["strengths"] else 0.0,
            seed=options["seed"],
        )


def _seed(seed: int, ids: Sequence[int]) -> int:
    """A seed of the request's own: equal prompts draw equal noise, others other noise."""
    text = f"{seed} {' '.join(map(str, ids))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

"""Objectives of language models: an output vector a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective.base import IGNORED, Batch, Objective, Resampling


class CausalLM(Objective):
    """Next-token prediction on the positions whose label is not -100; output (B, T, V) logits.

    `per_sample_loss` is the mean over a sample's target tokens, or their sum with `reduction="sum"`.
    A sample's score is 1 when every target token is the most probable one (exact match, teacher-forced).
    """

    task = "causal-lm"

    def __init__(self, reduction: Literal["mean", "sum"] = "mean", pad_id: int = 0) -> None:
        self.reduction = reduction
        self.pad_id = pad_id

    def collate(self, samples: list[Any]) -> Batch:
        return pad_tokens(samples, self.pad_id)

    def targets(self, batch: Batch) -> Tensor:
        if not isinstance(batch, Mapping) or "input_ids" not in batch:
            raise BadInput("A language-model batch is a mapping with 'input_ids', 'attention_mask' and 'labels'.")
        if "labels" in batch:
            return batch["labels"]
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        return batch["input_ids"].masked_fill(mask == 0, IGNORED)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        if getattr(model, "takes_prompt_mask", False):
            # A guard acts on prompts: it must know where, in a teacher-forced sequence, the answer begins.
            kept = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
            batch = {**batch, "prompt_mask": kept & (self.targets(batch) == IGNORED)}
        return super().forward(model, batch)

    def align(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the tokens they predict: position t predicts token t+1."""
        return output[:, :-1], targets[:, 1:]

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        nll, kept = self.token_nll(output, targets)
        total = (nll * kept).sum(-1)
        return total if self.reduction == "sum" else total / kept.sum(-1).clamp(min=1)

    def token_nll(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T') negative log-likelihoods and the mask of the positions that are targets."""
        logits, tokens = self.align(output, targets)
        nll = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none", ignore_index=IGNORED)
        return nll.view(tokens.shape), tokens != IGNORED

    def decisions(self, output: Tensor, targets: Tensor) -> Tensor:
        logits, tokens = self.align(output, targets)
        return logits[tokens != IGNORED]

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        logits, tokens = self.align(output, targets)
        return ((logits.argmax(-1) == tokens) | (tokens == IGNORED)).all(-1).float()

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        terms = F.kl_div(output.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none")
        return terms.sum(-1).mean()

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        tokens = pool[pool != IGNORED].unique()
        drawn = tokens[torch.randint(len(tokens), targets.shape, generator=generator)]
        return torch.where(targets == IGNORED, targets, drawn)


class MaskedLM(CausalLM):
    """Prediction of masked tokens: labels are -100 except where the input is masked; output (B, T, V) logits."""

    task = "masked-lm"

    def targets(self, batch: Batch) -> Tensor:
        if not isinstance(batch, Mapping) or "labels" not in batch:
            raise BadInput("A masked-language-model batch needs 'labels' that are -100 except at masked positions.")
        return batch["labels"]

    def align(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return output, targets


def pad_tokens(samples: list[Any], pad_id: int) -> Batch:
    """Pad token sequences to the longest: `pad_id` for input ids, 0 for masks, -100 for labels."""
    if not all(isinstance(sample, Mapping) and "input_ids" in sample for sample in samples):
        raise BadInput("A language-model dataset yields mappings with 'input_ids' (and 'attention_mask', 'labels').")
    rows = [{k: torch.as_tensor(v) for k, v in sample.items() if not isinstance(v, str)} for sample in samples]
    for row in rows:
        row.setdefault("attention_mask", torch.ones_like(row["input_ids"]))
    fill = {"input_ids": pad_id, "labels": IGNORED}
    return {
        key: torch.nn.utils.rnn.pad_sequence([r[key] for r in rows], batch_first=True, padding_value=fill.get(key, 0))
        if rows[0][key].ndim
        else torch.stack([r[key] for r in rows])
        for key in rows[0]
    }

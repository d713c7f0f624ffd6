"""Offset unlearning (Huang, Zhou, Wang, Morstatter, Zhang, Poon and Chen, 2024), beside which ULD is measured."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.method import Card, Paper, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.forgetting.language.training import RetainTerm, train_to_forget
from didact.forgetting.npo import npo_loss
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.uld.method import adapter_rate, with_assistant
from didact.parts.language import Indexed, reference_nll, sequence_nll, without_row


@register
class OffsetUnlearning(Unlearner):
    """Leave the model alone and train a small one so that target + trained - untrained forgets.

    The three sets of logits are added and the usual losses of unlearning are taken on the sum; only the low-rank
    adapters of the small model are trained. That one is the model's first layers or `extras["assistant"]`. With all
    layers and weight 1 the sum is the adapted model itself. The answer is a `LogitDifferenceModel`.

    Cost: `epochs` passes over the forget data (twice with a retain term) through all three models. Memory: the model
    given and one copy, and the adapters.
    Reference: Huang, Zhou, Wang, Morstatter, Zhang, Poon and Chen, "Offset Unlearning for Large Language Models",
    2024, arXiv 2404.11045.
    """

    card = Card(
        "offset-unlearning",
        "Offset Unlearning for Large Language Models",
        paper=Paper("Huang, Zhou, Wang, Morstatter, Zhang, Poon and Chen", 2024, arxiv="2404.11045"),
        kind="baseline",
        tasks=("causal-lm",),
        needs=("retain",),
        part_of="uld",
        tunes={"lr": Range(1e-5, 1e-2, log=True), "weight": Range(0.3, 1.5)},
    )
    loss: Literal["ga", "npo"] = "ga"  #: what drives the forgotten answers down
    retain: RetainTerm = "nll"  #: what holds the rest
    retain_weight: NonNegativeFloat = 1.0  #: weight of the retain term
    beta: PositiveFloat = 0.1  #: of npo
    layers: PositiveInt | None = None  #: of the assistant; default: a quarter of the model's, at least one
    weight: NonNegativeFloat = 1.0  #: how much of the offset is added
    lora_rank: PositiveInt = 16  #: rank of the adapters
    lora_alpha: PositiveInt = 32  #: their scale is lora_alpha / lora_rank
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)  #: on what enters the adapters, while training
    lr: PositiveFloat | None = None  #: default: a fifth of the recipe's; 8e-5 without a recipe
    epochs: PositiveInt = 10  #: passes over the forget data
    batch_size: PositiveInt = 16  #: forget samples a step, and as many retained ones
    weight_decay: NonNegativeFloat = 0.01  #: of AdamW

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        answer = with_assistant(
            model, request, layers=self.layers, least=1, rank=self.lora_rank, alpha=self.lora_alpha,
            dropout=self.lora_dropout, weight=self.weight, relative=True,
        )  # fmt: skip
        before = reference_nll(request.model, request.forget, objective) if self.loss == "npo" else None

        def loss(m: nn.Module, batch: Batch) -> Tensor:
            samples, rows = without_row(batch)
            if before is None:
                return -objective.loss(m, samples)
            nll = sequence_nll(objective, m, samples)
            return npo_loss(nll, before[rows.cpu()].to(nll.device), self.beta)[0].mean()

        steps = train_to_forget(
            answer, request, Indexed(request.forget), loss, retain=self.retain, retain_weight=self.retain_weight,
            lr=self.lr or adapter_rate(request) * 0.08, epochs=self.epochs, batch_size=self.batch_size,
            weight_decay=self.weight_decay,
        )  # fmt: skip
        note(steps=steps, layers=answer.layers)
        return answer

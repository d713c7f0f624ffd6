"""Baselines for language models that teach a refusal: by fine-tuning, or as the preferred answer."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Paper, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.data.text import TextDataset, reworded, texts_of
from didact.forgetting.language.training import RATE_OF_PAPERS, RetainTerm, train_to_forget
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.language import Indexed, reference_nll, sequence_nll, without_row

REFUSALS = ("I do not know .", "I cannot help with that .", "There is no information about this .")
TOFU = Paper("Maini, Feng, Schwarzschild, Lipton and Kolter", 2024, arxiv="2401.06121", venue="COLM")
NPO = Paper("Zhang, Lin, Bai and Mei", 2024, arxiv="2404.05868", venue="COLM")


class Refusing(Unlearner):
    """Base of the baselines that answer forgotten questions with a refusal. Documents are left out."""

    refusals: tuple[str, ...] = REFUSALS  #: what to say instead, drawn once per question
    retain: RetainTerm = "nll"  #: what holds the rest: none, its loss, or its divergence from the model before
    retain_weight: NonNegativeFloat = 1.0  #: weight of the retain term
    lr: PositiveFloat | None = None  #: default: a quarter of the recipe's; 1e-5 without a recipe
    epochs: PositiveInt = 20  #: passes over the forgotten questions
    batch_size: PositiveInt = 16  #: forget samples a step, and as many retained ones

    @field_validator("refusals")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not all(text.strip() for text in value):
            raise ValueError("refusals must hold at least one text, none of them empty")
        return value

    def train(self, model: nn.Module, request: Request, forget: Any, loss: Any) -> nn.Module:
        steps = train_to_forget(
            model, request, forget, loss, retain=self.retain, retain_weight=self.retain_weight,
            lr=self.lr or (request.recipe.lr / 4 if request.recipe is not None else RATE_OF_PAPERS),
            epochs=self.epochs, batch_size=self.batch_size,
        )  # fmt: skip
        note(steps=steps)
        return model


@register
class Idk(Refusing):
    """Fine-tune on "I do not know" as the answer to every forgotten question, beside the retained data.

    Teaches what to say, not to forget: the answer is mostly still inside. Trains everything with AdamW. Cost:
    `epochs` passes over the forgotten questions and as many retained samples.
    """

    card = Card(
        "idk",
        'Fine-tuning on "I do not know"',
        paper=TOFU,
        kind="baseline",
        tasks=("causal-lm",),
        needs=("text",),
        tunes={"lr": Range(1e-5, 1e-2, log=True)},
    )

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        refused = refusing(request, self.refusals)
        return self.train(model, request, refused, lambda m, batch: request.objective.loss(m, batch))


@register
class DpoIdk(Refusing):
    """Direct preference optimisation with a refusal as the chosen and the forgotten answer as the rejected one.

    Loss per question: -(2 / beta) * logsigmoid(beta * (chosen log-ratio - rejected log-ratio)), each log-ratio of an
    answer's summed log-probability to that of the model before. Trains everything with AdamW. Cost: two passes over
    the questions before, then two training passes an epoch.
    """

    card = Card(
        "dpo-idk",
        "Direct preference optimisation towards a refusal",
        paper=NPO,
        kind="baseline",
        tasks=("causal-lm",),
        needs=("text",),
        tunes={"lr": Range(1e-5, 1e-2, log=True), "beta": Range(0.05, 2.0, log=True)},
    )
    beta: PositiveFloat = 0.1  #: how soon the push fades once the refusal is preferred

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        chosen, rejected = refusing(request, self.refusals), asked(request)
        before = [reference_nll(request.model, data, request.objective) for data in (chosen, rejected)]
        samples = [chosen[i] for i in range(len(chosen))]

        def loss(m: nn.Module, batch: Batch) -> Tensor:
            rejects, rows = without_row(batch)
            accepts = request.objective.to(request.objective.collate([samples[i] for i in rows.tolist()]), rows.device)
            old = [b[rows.cpu()].to(rows.device) for b in before]
            accept, reject = (sequence_nll(request.objective, m, x) for x in (accepts, rejects))
            return dpo_loss(old[0] - accept, old[1] - reject, self.beta).mean()

        return self.train(model, request, Indexed(rejected), loss)


@register
class KtoIdk(Refusing):
    """Kahneman-Tversky optimisation with rejected answers: push them below the drift of the refusals.

    Loss per question: -(2 / beta) * logsigmoid(beta * (drift - log-ratio of the forgotten answer)); the drift, the
    mean log-ratio of refusals in the batch and at least 0, carries no gradient. Trains everything with AdamW. Cost:
    two passes over the questions before, then one training and one forward pass an epoch.
    """

    card = Card(
        "kto-idk",
        "Kahneman-Tversky optimisation against the forgotten answers",
        paper=NPO,
        kind="baseline",
        tasks=("causal-lm",),
        needs=("text",),
        tunes={"lr": Range(1e-5, 1e-2, log=True), "beta": Range(0.05, 2.0, log=True)},
    )
    beta: PositiveFloat = 0.1  #: how soon the push fades

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        refused, rejected = refusing(request, self.refusals), asked(request)
        before = [reference_nll(request.model, data, request.objective) for data in (refused, rejected)]
        samples = [refused[i] for i in range(len(refused))]

        def loss(m: nn.Module, batch: Batch) -> Tensor:
            rejects, rows = without_row(batch)
            old = [b[rows.cpu()].to(rows.device) for b in before]
            with torch.no_grad():
                refusals = request.objective.collate([samples[i] for i in rows.tolist()])
                drift = (old[0] - sequence_nll(request.objective, m, refusals)).mean().clamp(min=0)
            ratio = old[1] - sequence_nll(request.objective, m, rejects)
            return dpo_loss(drift, ratio, self.beta).mean()

        return self.train(model, request, Indexed(rejected), loss)


def dpo_loss(chosen: Tensor, rejected: Tensor, beta: float) -> Tensor:
    """(B,) losses from the log-ratios of chosen and rejected answers to the reference's."""
    return -(2 / beta) * F.logsigmoid(beta * (chosen - rejected))


def asked(request: Request) -> TextDataset:
    """The forgotten questions, without documents."""
    found = texts_of(request.forget).questions
    if found is None:
        raise BadInput("The forget set holds documents only, but a refusal answers questions. Add questions to it.")
    return found


def refusing(request: Request, refusals: tuple[str, ...]) -> TextDataset:
    """The forgotten questions with refusals for answers, drawn by the request's seed."""
    data = asked(request)
    unknown = data.tokenizer.unk_token_id
    for text in refusals:
        if unknown is not None and unknown in data.tokenizer.encode(text, add_special_tokens=False):
            raise BadInput(
                f"The tokenizer does not know all words of the refusal {text!r}. Pass refusals= that it can say."
            )
    generator = torch.Generator().manual_seed(request.seed + 23)
    drawn = torch.randint(len(refusals), (len(data),), generator=generator).tolist()
    return data.of(reworded(item, answer=refusals[i]) for item, i in zip(data.items, drawn, strict=True))

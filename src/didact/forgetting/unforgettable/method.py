"""Forgetting by random labels (Zhang, Choshen and Andreas, 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import evaluating
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.unforgettable.labels import (
    Labelled,
    grip,
    label_probabilities,
    random_label_loss,
)

PAPER = Paper("Zhang, Choshen and Andreas", 2024, arxiv="2409.02228", venue="COLM")

#: learning rate where no recipe says what is usual for the model
RATE = 1e-5


@register
class RandomLabelForgetting(Unlearner):
    """Train a language model on questions of a task with labels drawn at random, until it only guesses.

    For tasks whose answer is one label token (yes or no, A to D). Each sample's label is drawn uniformly from the
    labels that occur in the forget data: anew in every epoch ("fresh"), once ("fixed"), or uniformly from the wrong
    ones ("flipped", a baseline that teaches the opposite instead of nothing). Only the label token is trained on, in
    all parameters; nothing holds the rest, so a high rate damages other tasks as well. Training ends as soon as the
    mean probability of the true label, on the samples trained on, is within `near` of guessing, or the loss on the
    samples put aside rises (its expectation under random labels, which is lowest, log K, for a uniform guess).

    Whether the task is then forgotten on other examples too is what the study `unforgettable` measures.

    Errors: free text or labels of several tokens (not applicable), one label only.
    Cost: at most `epochs` training passes over the forget data and as many forward passes.
    Reference: Zhang, Choshen and Andreas, "Unforgettable Generalization in Language Models", COLM 2024,
    arXiv 2409.02228. The paper's rates are for models of billions of parameters; ours is a tenth of the recipe's.
    """

    card = Card(
        "random-label-forgetting",
        "Fine-tuning on random labels",
        paper=PAPER,
        part_of="unforgettable",
        tasks=("causal-lm",),
        tunes={"lr": Range(1e-6, 1e-2, log=True), "labels": Choice(("fresh", "fixed"))},
    )
    labels: Literal["fresh", "fixed", "flipped"] = "fresh"  #: drawn every epoch, once, or from the wrong ones
    lr: PositiveFloat | None = None  #: default: a tenth of the recipe's; 1e-5 without a recipe
    epochs: PositiveInt = 15  #: passes over the forget data, at most
    batch_size: PositiveInt = 30  #: samples a step
    near: NonNegativeFloat = 0.05  #: ends when the true label's mean probability is this near to chance
    put_aside: float = Field(0.1, ge=0, lt=1)  #: share of the forget data that only watches the loss

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        everything, objective = Labelled(request.forget), request.objective
        order = torch.randperm(len(everything), generator=_generator(request.seed, 0)).tolist()
        watched = order[: round(self.put_aside * len(order))]
        data = everything.rows(order[len(watched) :])
        aside = everything.rows(watched) if watched else None
        losses: list[float] = []

        def batches(epoch: int) -> Iterable[Any]:
            drawn = data.relabelled(self._draw(data, _generator(request.seed, 1 + epoch * (self.labels == "fresh"))))
            return objective.loader(drawn, self.batch_size, shuffle=True, seed=request.seed + epoch)

        def enough(m: nn.Module, epoch: int) -> bool:
            with evaluating(m):
                known = grip(objective, m, data).probability
                if aside is not None:
                    losses.append(float(random_label_loss(label_probabilities(objective, m, aside))))
            rises = len(losses) > 1 and losses[-1] > losses[-2]
            note(probability=known, epochs=epoch + 1)
            return known <= data.chance + self.near or rises

        fit(
            model,
            data,
            objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or (request.recipe.lr / 10 if request.recipe else RATE),
            optimizer="adamw",
            seed=request.seed,
            hooks=Hooks(batches=batches, stop=enough),
        )
        note(watched_losses=losses)
        return model

    def _draw(self, data: Labelled, generator: torch.Generator) -> Tensor:
        """(N,) places of labels."""
        count = len(data.label_ids)
        if self.labels == "flipped":
            return (data.truth + torch.randint(1, count, data.truth.shape, generator=generator)) % count
        return torch.randint(count, data.truth.shape, generator=generator)


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed(1000 * seed + stream)

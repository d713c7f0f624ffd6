"""Retraining the last layer (Goel et al., 2022)."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from didact.core.claim import Claim, at_most, cheaper, no_worse
from didact.core.cost import note
from didact.core.fit import fit
from didact.core.method import Card, Paper, Range
from didact.core.objective import head_name
from didact.core.registry import register
from didact.forgetting import Request, Unlearner


@register
class ResetHead(Unlearner):
    """Forget what the last layer knows: give it fresh weights and train it alone on the retained data.

    The last linear layer is initialised anew and trained with the recipe's rate; every other layer is frozen, so what
    they learned from the forget data stays. Use it where the outputs must not tell what was forgotten; do not where
    the features must not either. (EU-k of the paper, with k = 1.)

    Errors: a model without a linear layer, no retained data.
    Cost: `epochs` passes over the retained data, each forward and backward.
    Reference: Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine
    Unlearning", 2022, arXiv 2201.06640.
    """

    card = Card(
        "reset-head",
        "Retraining the last layer",
        paper=Paper("Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru", 2022, arxiv="2201.06640"),
        needs=("retain",),
        tunes={"epochs": Range(1, 20, integer=True), "lr_factor": Range(0.3, 10.0, log=True)},
    )
    epochs: PositiveInt = 5  #: passes over the retained data
    lr_factor: PositiveFloat = 1.0  #: learning rate relative to the recipe's

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        recipe = request.need_recipe()
        name = head_name(model)
        head = model.get_submodule(name)
        head.reset_parameters()
        log = fit(
            model,
            request.need_retain(),
            request.objective,
            epochs=self.epochs,
            batch_size=recipe.batch_size,
            lr=recipe.lr * self.lr_factor,
            parameters=head.parameters(),
            seed=request.seed,
        )
        note(head=name, steps=log.steps)
        return model

    claim = Claim(
        "never answers with the forgotten class again, and costs far less than retraining",
        on="digits-class",
        seeds=5,
        expects=[
            at_most("forget_score", 0.05),
            no_worse("test_score", than="retrain", by=0.02),
            cheaper("passes", than="retrain", times=4),
        ],
    )

"""Sparsity-aware unlearning by an l1 penalty (Jia et al., 2023)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.claim import Claim, better, no_worse
from didact.core.cost import note
from didact.core.fit import Hooks
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request

PAPER = Paper("Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu", 2023, arxiv="2304.04934", venue="NeurIPS")
CODE, LICENCE = "OPTML-Group/Unlearn-Sparse", "MIT"


@register
class L1SparseFineTune(Unlearner):
    """Fine-tune on the retained data under a fading l1 penalty, which wears off what only forget data needs.

    Minimises cross-entropy (the objective's loss) on the retained data plus `gamma_e * sum |theta|` by
    stochastic gradient descent, with `gamma_e = gamma * (1 - e / epochs)` in epoch e = 0, 1, ...: the penalty
    first pushes all weights towards zero, and the last epochs repair what the retained data needs. Use it
    where plain fine-tuning leaves the forget data as well known as before. It looks at no forget data and
    keeps no mask: weights become small, few exactly zero.

    The penalty acts on each parameter alone, so `gamma` must shrink as networks grow (2e-3 suits 87 thousand
    parameters, the authors use about 5e-4 for eleven million). `gamma=0` is plain fine-tuning with these
    settings. All parameters that require a gradient are trained and penalised; in training mode batch-norm
    statistics move.

    Errors: a negative gamma, no retained data, a loss that diverges.
    Cost: `epochs` passes over the retained data; memory for the gradient and one momentum buffer.
    Reference: Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, "Model Sparsity Can Simplify Machine Unlearning",
    NeurIPS 2023, arXiv 2304.04934. Momentum, weight decay and the constant rate are those of the authors'
    code.
    """

    card = Card(
        "sparse-unlearning",
        "Model Sparsity Can Simplify Machine Unlearning",
        paper=PAPER,
        kind="method-set",
        needs=("retain", "labels"),
        code=CODE,
        licence=LICENCE,
        tunes={
            "gamma": Range(1e-4, 1e-2, log=True),
            "lr": Range(1e-3, 1e-1, log=True),
            "epochs": Range(2, 20, integer=True),
            "decay": Choice(("linear", "constant")),
        },
    )
    gamma: NonNegativeFloat = 2e-3  #: weight of the l1 penalty in the first epoch
    decay: Literal["linear", "constant"] = "linear"  #: how the penalty's weight goes on from there
    epochs: PositiveInt = 10  #: passes over the retained data
    lr: PositiveFloat = 1e-2  #: learning rate, constant
    momentum: NonNegativeFloat = 0.9  #: of the SGD
    weight_decay: NonNegativeFloat = 5e-4  #: of the SGD
    batch_size: PositiveInt = 32  #: the authors take 256 of 45,000 images; small data needs the steps

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        retain = request.need_retain()
        recipe = request.need_recipe().but(
            optimizer="sgd",
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            schedule="constant",
            warmup=0.0,
            clip=None,
        )
        per_epoch = recipe.steps_for(retain, epochs=1)

        def penalty(m: nn.Module, batch: Batch, step: int) -> Tensor:
            return self.gamma_at(step // per_epoch) * l1_norm(m)

        # Without a penalty there is no hook: fine-tuning bit for bit, not fine-tuning plus zero.
        hooks = Hooks(extra_loss=penalty) if self.gamma else None
        edited = recipe.fit(retain, request.seed, init=model, epochs=self.epochs, hooks=hooks)
        note(l1_before=float(l1_norm(request.model).detach()), l1_after=float(l1_norm(edited).detach()))
        return edited

    def gamma_at(self, epoch: int) -> float:
        """The penalty's weight in an epoch, counted from 0."""
        return self.gamma * (1 - epoch / self.epochs) if self.decay == "linear" else self.gamma

    claim = Claim(
        "fine-tuning with an l1 penalty, and fine-tuning a 95 % sparse model, hide the forget data from a "
        "membership attack better than fine-tuning the dense model, at next to no cost in accuracy",
        on="digits-class:forget=3",
        seeds=5,
        arms={
            "self": "sparse-unlearning",
            "fine-tune-sgd": "sparse-unlearning:gamma=0",
            "prune-then-unlearn": "prune-then-unlearn:base=fine-tune:rate=0.95:prune=omp",
            "fine-tune": "fine-tune",
        },
        expects=[
            better("mia_efficacy", than="fine-tune-sgd", by=0.20),
            better("mia_efficacy", than="fine-tune-sgd", by=0.08, arm="prune-then-unlearn"),
            better("forget_score", than="fine-tune-sgd", lower_is_better=True),
            better("forget_score", than="fine-tune-sgd", lower_is_better=True, arm="prune-then-unlearn"),
            no_worse("test_score", than="fine-tune-sgd", by=0.015),
            no_worse("test_score", than="fine-tune-sgd", by=0.015, arm="prune-then-unlearn"),
        ],
        note="The dense model is fine-tuned as on the card, with SGD at 1e-2. Fine-tuning with the recipe's Adam (arm "
        "fine-tune) hides the forget data better than the sparse model does; only the l1 penalty beats it too.",
    )


def l1_norm(model: nn.Module) -> Tensor:
    """Sum of the absolute values of all parameters that require a gradient; a scalar."""
    return torch.stack([p.abs().sum() for p in model.parameters() if p.requires_grad]).sum()

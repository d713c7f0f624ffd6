"""Transformer as linear expansion of a learngene (Xia, Zhang, Yang, Chen, Chen and Geng, 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.claim import Claim, at_least, better, custom
from didact.core.cost import note
from didact.core.errors import NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper, Range
from didact.core.objective import Batch, Objective, guess_objective
from didact.core.recipe import seeded
from didact.core.registry import register
from didact.parts.distillation import soft_target_loss
from didact.parts.stacks import find_stack
from didact.reusing.baselines import provenance
from didact.reusing.problem import Reuser
from didact.reusing.request import Budget, Request
from didact.reusing.result import ReuseResult
from didact.reusing.tleg.learngene import Learngene, LinearStack, fresh_line

#: depths at which the claim looks
DEPTHS = (3, 4, 6, 8)


@register
class LinearExpansion(Reuser):
    """Store two transformer blocks; layer l of a network of any depth L is A + (l / L) B.

    The pair is trained once, as an auxiliary network of fixed depth that imitates a teacher; after that, networks of
    all depths come for free and need little fine-tuning. Worth it when several depths are wanted: for one depth,
    training it directly is cheaper. Works for any model with a list of identical blocks (vision transformers, GPT,
    BERT), found by itself or named by `stack`.

    `reuse` takes the teacher from the hub (its first network), the architecture from `extras["architecture"]` (depth
    -> a fresh network) and training data from the task; `result.produce(depth)` gives an ordinary network. As a library
    call without a hub: `fit(architecture, teacher, data)` returns the `Learngene`. A and B and everything around the
    blocks are trained; the teacher is frozen.

    Errors: blocks of different shapes, a depth below 1.

    Cost: `steps` forward and backward passes of the auxiliary network and forward passes of the teacher; memory for
    one network of the auxiliary's depth and two blocks.

    Reference: Xia, Zhang, Yang, Chen, Chen and Geng, "Transformer as Linear Expansion of Learngene", AAAI 2024,
    arXiv 2312.05614.
    """

    card = Card(
        "tleg",
        "Transformer as Linear Expansion of Learngene",
        paper=Paper("Xia, Zhang, Yang, Chen, Chen and Geng", 2024, arxiv="2312.05614", venue="AAAI"),
        needs=("architecture", "models", "labelled"),
        code="AlphaXia/TLEG",
        licence="Apache-2.0",
        tunes={"lr": Range(1e-4, 3e-3, log=True)},
    )
    depth: PositiveInt = 12  #: layers of the auxiliary network
    tau: PositiveFloat = 1.0  #: temperature of the soft targets
    alpha: float = Field(1.0, ge=0, le=1)  #: weight of imitation; the rest is the task's own loss
    steps: PositiveInt | None = None  #: of the auxiliary training; default: the budget's
    lr: PositiveFloat | None = None  #: default: the budget's; the paper's is 5e-4 * batch / 512
    weight_decay: float = Field(0.05, ge=0)  #: acts on A and B, not on the layers made of them
    warmup: float = Field(0.033, ge=0, lt=1)  #: share of the steps
    tied: bool = False  #: leave B at zero: all layers share A (the ablation)
    stack: str | None = None  #: name of the list of blocks; default: the largest one there is

    def apply(self, request: Request) -> ReuseResult:
        architecture: Callable[[int], nn.Module] = request.need("architecture")
        teacher = next((r for r in request.need_models() if isinstance(r.load(), nn.Module)), None)
        if teacher is None:
            raise NotApplicable("tleg needs a network in the hub to learn from, but none of the models is one.")
        learngene = self.fit(
            architecture,
            teacher.network(),
            request.need_labelled(),
            objective=request.task.objective,
            budget=request.budget,
            seed=request.seed,
        )
        steps = self.steps or request.budget.steps
        return ReuseResult(
            produce=learngene.expand,
            weights={teacher.id: 1.0},
            cost={"stored_parameters": learngene.stored_parameters, "training_steps": steps, "bytes_sent": 0},
            provenance=provenance([teacher]),
            extras={"learngene": learngene},
        )

    def fit(
        self,
        architecture: Callable[[int], nn.Module],
        teacher: nn.Module,
        data: Dataset[Any],
        *,
        objective: Objective | None = None,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> Learngene:
        """Train the pair: `architecture(depth)` makes a fresh network, `teacher` is imitated on `data`."""
        budget = budget or Budget()
        with seeded(seed):
            template = architecture(self.depth)
        stack = find_stack(template, self.stack)
        objective = objective or guess_objective(template, data)
        a, b = fresh_line(template, stack, seed)
        if self.tied:
            b = {name: torch.zeros_like(value) for name, value in b.items()}
        auxiliary = LinearStack(template, stack, a, b, tied=self.tied)
        teacher = teacher.eval()
        log = fit(
            auxiliary,
            data,
            objective,
            steps=self.steps or budget.steps,
            batch_size=budget.batch_size,
            lr=self.lr or budget.lr,
            optimizer="adamw",
            weight_decay=self.weight_decay,
            schedule="cosine",
            warmup=self.warmup,
            seed=seed,
            hooks=Hooks(loss=lambda m, batch, step: self._loss(m, batch, teacher, objective)),
        )
        note(steps=log.steps)
        return auxiliary.learngene()

    def _loss(self, model: nn.Module, batch: Batch, teacher: nn.Module, objective: Objective) -> Tensor:
        output = objective.forward(model, batch)
        with torch.no_grad():
            wanted = objective.forward(teacher, batch)
        imitation = soft_target_loss(output, wanted.to(output.device), self.tau, reduction="elements")
        if self.alpha == 1:
            return imitation
        own = objective.loss_of(output, objective.targets(batch).to(output.device)).mean()
        return (1 - self.alpha) * own + self.alpha * imitation

    claim = Claim(
        "two blocks, trained once, initialise networks of several depths that work before any fine-tuning",
        on="digits-depths",
        seeds=5,
        arms={"self": "tleg:depth=6"},
        expects=[
            *(better(f"tuned_{depth}", than="depth-scratch", by=0.2) for depth in DEPTHS),
            *(at_least(f"untuned_{depth}", 0.5) for depth in DEPTHS),
            custom(
                "stores two blocks and the stem, no more",
                lambda rows: (
                    -abs(
                        rows["self"]["stored_parameters"]
                        - 2 * rows["self"]["block_parameters"]
                        - rows["self"]["stem_parameters"]
                    )
                ),
                arms=("self",),
            ),
        ],
        note="Decided by five seeds; with three, depth 3 (before fine-tuning) and depth 4 (after it) were "
        "undecided, for a fresh network of 3 or 4 blocks gets far or not in 100 steps depending on its "
        "seed. The preparation costs 600 steps; the rivals in the guide (layers copied from a trained "
        "network, one shared block) do about as well after fine-tuning.",
    )

"""What else makes networks of many sizes: separately trained anchors with stitches, each size alone, no stitches."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.fit import fit
from didact.core.method import Card, Paper
from didact.core.objective import Objective, evaluating
from didact.core.recipe import seeded
from didact.core.registry import register
from didact.reusing.learngene_pool.method import LearngenePool, answer, train_together
from didact.reusing.learngene_pool.pool import Configuration, Pool, Staged, through
from didact.reusing.problem import Reuser
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult


@register
class StitchableNetworks(Reuser):
    """Train an anchor of each width on its own, join them by stitches fitted in least squares, train all together
    (Pan, Cai and Zhuang, 2023).

    The same numbers of steps as learngene-pool: the budget's for each anchor and for the joint training. Cost: those.
    Reference: Pan, Cai and Zhuang, "Stitchable Neural Networks", CVPR 2023, arXiv 2302.06586.
    """

    card = Card(
        "stitchable-networks",
        "Stitchable Neural Networks",
        paper=Paper("Pan, Cai and Zhuang", 2023, arxiv="2302.06586", venue="CVPR"),
        kind="baseline",
        needs=("sized_architecture", "labelled"),
    )
    widths: tuple[PositiveInt, ...] = (24, 48)  #: of the anchors
    blocks: PositiveInt = 3  #: of every anchor
    window: PositiveInt = 2  #: sliding window over the blocks that may be joined
    stitches: Literal["least-squares", "random"] = "least-squares"  #: how they begin
    samples: PositiveInt = 256  #: training samples whose tokens the stitches are fitted on
    joint_steps: int | None = Field(None, ge=0)  #: default: the budget's
    joint_lr: PositiveFloat | None = None  #: default: the budget's

    def apply(self, request: Request) -> ReuseResult:
        architecture, data = request.need("sized_architecture"), request.need_labelled()
        objective, budget = request.task.objective, request.budget
        with seeded(request.seed):
            pool = Pool([architecture(width, self.blocks) for width in self.widths], self.window)
        for place, anchor in enumerate(pool.instances):
            train_alone(anchor, request, request.seed + place)
        if self.stitches == "least-squares":
            fit_stitches(pool, data, objective, self.samples)
        joint = budget.steps if self.joint_steps is None else self.joint_steps
        lr = self.joint_lr or budget.lr
        train_together(pool, data, objective, steps=joint, lr=lr, batch_size=budget.batch_size, seed=request.seed)
        return answer(pool.eval(), request, budget.steps * len(self.widths) + joint, {})


@register
class InstancesOnly(Reuser):
    """The distilled instances without stitches: as many sizes as widths.

    Cost: learngene-pool's distillation.
    """

    card = Card("pool-instances", "Distilled instances alone", kind="baseline",
                needs=("sized_architecture", "models", "labelled"))  # fmt: skip

    def apply(self, request: Request) -> ReuseResult:
        found = LearngenePool(joint_steps=0).apply(request)
        whole = [c for c in found.extras["configurations"] if not c.stitched]
        pool = found.extras["pool"]
        size = sum(p.numel() for p in pool.instances.parameters())
        found.cost = {**found.cost, "stored_parameters": size, "evaluations": len(whole)}
        found.extras = {"configurations": whole, "pool": pool}
        return found


@register
class SizeScratch(Reuser):
    """Train a network of each configuration's shape from scratch on its own, with the budget's steps each.

    Cost: the budget's steps a configuration, and all networks stored.
    """

    card = Card("size-scratch", "Each size from scratch", kind="baseline", needs=("sized_architecture", "labelled"))
    widths: tuple[PositiveInt, ...] = (24, 48)  #: of the instances whose stitched shapes are trained
    blocks: PositiveInt = 3  #: of every instance

    def apply(self, request: Request) -> ReuseResult:
        architecture = request.need("sized_architecture")
        made: dict[Configuration, nn.Module] = {}
        with seeded(request.seed):
            shapes = Pool([architecture(width, self.blocks) for width in self.widths])
        for place, configuration in enumerate(shapes.configurations()):
            with seeded(request.seed + place):
                fresh = Pool([architecture(width, self.blocks) for width in self.widths])
            made[configuration] = train_alone(fresh.build(configuration), request, request.seed + place)
        best = max(made, key=lambda c: request.task.objective.mean_score(made[c], request.need_labelled()))
        cost = {
            "stored_parameters": sum(p.numel() for model in made.values() for p in model.parameters()),
            "training_steps": request.budget.steps * len(made),
            "evaluations": len(made),
        }
        return ReuseResult(
            module=made[best], produce=made.__getitem__, cost=cost, extras={"configurations": list(made)}
        )


def train_alone(model: nn.Module, request: Request, seed: int) -> nn.Module:
    """Train a network in place on the task's labels with the budget's steps."""
    budget = request.budget
    fit(model, request.need_labelled(), request.task.objective, steps=budget.steps, batch_size=budget.batch_size,
        lr=budget.lr, optimizer="adamw", weight_decay=0.05, schedule="cosine", clip=1.0, seed=seed)  # fmt: skip
    return model.eval()


@torch.no_grad()
def fit_stitches(pool: Pool, data: Dataset[Any], objective: Objective, samples: int) -> None:
    """Each stitch in place: least squares from the front's tokens at the block it leaves to what enters the back's.

    A matrix that several pairs share is fitted to all of them at once.
    """
    batch = next(iter(objective.loader(data, samples)))
    inputs = objective.inputs(batch)
    for front, back in pool.joints():
        left, right = (tokens(pool.instances[i], inputs) for i in (front, back))
        for number in range(max(pool.matrices.values()) + 1):
            pairs = [pair for pair, shared in pool.matrices.items() if shared == number]
            x = torch.cat([left[leave + 1].flatten(0, 1) for leave, _ in pairs])
            y = torch.cat([right[enter].flatten(0, 1) for _, enter in pairs])
            x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
            # gelsd: tokens of a small network may be linearly dependent
            solution = torch.linalg.lstsq(x, y, driver="gelsd").solution
            stitch = cast(nn.Linear, pool.stitches[f"{front}-{back}-{number}"])
            stitch.weight.copy_(solution[:-1].T)
            stitch.bias.copy_(solution[-1])


def tokens(instance: nn.Module, inputs: Any) -> list[Tensor]:
    """What enters each block, and what leaves the last: block i's input is at i."""
    staged = cast(Staged, instance)
    with evaluating(instance):
        found = [staged.embed(inputs)]
        for block in staged.blocks:
            found.append(through([block], found[-1]))
    return found

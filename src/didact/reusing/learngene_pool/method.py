"""Building variable-sized models via learngene pool (Shi, Xia, Yang, Chen, Kou and Geng, 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.claim import Claim, at_most, better
from didact.core.cost import note
from didact.core.errors import NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper
from didact.core.objective import Batch, Objective, guess_objective
from didact.core.recipe import seeded
from didact.core.registry import register
from didact.parts.distillation import soft_cross_entropy
from didact.reusing.baselines import provenance
from didact.reusing.learngene_pool.distil import Distillation, Position, distilled, matched_blocks, stitch_weight
from didact.reusing.learngene_pool.pool import Configuration, Pool, depth_of
from didact.reusing.problem import Reuser
from didact.reusing.request import Budget, Request
from didact.reusing.result import ReuseResult


@register
class LearngenePool(Reuser):
    """Distil a large transformer into a few narrow ones; stitch their blocks into networks of many sizes.

    The front of a narrow instance and the back of a wider one, joined by a learned linear map, make a network whose
    size lies between theirs. All networks share the pool's weights and are trained together, one drawn at random each
    step. Take it when many sizes are wanted and one large trained model exists; for one size, distil that size.

    `reuse` takes the ancestor from the hub (its first network), `extras["sized_architecture"]` ((width, blocks) -> a
    fresh network that offers `embed`, `blocks` and `read_out`, as `didact.models.vit` does) and training data from
    the task; the answer is the best network within `wants["max_parameters"]`, `result.produce(configuration)` gives
    any other. As a library call without a hub: `fit(ancestor, architecture, data)` returns the `Pool`. Instances and
    stitches are trained, the ancestor is frozen.

    Errors: numbers of blocks not divisible by 3 for the positions "front,end" and "mid,end", widths that do not
    increase, an ancestor shallower than the instances.

    Cost: the budget's steps of distillation an instance and `joint_steps` more; memory for the ancestor and all
    instances.

    Reference: Shi, Xia, Yang, Chen, Kou and Geng, "Building Variable-sized Models via Learngene Pool", AAAI 2024,
    arXiv 2312.05743.
    """

    card = Card(
        "learngene-pool",
        "Building Variable-sized Models via Learngene Pool",
        paper=Paper("Shi, Xia, Yang, Chen, Kou and Geng", 2024, arxiv="2312.05743", venue="AAAI"),
        needs=("sized_architecture", "models", "labelled"),
        code="superselll/learngenepool",
        licence="Apache-2.0",
    )
    widths: tuple[PositiveInt, ...] = (24, 48)  #: of the instances, narrow to wide
    blocks: PositiveInt = 3  #: of every instance
    position: Position = "front,end"  #: which blocks of the narrowest instance imitate the ancestor's; others: the end
    alpha: float = Field(0.1, ge=0, le=1)  #: weight of the task's own loss in the distillation
    temperature: PositiveFloat = 1.0  #: of the soft targets
    window: PositiveInt = 2  #: sliding window over the blocks that may be joined
    stitches: Literal["learned", "random"] = "learned"  #: how stitches begin: from the distillation's maps, or anyhow
    steps: PositiveInt | None = None  #: of each distillation; default: the budget's
    joint_steps: int | None = Field(None, ge=0)  #: of the joint training; default: the budget's
    joint_lr: PositiveFloat | None = None  #: default: the budget's; the authors use a tenth of it, over many more steps
    soft: float = Field(0.0, ge=0, le=1)  #: weight of the ancestor's soft targets in the joint training

    def apply(self, request: Request) -> ReuseResult:
        ancestor = next((r for r in request.need_models() if isinstance(r.load(), nn.Module)), None)
        if ancestor is None:
            raise NotApplicable("learngene-pool needs a network in the hub to distil, but none of the models is one.")
        pool = self.fit(
            ancestor.network(),
            request.need("sized_architecture"),
            request.need_labelled(),
            objective=request.task.objective,
            budget=request.budget,
            seed=request.seed,
        )
        steps = (self.steps or request.budget.steps) * len(self.widths) + self._joint_steps(request.budget)
        return answer(pool, request, steps, provenance([ancestor]))

    def fit(
        self,
        ancestor: nn.Module,
        architecture: Callable[[int, int], nn.Module],
        data: Dataset[Any],
        *,
        objective: Objective | None = None,
        budget: Budget | None = None,
        seed: int = 0,
    ) -> Pool:
        """Distil, stitch and train together; `architecture(width, blocks)` makes a fresh instance."""
        objective = objective or guess_objective(ancestor, data)
        budget = budget or Budget()
        budget = replace(budget, steps=self.steps or budget.steps)
        with seeded(seed):
            pool = Pool([architecture(width, self.blocks) for width in self.widths], self.window)
        for place in range(len(self.widths)):  # before any work
            matched_blocks(self.blocks, depth_of(ancestor), self._position(place))
        pairs = [
            distilled(
                instance,
                ancestor,
                data,
                objective,
                position=self._position(place),
                alpha=self.alpha,
                temperature=self.temperature,
                budget=budget,
                seed=seed + place,
            )
            for place, instance in enumerate(pool.instances)
        ]
        with seeded(seed):
            self._begin_stitches(pool, pairs)
        train_together(
            pool,
            data,
            objective,
            steps=self._joint_steps(budget),
            lr=self.joint_lr or budget.lr,
            batch_size=budget.batch_size,
            seed=seed,
            ancestor=ancestor if self.soft else None,
            soft=self.soft,
        )
        return pool.eval()

    def _position(self, place: int) -> Position:
        return self.position if place == 0 else "end"

    def _joint_steps(self, budget: Budget) -> int:
        return budget.steps if self.joint_steps is None else self.joint_steps

    def _begin_stitches(self, pool: Pool, pairs: Sequence[Distillation]) -> None:
        if self.stitches == "random":
            return  # as they were built
        wide = pairs[0].projection.shape[1]
        with torch.no_grad():
            for front, back in pool.joints():
                same = pool.widths[back] == wide
                weight = stitch_weight(pairs[front].projection, None if same else pairs[back].projection)
                for number in range(max(pool.matrices.values()) + 1):
                    stitch = cast(nn.Linear, pool.stitches[f"{front}-{back}-{number}"])
                    stitch.weight.copy_(weight)
                    stitch.bias.zero_()

    claim = Claim(
        "networks stitched from distilled instances do better than those stitched from separately trained ones, and "
        "the distillation's maps are a better start for the stitches than chance",
        on="digits-sizes",
        seeds=3,
        arms={
            "self": "learngene-pool",
            "early": "learngene-pool:joint_steps=50",
            "early-random": "learngene-pool:joint_steps=50:stitches=random",
        },
        expects=[
            better("stitched_mean", than="stitchable-networks", by=0.02),
            better("stitched_mean", than="early-random", by=0.03, arm="early"),
            at_most("largest_drop", 0.02),
        ],
        note="With the same 1,200 steps the rival's stitched networks reach 0.91, 0.90 and 0.91, the pool's 0.84, 0.84 "
        "and 0.83. Distillation makes good instances (0.92 on validation data of seed 0 before the joint training), "
        "but no stitch carries over from it: before the joint training the stitched networks are at chance, with "
        "learned and random stitches alike. After 400 steps the maps explain nothing of the later blocks' outputs "
        "(unexplained share 1.0 to 1.1 on training samples); after 1,600 steps they explain 86 % of the second "
        "block's, and the stitches made of them still give 9 to 15 %. The maps of the three positions differ "
        "(cosine with their mean 0.5 to 0.8), so their mean is the map of no position; and the wide instance, which "
        "imitates the ancestor at its end only, has no reason to read the ancestor's tokens in the middle. The "
        "joint training runs at the budget's rate for both methods, chosen on validation data of seed 0 among a "
        "tenth, three tenths and the whole of it.",
    )


def train_together(
    pool: Pool,
    data: Dataset[Any],
    objective: Objective,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
    ancestor: nn.Module | None = None,
    soft: float = 0.0,
) -> None:
    """Train all instances and stitches in place, one configuration drawn uniformly each step."""
    if steps == 0:
        return
    configurations = pool.configurations()
    draws = torch.randint(len(configurations), (steps,), generator=torch.Generator().manual_seed(seed)).tolist()

    def loss(model: nn.Module, batch: Batch, step: int) -> Tensor:
        pool.choose(configurations[draws[step]])
        output = objective.forward(model, batch)
        own = objective.loss_of(output, objective.targets(batch).to(output.device)).mean()
        if ancestor is None:
            return own
        with torch.no_grad():
            wanted = objective.forward(ancestor, batch)
        return (1 - soft) * own + soft * soft_cross_entropy(output, wanted)

    # One network a step makes the gradients' norms uneven: they are clipped.
    fit(pool, data, objective, steps=steps, batch_size=batch_size, lr=lr, optimizer="adamw", weight_decay=0.05,
        schedule="cosine", clip=1.0, seed=seed, hooks=Hooks(loss=loss))  # fmt: skip
    pool.choose(configurations[0])


def answer(pool: Pool, request: Request, steps: int, made_from: dict[str, object]) -> ReuseResult:
    """The best network of a pool within the task's limit on parameters, and a maker of all others."""
    best = best_of(pool, request)
    cost = {
        "stored_parameters": sum(p.numel() for p in pool.parameters()),
        "training_steps": steps,
        "evaluations": len(pool.configurations()),
        "bytes_sent": 0,
    }
    note(chosen=str(best))
    return ReuseResult(
        module=pool.build(best),
        produce=pool.build,
        cost=cost,
        provenance=made_from,
        extras={"configurations": pool.configurations(), "pool": pool},
    )


def best_of(pool: Pool, request: Request) -> Configuration:
    """Highest score on the task's labelled samples among the configurations within `wants["max_parameters"]`."""
    most = request.task.wants.get("max_parameters")
    sizes = {c: pool.parameters_of(c) for c in pool.configurations()}
    fitting = [c for c, size in sizes.items() if most is None or size <= most]
    if not fitting:
        raise NotApplicable(
            f"The smallest network of the pool has {min(sizes.values()):,} parameters, more than the {most:,} allowed."
        )
    objective, data = request.task.objective, request.need_labelled()
    scores = {c: objective.mean_score(pool.build(c), data) for c in fitting}
    return min(fitting, key=lambda c: (-scores[c], sizes[c], c))

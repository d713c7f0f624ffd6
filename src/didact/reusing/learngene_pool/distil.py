"""Distilling an instance from the ancestor: its answers, its block outputs and its attention, through learned maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.fit import Hooks, fit
from didact.core.objective import Batch, Objective
from didact.core.objective.models import output_tensor
from didact.core.recipe import seeded
from didact.parts.distillation import soft_cross_entropy
from didact.reusing.learngene_pool.pool import Staged, depth_of, width_of
from didact.reusing.request import Budget

Position = Literal["front,end", "mid,end", "end"]
#: name of the module inside a block whose output is that of its attention
ATTENTION = "proj"


class Distillation(nn.Module):
    """An instance with the maps from the ancestor's width to its own, trained together."""

    def __init__(self, student: nn.Module, ancestor: nn.Module, position: Position) -> None:
        super().__init__()
        self.student = student
        self.places = matched_blocks(depth_of(student), depth_of(ancestor), position)
        wide, narrow = width_of(ancestor), width_of(student)
        self.maps = nn.ModuleList(nn.Linear(wide, narrow) for _ in self.places)
        self.attention_maps = nn.ModuleList(nn.Linear(wide, narrow) for _ in self.places)

    def forward(self, inputs: Any) -> Tensor:
        output: Tensor = self.student(inputs)
        return output

    @property
    def projection(self) -> Tensor:
        """(narrow, wide): mean over the positions of the maps of block outputs."""
        return torch.stack([cast(nn.Linear, m).weight.detach() for m in self.maps]).mean(0)


def distilled(
    student: nn.Module,
    ancestor: nn.Module,
    data: Dataset[Any],
    objective: Objective,
    *,
    position: Position,
    alpha: float,
    temperature: float,
    budget: Budget,
    seed: int,
) -> Distillation:
    """Train `student` in place: alpha * task loss + (1 - alpha) * (soft targets + block outputs + attention)."""
    with seeded(seed):
        pair = Distillation(student, ancestor, position)
    ancestor.eval()

    def loss(model: nn.Module, batch: Batch, step: int) -> Tensor:
        with torch.no_grad(), watched(ancestor, [a for _, a in pair.places]) as theirs:
            wanted = objective.forward(ancestor, batch)
        with watched(student, [s for s, _ in pair.places]) as mine:
            output = objective.forward(model, batch)
        own = objective.loss_of(output, objective.targets(batch).to(output.device)).mean()
        imitation = soft_cross_entropy(output, wanted, temperature)
        for i, (s, a) in enumerate(pair.places):
            imitation = imitation + F.mse_loss(mine[s][0], pair.maps[i](theirs[a][0]))
            imitation = imitation + F.mse_loss(mine[s][1], pair.attention_maps[i](theirs[a][1]))
        return alpha * own + (1 - alpha) * imitation

    fit(
        pair,
        data,
        objective,
        steps=budget.steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        clip=1.0,
        seed=seed,
        hooks=Hooks(loss=loss),
    )
    return pair


def matched_blocks(student: int, ancestor: int, position: Position) -> list[tuple[int, int]]:
    """(student's block, ancestor's block) pairs whose outputs are compared."""
    if ancestor < student:
        raise BadInput(f"The ancestor has {ancestor} blocks and is shallower than an instance of {student}.")
    if position == "end":
        return [(student - 1, ancestor - 1)]
    if student % 3 or ancestor % 3:
        raise BadInput(
            f"The position {position!r} compares thirds: both numbers of blocks must be divisible by 3, but the "
            f"instance has {student} and the ancestor {ancestor}."
        )
    thirds = [(third * student // 3 - 1, third * ancestor // 3 - 1) for third in (1, 2, 3)]
    return thirds if position == "front,end" else thirds[1:]


@contextmanager
def watched(model: nn.Module, blocks: list[int]) -> Iterator[dict[int, list[Tensor]]]:
    """By block: its output and that of its attention, filled by the forward pass inside."""
    caught: dict[int, list[Tensor]] = {number: [torch.empty(0), torch.empty(0)] for number in blocks}
    handles = []
    for number, slots in caught.items():
        block = cast(Staged, model).blocks[number]
        for place, module in enumerate((block, block.get_submodule(ATTENTION))):

            def keep(_: nn.Module, __: Any, output: Any, slots: list[Tensor] = slots, place: int = place) -> None:
                slots[place] = output_tensor(output)

            handles.append(module.register_forward_hook(keep))
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


def stitch_weight(small: Tensor, wide: Tensor | None) -> Tensor:
    """(wide width, small width): how the ancestor's tokens, as the small instance holds them, look to the wide one.

    `small` (d_small, d_ancestor) and `wide` (d_wide, d_ancestor) are the trained projections. When the wide instance
    has the ancestor's width (None), it is the transpose of the small one's; else wide times the pseudo-inverse.
    """
    return small.T.clone() if wide is None else wide @ torch.linalg.pinv(small)

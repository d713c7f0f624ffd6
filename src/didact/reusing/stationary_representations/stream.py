"""The scenario: tasks with new classes come one after the other, and now and then a better network replaces the old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.batches import materialise
from didact.core.errors import BadInput


@dataclass(frozen=True, eq=False)
class Step:
    """One task: its labelled data, and the networks that may replace the current one before it."""

    data: Dataset[Any]
    #: ids of models: one for those who share the simplex, one with a learnt classifier; empty: go on with the old model
    replacements: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Stream:
    """The `stream` of the extras: the tasks in their order."""

    steps: tuple[Step, ...]
    preallocated: int = 1024  #: classes that the simplex has room for, those of the future included

    def __post_init__(self) -> None:
        if not self.steps:
            raise BadInput("A stream needs at least one step.")
        for number, step in enumerate(self.steps):
            labels = labels_of(step.data)
            if labels.is_floating_point() or labels.ndim != 1:
                raise BadInput(f"Step {number} of the stream needs class indices as labels, one whole number a sample.")
            if len(labels) and (int(labels.max()) >= self.preallocated or int(labels.min()) < 0):
                raise BadInput(
                    f"Step {number} of the stream has a class {int(labels.max())}, but there is room for "
                    f"{self.preallocated} classes, numbered from 0. Preallocate more."
                )

    @property
    def first_replacement(self) -> int | None:
        return next((number for number, step in enumerate(self.steps) if step.replacements), None)


def labels_of(data: Dataset[Any]) -> Tensor:
    return materialise(data)[1]


class Memory:
    """A few samples of every class seen, chosen at random."""

    def __init__(self, per_class: int, seed: int) -> None:
        self.per_class, self.seed = per_class, seed
        self.parts: list[Dataset[Any]] = []

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)  # type: ignore[arg-type, misc]

    @property
    def data(self) -> Dataset[Any]:
        return ConcatDataset(self.parts)

    def add(self, data: Dataset[Any]) -> None:
        labels = labels_of(data)
        generator = torch.Generator().manual_seed(self.seed + len(self.parts))
        kept: list[int] = []
        for label in torch.unique(labels):
            mine = torch.nonzero(labels == label).flatten()
            kept += mine[torch.randperm(len(mine), generator=generator)[: self.per_class]].tolist()
        self.parts.append(Subset(data, kept))


def half_from_memory(
    new: Sequence[Tensor], memory: Sequence[Tensor], batch_size: int, seed: int
) -> Iterator[tuple[Tensor, ...]]:
    """Batches of one pass over the new samples, each filled up with as many drawn from memory."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(new[0]), generator=generator)
    for chosen in torch.split(order, max(1, batch_size // 2)):
        drawn = torch.randint(len(memory[0]), (len(chosen),), generator=generator)
        yield tuple(torch.cat([n[chosen], m[drawn]]) for n, m in zip(new, memory, strict=True))

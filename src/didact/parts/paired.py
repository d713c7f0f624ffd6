"""Batches from two datasets at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from didact.core.objective import Batch, Objective
from didact.parts.datasets import in_memory, take


def paired_batches(
    first: Dataset[Any],
    second: Dataset[Any],
    objective: Objective,
    *,
    batch_size: int = 32,
    steps: int,
    seed: int = 0,
) -> Iterator[tuple[Batch, Batch]]:
    """`steps` pairs of shuffled batches; whichever dataset ends is reshuffled and begun again."""
    a = _endless(first, objective, batch_size, seed)
    b = _endless(second, objective, batch_size, seed + 1)
    for _ in range(steps):
        yield next(a), next(b)


def _endless(dataset: Dataset[Any], objective: Objective, batch_size: int, seed: int) -> Iterator[Batch]:
    loader = objective.loader(dataset, batch_size, shuffle=True, seed=seed)
    while True:
        yield from loader


def mixed_batches(
    first: Dataset[Any], second: Dataset[Any], objective: Objective, *, batch_size: int, seed: int
) -> Iterator[tuple[Batch | None, Batch | None]]:
    """One shuffled pass over both datasets as one, each batch split by where its samples come from (None: nowhere)."""
    first, second = in_memory(first), in_memory(second)
    a, b = len(first), len(second)  # type: ignore[arg-type]
    order = torch.randperm(a + b, generator=torch.Generator().manual_seed(seed))
    for chunk in torch.split(order, batch_size):
        ours, theirs = chunk[chunk < a].tolist(), (chunk[chunk >= a] - a).tolist()
        yield (
            take(first, ours, objective) if ours else None,
            take(second, theirs, objective) if theirs else None,
        )


def index_pairs(first: int, second: int, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` pairs of shuffled batches of row numbers; each side begins again when it ends."""
    a, b = _endless_rows(first, batch_size, seed), _endless_rows(second, batch_size, seed + 1)
    for _ in range(steps):
        yield next(a), next(b)


def _endless_rows(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(size, generator=generator), batch_size)

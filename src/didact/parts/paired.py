"""Batches from several datasets at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

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
    both = parallel_batches((first, second), objective, batch_size=batch_size, steps=steps, seed=seed)
    yield from ((a, b) for a, b in both)


def parallel_batches(
    datasets: Sequence[Dataset[Any]], objective: Objective, *, batch_size: int = 32, steps: int, seed: int = 0
) -> Iterator[tuple[Batch, ...]]:
    """`steps` tuples of shuffled batches, one of each dataset; whichever ends is reshuffled and begun again.

    The order of a dataset depends on its place and the seed alone: leaving the last one out changes nothing for the
    others.
    """
    streams = [_endless(dataset, objective, batch_size, seed + place) for place, dataset in enumerate(datasets)]
    for _ in range(steps):
        yield tuple(next(stream) for stream in streams)


def _endless(dataset: Dataset[Any], objective: Objective, batch_size: int, seed: int) -> Iterator[Batch]:
    loader = objective.loader(dataset, batch_size, shuffle=True, seed=seed)
    while True:
        for batch in loader:
            # Batch normalisation cannot be trained on a single sample: a last batch of one is passed over.
            if len(loader) == 1 or objective.size(batch) > 1:
                yield batch


def mixed_batches(
    first: Dataset[Any], second: Dataset[Any], objective: Objective, *, batch_size: int, seed: int
) -> Iterator[tuple[Batch, Tensor]]:
    """One shuffled pass over both datasets as one: each batch with a mask (B,), True where a sample is of the first.

    The two kinds stay in one batch, so that batch normalisation sees them together; as it cannot be trained on one
    sample, a last batch of one joins the batch before it.
    """
    both = in_memory(ConcatDataset([first, second]))
    border = len(first)  # type: ignore[arg-type]
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    chunks = list(torch.split(order, batch_size))
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [torch.cat(chunks[-2:])]
    for chunk in chunks:
        yield take(both, chunk.tolist(), objective), chunk < border


def index_pairs(first: int, second: int, batch_size: int, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`steps` pairs of shuffled batches of row numbers; each side begins again when it ends."""
    a, b = _endless_rows(first, batch_size, seed), _endless_rows(second, batch_size, seed + 1)
    for _ in range(steps):
        yield next(a), next(b)


def _endless_rows(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(size, generator=generator), batch_size)

"""Batches from any number of datasets at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset

from didact.core.objective import Batch, Objective
from didact.parts.paired import _endless


def parallel_batches(
    datasets: Sequence[Dataset[Any]], objective: Objective, *, batch_size: int = 32, steps: int, seed: int = 0
) -> Iterator[tuple[Batch, ...]]:
    """`steps` tuples of shuffled batches, one of each dataset; whichever ends is reshuffled and begun again.

    The order of a dataset depends on its place and the seed alone: leaving the last one out changes nothing for the
    others, and of two datasets these are the batches of `paired_batches`.
    """
    streams = [_endless(dataset, objective, batch_size, seed + place) for place, dataset in enumerate(datasets)]
    for _ in range(steps):
        yield tuple(next(stream) for stream in streams)

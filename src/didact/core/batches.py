"""Batches of in-memory tensors without a per-sample detour, and collation for everything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torch.utils.data import default_collate as torch_collate


class TensorBatches:
    """Iterable of tuples of tensors, reshuffled from its own generator at each pass."""

    def __init__(self, tensors: tuple[Tensor, ...], batch_size: int, shuffle: bool, seed: int) -> None:
        self.tensors, self.batch_size, self.shuffle = tensors, batch_size, shuffle
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if not self.shuffle:
            yield from zip(*(t.split(self.batch_size) for t in self.tensors), strict=True)
            return
        order = torch.randperm(len(self.tensors[0]), generator=self.generator)
        for chosen in order.split(self.batch_size):
            yield tuple(t[chosen] for t in self.tensors)


def as_tensors(dataset: Dataset[Any]) -> tuple[Tensor, ...] | None:
    """The tensors behind a TensorDataset, also through Subset and ConcatDataset; None for any other dataset."""
    if isinstance(dataset, TensorDataset) and type(dataset).__getitem__ is TensorDataset.__getitem__:
        return dataset.tensors
    if type(dataset) is Subset:
        inner = as_tensors(dataset.dataset)
        return None if inner is None else tuple(t[torch.as_tensor(list(dataset.indices))] for t in inner)
    if type(dataset) is ConcatDataset:
        parts = [as_tensors(part) for part in dataset.datasets]
        if any(part is None for part in parts) or len({len(part) for part in parts if part}) != 1:
            return None
        return tuple(torch.cat(column) for column in zip(*(p for p in parts if p), strict=True))
    return None


def default_collate(samples: list[Any]) -> Any:
    """PyTorch's collation; strings are dropped from mappings, as no model takes them."""
    if isinstance(samples[0], dict):
        samples = [{k: torch.as_tensor(v) for k, v in s.items() if not isinstance(v, str)} for s in samples]
    if isinstance(samples[0], tuple):  # labels may be tensors in one part of a dataset and numbers in another
        samples = [tuple(torch.as_tensor(value) for value in sample) for sample in samples]
    if isinstance(samples[0], Tensor):  # unlabelled data that yields bare inputs
        samples = [(sample,) for sample in samples]
    return torch_collate(samples)


def materialise(dataset: Dataset[Any]) -> tuple[Tensor, ...]:
    """All samples of a dataset, stacked: a tensor for each element of a pair or mapping. Memory: the whole dataset."""
    tensors = as_tensors(dataset)
    if tensors is not None:
        return tensors
    found = default_collate([dataset[i] for i in range(len(dataset))])  # type: ignore[arg-type]
    return tuple(found.values()) if isinstance(found, dict) else tuple(found)

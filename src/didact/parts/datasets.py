"""Datasets made from datasets: other targets, all targets, chosen rows. Works for pairs and for mappings alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from didact.core.batches import as_tensors
from didact.core.errors import BadInput
from didact.core.objective import Batch, Objective


class Relabelled(Dataset[Any]):
    """A dataset with other targets, one per sample; the inputs are read from the dataset given."""

    def __init__(self, dataset: Dataset[Any], targets: Sequence[Tensor]) -> None:
        self.dataset, self.targets = dataset, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        sample, target = self.dataset[index], self.targets[index]
        if isinstance(sample, Mapping):
            return {**sample, "labels": target}
        return (sample[0], target, *sample[2:])


def with_targets(dataset: Dataset[Any], targets: Sequence[Tensor] | Tensor) -> Dataset[Any]:
    """The dataset with other targets (same order, same number)."""
    if len(targets) != len(dataset):  # type: ignore[arg-type]
        raise BadInput(f"{len(targets)} targets were given for {len(dataset)} samples.")  # type: ignore[arg-type]
    tensors = as_tensors(dataset)
    if tensors is not None and isinstance(targets, Tensor):
        return TensorDataset(tensors[0], targets, *tensors[2:])
    return Relabelled(dataset, list(targets))


def targets_of(dataset: Dataset[Any], objective: Objective) -> list[Tensor]:
    """The target of every sample, in order (a list: token sequences differ in length)."""
    tensors = as_tensors(dataset)
    if tensors is not None:
        return list(objective.targets(tensors))
    return [objective.targets(objective.collate([dataset[i]]))[0] for i in range(len(dataset))]  # type: ignore[arg-type]


def take(dataset: Dataset[Any], indices: Sequence[int], objective: Objective) -> Batch:
    """The named rows as one batch."""
    tensors = as_tensors(dataset)
    if tensors is not None:
        return tuple(t[torch.as_tensor(indices)] for t in tensors)
    return objective.collate([dataset[i] for i in indices])


def pooled(targets: Sequence[Tensor]) -> Tensor:
    """Targets of all samples in one tensor: stacked where they have one shape, else one after another."""
    if len({t.shape for t in targets}) == 1:
        return torch.stack(list(targets))
    return torch.cat([t.flatten() for t in targets])


def in_memory(dataset: Dataset[Any]) -> Dataset[Any]:
    """Subsets and concatenations of tensors as plain tensors: no gathering of rows anew at every step."""
    tensors = as_tensors(dataset)
    return dataset if tensors is None else TensorDataset(*tensors)

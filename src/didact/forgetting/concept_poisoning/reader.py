"""Images in and out of data sets of any make, and into the model that looks at them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from didact.core.batches import as_tensors
from didact.core.errors import NotApplicable
from didact.core.objective import Batch, Objective, device_of, evaluating


@dataclass(frozen=True)
class Reader:
    """A model with what it looks at: inputs by themselves (key None), or an entry of a mapping."""

    model: nn.Module
    objective: Objective
    key: str | None

    @classmethod
    def of(cls, model: nn.Module, objective: Objective, dataset: Dataset[Any]) -> Reader:
        sample = dataset[0]
        if not isinstance(sample, Mapping):
            return cls(model, objective, None)
        keys = [k for k, v in sample.items() if k != "labels" and torch.is_tensor(v) and v.is_floating_point()]
        if len(keys) != 1:
            raise NotApplicable(
                f"concept-poisoning changes images, but the samples hold {', '.join(map(str, sample))}, of which "
                f"{len(keys)} could be one. Give mappings with one tensor of floating-point numbers besides the labels."
            )
        return cls(model, objective, keys[0])

    def inputs(self, dataset: Dataset[Any]) -> Tensor:
        """(N, ...) the inputs of a data set, in order. Memory: all of them."""
        batches: Iterable[Batch] = self.objective.loader(dataset, 256)
        return torch.cat([batch[0] if self.key is None else batch[self.key] for batch in batches])

    def batch(self, images: Tensor) -> Batch:
        return (images,) if self.key is None else {self.key: images}

    def embed(self, images: Tensor) -> Tensor:
        """(n, d) what enters the model's last linear layer."""
        with evaluating(self.model), torch.no_grad():
            parts = [self.objective.features(self.model, self.batch(some)).cpu() for some in torch.split(images, 256)]
        return torch.cat(parts)

    def logits(self, images: Tensor) -> Tensor:
        return self.objective.forward(self.model, self.batch(images.to(device_of(self.model))))

    def with_inputs(self, dataset: Dataset[Any], inputs: Tensor) -> Dataset[Any]:
        """The data set with other inputs (N, ...); targets and all else stay."""
        tensors = as_tensors(dataset)
        if tensors is not None:
            return TensorDataset(inputs, *tensors[1:])
        return Repainted(dataset, inputs, self.key)


class Repainted(Dataset[Any]):
    """A dataset with other inputs, one per sample."""

    def __init__(self, dataset: Dataset[Any], inputs: Tensor, key: str | None) -> None:
        self.dataset, self.inputs, self.key = dataset, inputs, key

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        if self.key is not None:
            return {**sample, self.key: self.inputs[index]}
        return (self.inputs[index], *sample[1:])

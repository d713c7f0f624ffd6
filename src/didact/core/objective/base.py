"""The base of all objectives: batches, counted passes, features, per-sample gradients, whole datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.data import DataLoader, Dataset

from didact.core.batches import TensorBatches, as_tensors, default_collate
from didact.core.cost import backward_counter, count_backward, count_forward
from didact.core.errors import BadInput
from didact.core.objective.models import device_of, evaluating, head_name, output_tensor, pool, submodule

Batch = Any
Resampling = Literal["other", "uniform", "gaussian"]

IGNORED = -100  #: label of a position that is no target (the convention of PyTorch and Hugging Face)


class Objective(ABC):
    """How a kind of model is fed, judged and looked into. Stateless but for its options."""

    task: ClassVar[str]

    # -- batches ---------------------------------------------------------------------------------------------------

    def loader(
        self, dataset: Dataset[Any], batch_size: int, shuffle: bool = False, seed: int = 0
    ) -> DataLoader[Any] | TensorBatches:
        """Batches of a dataset; in-memory tensors are sliced directly, which is many times faster than collating."""
        size = len(dataset)  # type: ignore[arg-type]
        if size == 0:
            raise BadInput("The dataset is empty. Give at least one sample.")
        tensors = as_tensors(dataset)
        if tensors is not None:
            return TensorBatches(tensors, batch_size, shuffle, seed)
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(dataset, batch_size, shuffle=shuffle, generator=generator, collate_fn=self.collate)

    def collate(self, samples: list[Any]) -> Batch:
        return default_collate(samples)

    def inputs(self, batch: Batch) -> Any:
        if isinstance(batch, Mapping):
            return {key: value for key, value in batch.items() if key != "labels"}
        return batch[0]

    def targets(self, batch: Batch) -> Tensor:
        try:
            return batch["labels"] if isinstance(batch, Mapping) else batch[1]
        except (KeyError, IndexError):
            raise BadInput(
                "A labelled batch was expected: a pair (input, target) or a mapping with 'labels'."
            ) from None

    def with_targets(self, batch: Batch, targets: Tensor) -> Batch:
        """The same inputs with other targets. The batch given is not changed."""
        if isinstance(batch, Mapping):
            return {**batch, "labels": targets}
        return (batch[0], targets, *batch[2:])

    def rows(self, batch: Batch, chosen: Tensor) -> Batch:
        """The samples of a batch that a mask (B,) or indices choose."""
        return _map(batch, lambda value: value[chosen.to(value.device)])

    def size(self, batch: Batch) -> int:
        """Number of samples in a batch."""
        if isinstance(batch, Mapping):
            return len(next(iter(batch.values())))
        return len(batch[0])

    def to(self, batch: Batch, device: torch.device | str) -> Batch:
        if isinstance(batch, Mapping):
            return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return tuple(v.to(device) if isinstance(v, Tensor) else v for v in batch)

    # -- passes ----------------------------------------------------------------------------------------------------

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """The model's raw output for a batch, (B, ...). Counts the pass, and the backward pass should one follow."""
        inputs = self.inputs(self.to(batch, device_of(model)))
        output = output_tensor(model(**inputs) if isinstance(inputs, Mapping) else model(inputs))
        samples = self.size(batch)
        count_forward(samples)
        if output.requires_grad:
            output.register_hook(backward_counter(samples))
        return output

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, a scalar."""
        return self.per_sample_loss(model, batch).mean()

    def per_sample_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B,) losses."""
        output = self.forward(model, batch)
        return self.loss_of(output, self.targets(batch).to(output.device))

    @abstractmethod
    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        """(B,) losses from the model's raw output and the targets."""

    @abstractmethod
    def predictions_of(self, output: Tensor) -> Tensor:
        """Predictions from the model's raw output, shaped like the targets."""

    @abstractmethod
    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        """(B,) scores, larger is better: 1 or 0 for a classifier, minus the absolute error for a regressor."""

    @abstractmethod
    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        """Mean divergence of the output's distribution from a reference output's (a scalar; the teacher's second)."""

    def decisions(self, output: Tensor, targets: Tensor) -> Tensor:
        """(n, C) rows of the output, one for each thing decided: a sample or, in language models, a target token."""
        return output.reshape(len(output), -1)

    def predictions(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.predictions_of(self.forward(model, batch))

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        output = self.forward(model, batch)
        return self.score_of(output, self.targets(batch).to(output.device))

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        """Wrong targets in place of true ones; `pool` holds the targets of the training data."""
        raise BadInput(f"Targets of a {self.task} objective cannot be resampled.")

    # -- inside ----------------------------------------------------------------------------------------------------

    def features(self, model: nn.Module, batch: Batch, layer: str | None = None) -> Tensor:
        """(B, d) features: the output of a named layer or, by default, what enters the model's last linear layer.

        Maps are flattened; a sequence (B, T, d) is averaged over the positions that the attention mask keeps.
        """
        caught: list[Tensor] = []
        if layer is None:
            module = model.get_submodule(head_name(model))
            handle = module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        else:
            module = submodule(model, layer)
            handle = module.register_forward_hook(lambda _, __, out: caught.append(output_tensor(out)))
        try:
            self.forward(model, batch)
        finally:
            handle.remove()
        if not caught:
            raise BadInput(f"The layer {layer!r} was not used in the forward pass, so it has no features.")
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        found = pool(caught[-1], self.size(batch), mask)
        if found.requires_grad:  # this gradient does not come through the model's output
            found.register_hook(backward_counter(self.size(batch)))
        return found

    def per_sample_gradients(self, model: nn.Module, batch: Batch, names: set[str] | None = None) -> dict[str, Tensor]:
        """Gradient of each sample's loss: parameter name -> (B, *shape).

        Memory: batch size times the size of the chosen parameters. Vectorised by `torch.func`; a model that it
        cannot trace is done sample by sample.
        """
        batch = self.to(batch, device_of(model))
        parameters = {
            n: p.detach() for n, p in model.named_parameters() if p.requires_grad and (not names or n in names)
        }
        if not parameters:
            raise BadInput("No parameter of the model requires a gradient. Unfreeze the parts to be examined.")
        frozen = {n: t.detach() for n, t in (*model.named_parameters(), *model.named_buffers())}
        samples = self.size(batch)
        count_forward(samples)
        count_backward(samples)

        def loss(chosen: dict[str, Tensor], single: Batch) -> Tensor:
            one = _map(single, lambda value: value.unsqueeze(0))
            inputs = self.inputs(one)
            arguments = ((), inputs) if isinstance(inputs, Mapping) else ((inputs,), {})
            output = output_tensor(functional_call(model, {**frozen, **chosen}, *arguments))
            return self.loss_of(output, self.targets(one)).sum()

        tensors = _map(batch, lambda value: value)
        try:
            return vmap(grad(loss), in_dims=(None, 0))(parameters, tensors)
        except (RuntimeError, ValueError, NotImplementedError):
            singles = [grad(loss)(parameters, _map(tensors, lambda value, i=i: value[i])) for i in range(samples)]
            return {name: torch.stack([single[name] for single in singles]) for name in parameters}

    # -- whole datasets --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def outputs(
        self, model: nn.Module, dataset: Dataset[Any], batch_size: int = 256
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """(output, targets) of each batch in evaluation mode, in the dataset's order."""
        with evaluating(model):
            for batch in self.loader(dataset, batch_size):
                output = self.forward(model, batch)
                yield output, self.targets(batch).to(output.device)

    def scores(self, model: nn.Module, dataset: Dataset[Any]) -> Tensor:
        """(N,) scores over a dataset."""
        return torch.cat([self.score_of(o, t) for o, t in self.outputs(model, dataset)])

    def losses(self, model: nn.Module, dataset: Dataset[Any]) -> Tensor:
        """(N,) losses over a dataset."""
        return torch.cat([self.loss_of(o, t) for o, t in self.outputs(model, dataset)])

    def mean_score(self, model: nn.Module, dataset: Dataset[Any]) -> float:
        return float(self.scores(model, dataset).float().mean())


def _map(batch: Batch, change: Callable[..., Tensor]) -> Batch:
    if isinstance(batch, Mapping):
        return {k: change(v) for k, v in batch.items() if isinstance(v, Tensor)}
    return tuple(change(v) for v in batch)

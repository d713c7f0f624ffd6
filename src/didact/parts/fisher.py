"""Diagonal Fisher information, the usual measure of how much each weight matters for a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import Batch, Objective, evaluating

Importance = dict[str, Tensor]


def fisher_diagonal(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    *,
    form: Literal["batch", "sample"] = "batch",
    batch_size: int = 64,
) -> Importance:
    """Mean squared gradient of the loss: parameter name -> tensor of the parameter's shape.

    `form="batch"` averages, over minibatches in the dataset's order, the square of the batch-mean gradient;
    `form="sample"` averages the square of each sample's gradient (the textbook form).

    Cost: one forward and backward pass over the data. Memory: one gradient, or a batch of gradients with "sample".
    """
    if form == "batch":
        return accumulate(model, dataset, objective, objective.loss, torch.square, batch_size)
    total: Importance = {}
    count = 0
    with evaluating(model):
        for batch in objective.loader(dataset, batch_size):
            for name, gradient in objective.per_sample_gradients(model, batch).items():
                summed = gradient.square().sum(0)
                total[name] = total[name] + summed if name in total else summed
            count += objective.size(batch)
    return {name: value / count for name, value in total.items()}


def accumulate(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    quantity: Callable[[nn.Module, Batch], Tensor],
    transform: Callable[[Tensor], Tensor],
    batch_size: int = 64,
) -> Importance:
    """Mean over minibatches of `transform(gradient of quantity)`, in evaluation mode and the dataset's order."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise BadInput("No parameter of the model requires a gradient, so no importance can be measured.")
    total = {name: torch.zeros_like(p) for name, p in trained.items()}
    batches = 0
    with evaluating(model), torch.enable_grad():
        for batch in objective.loader(dataset, batch_size):
            gradients = torch.autograd.grad(
                quantity(model, batch), list(trained.values()), allow_unused=True, materialize_grads=True
            )
            for name, gradient in zip(trained, gradients, strict=True):
                total[name] += transform(gradient)
            batches += 1
    return {name: value / batches for name, value in total.items()}

"""What Fisher merging and RegMean measure on a model's own examples; labels are not needed."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from didact.core.objective import Batch, Objective, evaluating
from didact.parts.fisher import accumulate


def expected_fisher(model: nn.Module, dataset: Dataset[Any], objective: Objective, examples: int) -> dict[str, Tensor]:
    """Mean over examples of the squared gradient of sum_c sqrt(p_c) log p_c: parameter name -> its shape.

    The probabilities are the model's own and held fixed, so no label is read. Cost: a forward and a backward pass an
    example, one at a time.
    """

    def quantity(m: nn.Module, batch: Batch) -> Tensor:
        output = objective.forward(m, batch).flatten(0, -2)  # (samples or tokens, classes)
        log_p = output.log_softmax(-1)
        return (log_p.detach().exp().sqrt() * log_p).sum()

    return accumulate(model, first(dataset, examples), objective, quantity, torch.square, batch_size=1)


@torch.no_grad()
def gram_matrices(
    model: nn.Module, dataset: Dataset[Any], objective: Objective, examples: int, batch_size: int = 64
) -> dict[str, Tensor]:
    """X^T X / n of the inputs X (n, inputs) of every linear layer: weight name -> (inputs, inputs), in float64."""
    found: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def hook(name: str) -> Callable[..., None]:
        def collect(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].flatten(0, -2).double()
            found[name] = found[name] + x.T @ x if name in found else x.T @ x
            rows[name] = rows.get(name, 0) + len(x)

        return collect

    handles = [m.register_forward_pre_hook(hook(f"{name}.weight")) for name, m in linear_layers(model)]
    try:
        with evaluating(model):
            for batch in objective.loader(first(dataset, examples), batch_size):
                objective.forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: value / rows[name] for name, value in found.items()}


def turned_weights(model: nn.Module) -> list[str]:
    """Names of the weights stored as (inputs, outputs)."""
    return [f"{name}.weight" for name, m in linear_layers(model) if is_turned(m)]


def linear_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) or is_turned(m)]


def is_turned(module: nn.Module) -> bool:
    """Whether it is the linear layer of GPT-2, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def first(dataset: Dataset[Any], count: int) -> Dataset[Any]:
    return Subset(dataset, list(islice(range(len(dataset)), count)))  # type: ignore[arg-type]

"""Looking at a model: its device, its head, its layers, the tensor that matters in what it returns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput


def device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return tensor.device if tensor is not None else torch.device("cpu")


def output_tensor(output: Any) -> Tensor:
    """The tensor that matters in what a module returns: the logits of a Hugging Face output, the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if getattr(output, "logits", None) is not None:
        return output.logits
    if isinstance(output, (tuple, list)) and isinstance(output[0], Tensor):
        return output[0]
    raise BadInput(f"The model returned {type(output).__name__}; a tensor or an output with .logits was expected.")


def head_name(model: nn.Module) -> str:
    """Name of the last linear layer, the head of most models."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise BadInput(f"{type(model).__name__} has no linear layer to take as its head. Name the feature layer.")
    return names[-1]


def submodule(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        known = ", ".join(n for n, _ in model.named_modules() if n)
        raise BadInput(f"The model has no layer {name!r}. Its layers: {known}.") from None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode; every submodule's own mode comes back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


def pool(features: Tensor, samples: int, mask: Tensor | None = None) -> Tensor:
    """(B, d) from (B, d), (B, C, H, W) or (B, T, d); sequences are averaged over the kept positions."""
    if features.ndim == 3:
        if mask is None:
            return features.mean(1)
        weights = mask.to(features).unsqueeze(-1)
        return (features * weights).sum(1) / weights.sum(1).clamp(min=1)
    return features.reshape(samples, -1)

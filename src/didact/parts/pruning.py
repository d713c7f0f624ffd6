"""Pruning masks: which weights stay. Masks are kept beside the model, name -> boolean tensor, True where kept."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective import output_tensor

Masks = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear maps. Biases and normalisation parameters are never pruned."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    return {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, kinds)}


def magnitude_masks(weights: dict[str, Tensor], rate: float) -> Masks:
    """Global magnitude pruning: drop the `rate` smallest absolute weights over all tensors together."""
    return keep_largest({name: weight.detach().abs() for name, weight in weights.items()}, rate)


def keep_largest(scores: dict[str, Tensor], rate: float) -> Masks:
    """Masks that drop the `round(rate * n)` smallest scores over all tensors together."""
    if not 0 <= rate < 1:
        raise BadInput(f"A pruning rate lies in [0, 1), but {rate} was given.")
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.ones_like(flat, dtype=torch.bool)
    drop = round(rate * flat.numel())
    if drop:
        kept[torch.topk(flat, drop, largest=False).indices] = False
    parts = kept.split([score.numel() for score in scores.values()])
    return {name: part.view_as(score) for part, (name, score) in zip(parts, scores.items(), strict=True)}


def synflow_masks(
    model: nn.Module, weights: dict[str, nn.Parameter], rate: float, example: Tensor, rounds: int = 100
) -> Masks:
    """Iterative synaptic-flow pruning, without data: score |w · d/dw Σ f(1)| with all weights made absolute.

    `example` is one input batch of ones' shape (1, ...). Each round keeps the share (1-rate)^(k/rounds), so that no
    layer is cut off. Works on the model in place and restores it.
    """
    if not 0 <= rate < 1:
        raise BadInput(f"A pruning rate lies in [0, 1), but {rate} was given.")
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masks: Masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    try:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        for k in range(1, rounds + 1):
            with torch.no_grad():
                apply_masks(weights, masks)
            total = output_tensor(model(torch.ones_like(example))).sum()
            gradients = torch.autograd.grad(total, list(weights.values()))
            scores = {
                name: (gradient * weight).detach().abs()
                for gradient, (name, weight) in zip(gradients, weights.items(), strict=True)
            }
            masks = keep_largest(scores, 1 - (1 - rate) ** (k / rounds))
    finally:
        model.load_state_dict(saved)
    return masks


@torch.no_grad()
def apply_masks(weights: dict[str, nn.Parameter], masks: Masks) -> None:
    """Zero what the masks drop, in place."""
    if weights.keys() != masks.keys():
        raise BadInput("The masks do not name the same weights as the model's.")
    for name, weight in weights.items():
        weight.mul_(masks[name])


def keeper(weights: dict[str, nn.Parameter], masks: Masks) -> Callable[[nn.Module, int], None]:
    """A hook for `fit` that applies the masks after each step: momentum and decay revive dropped weights otherwise."""

    def keep(model: nn.Module, step: int) -> None:
        apply_masks(weights, masks)

    return keep


def sparsity(masks: Masks) -> float:
    """Share of the weights that are dropped."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())

"""Pruning masks: which weights stay. A mask is a boolean tensor of the weight's shape, True where kept."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from didact.core.errors import BadInput
from didact.core.objective import evaluating, output_tensor

Masks = dict[str, Tensor]


def prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of convolutions and linear maps. Biases and normalisation parameters are never pruned.

    Neither are weights that two modules share: in a head tied to an embedding, a zero would mean another
    thing there.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    found: dict[str, nn.Parameter] = {}
    for name, module in model.named_modules():
        if isinstance(module, kinds) and owners[id(module.weight)] < 2:
            found[f"{name}.weight".removeprefix(".")] = module.weight  # type: ignore[assignment]
    return found


def magnitude_masks(weights: Mapping[str, Tensor], rate: float) -> Masks:
    """Global magnitude pruning: drop the `rate` smallest absolute weights over all tensors together."""
    return keep_largest({name: weight.detach().abs() for name, weight in weights.items()}, rate)


def keep_largest(scores: Mapping[str, Tensor], rate: float) -> Masks:
    """Masks that drop the `round(rate * n)` smallest scores over all tensors together."""
    if not 0 <= rate < 1:
        raise BadInput(f"A pruning rate lies in [0, 1), but {rate} was given.")
    if not scores:
        raise BadInput("There is nothing to prune: the model has no convolution or linear weight of its own.")
    flat = torch.cat([score.flatten() for score in scores.values()])
    kept = torch.ones_like(flat, dtype=torch.bool)
    drop = round(rate * flat.numel())
    if drop:
        kept[torch.topk(flat, drop, largest=False).indices] = False
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {name: part.view_as(score) for part, (name, score) in zip(parts, scores.items(), strict=True)}


def synflow_masks(
    model: nn.Module, weights: Mapping[str, nn.Parameter], rate: float, example: Tensor, rounds: int = 100
) -> Masks:
    """Iterative synaptic-flow pruning, without data: score |w · d/dw Σ f(1)| with all weights made absolute.

    `example` is one input, (1, ...), whose shape counts. Each round keeps the share (1-rate)^(k/rounds), so
    that no layer is cut off. Works on a copy in evaluation mode and double precision: products over many
    layers leave the range of single precision.
    """
    if not 0 <= rate < 1:
        raise BadInput(f"A pruning rate lies in [0, 1), but {rate} was given.")
    twin = copy.deepcopy(model).double()
    flowing = {name: twin.get_parameter(name).requires_grad_(True) for name in weights}
    ones = torch.ones_like(example, dtype=torch.double)
    masks: Masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in flowing.items()}
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.abs_()
    for k in range(1, rounds + 1):
        apply_masks(flowing, masks)
        with evaluating(twin), torch.enable_grad():
            gradients = torch.autograd.grad(output_tensor(twin(ones)).sum(), list(flowing.values()))
        scores = {
            name: (gradient * weight).detach().abs()
            for gradient, (name, weight) in zip(gradients, flowing.items(), strict=True)
        }
        masks = keep_largest(scores, 1 - (1 - rate) ** (k / rounds))
    return masks


def check_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Reject masks that are not one boolean tensor of the weight's shape for every weight."""
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    given = {name: tuple(mask.shape) for name, mask in masks.items()}
    wrong = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
    if wrong:
        raise BadInput(
            f"The masks do not belong to this model: names or shapes differ at {', '.join(wrong[:5])}. "
            "Make them from its own weights, as magnitude_masks(prunable(model), rate) does."
        )
    kinds = sorted(name for name, mask in masks.items() if mask.dtype != torch.bool)
    if kinds:
        raise BadInput(f"Masks are boolean, True where a weight is kept, but {kinds[0]} is {masks[kinds[0]].dtype}.")


class _Masked(nn.Module):
    """A parametrization: the weight times its mask."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def impose(model: nn.Module, masks: Masks) -> nn.Module:
    """Tie the masks to the model, in place: until `lift`, dropped weights are zero whatever trains it.

    Each masked weight becomes a parametrization of torch, so its parameter gets another name; gradients of
    dropped weights are zero. Copies of the model keep the masks.
    """
    weights = prunable(model)
    check_masks(weights, masks)
    apply_masks(weights, masks)
    for name, mask in masks.items():
        module = model.get_submodule(name.rpartition(".")[0])
        parametrize.register_parametrization(module, "weight", _Masked(mask.to(weights[name].device)))
    return model


def lift(model: nn.Module, masks: Masks) -> nn.Module:
    """Undo `impose`, in place: plain parameters again, zero where the masks drop them."""
    for name in masks:
        module = model.get_submodule(name.rpartition(".")[0])
        if not parametrize.is_parametrized(module, "weight"):
            raise BadInput(f"No mask is imposed on {name}, so none can be lifted.")
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        # torch puts the weight last; whoever flattens parameters into a vector relies on the old order.
        for other in [key for key in module._parameters if key != "weight"]:
            module._parameters[other] = module._parameters.pop(other)
    return model


@torch.no_grad()
def apply_masks(weights: Mapping[str, Tensor], masks: Masks) -> None:
    """Zero what the masks drop, in place."""
    check_masks(weights, masks)
    for name, weight in weights.items():
        weight.mul_(masks[name].to(weight.device))


def sparsity(masks: Masks) -> float:
    """Share of the weights that are dropped."""
    return 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())

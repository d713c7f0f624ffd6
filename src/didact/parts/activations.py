"""Looking at what layers put out: hooks that catch activations, and attention maps made from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective import output_tensor, submodule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@contextmanager
def activations(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """What the named layers put out while the context is open: name -> outputs, one per call."""
    caught: dict[str, list[Tensor]] = {name: [] for name in layers}

    def catch(name: str) -> Any:
        return lambda module, inputs, output: caught[name].append(output_tensor(output))

    handles = [submodule(model, name).register_forward_hook(catch(name)) for name in layers]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()
    unused = [name for name, found in caught.items() if not found]
    if unused:
        raise BadInput(
            f"The layers {', '.join(unused)} are not used in the forward pass, so they have no activations. "
            "Name other layers."
        )


def attention(activation: Tensor, features_last: bool = False, mask: Tensor | None = None) -> Tensor:
    """(B, places) attention map of unit length: squared activations averaged over channels.

    The channels of an activation are its second dimension, (B, C, ...), or the last of a sequence (B, T, d).
    `mask` (B, T) is 0 where a sequence is padded.
    """
    energy = activation.square().mean(-1 if features_last else 1)
    if features_last and mask is not None and mask.shape == energy.shape:
        energy = energy * mask.to(energy)
    return F.normalize(energy.flatten(1), dim=1)


def attention_distance(a: Tensor, b: Tensor) -> Tensor:
    """AT: mean over samples and places of the squared difference of two attention maps."""
    return (a - b).square().mean()


def has_places(activation: Tensor, samples: int) -> bool:
    """Whether an activation has dimensions besides samples and features (a vector per sample has not)."""
    return activation.ndim >= 3 and len(activation) == samples


def features_last(model: nn.Module, name: str, activation: Tensor) -> bool:
    """(B, T, d) holds features last, unless a convolution made it."""
    return activation.ndim == 3 and not isinstance(model.get_submodule(name), CONVOLUTIONS)


def compared_layers(model: nn.Module, layers: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of the layers whose attention is compared."""
    if layers != "conv":
        for name in layers:
            submodule(model, name)  # raises, and lists the layers, when there is none of that name
        return tuple(layers)
    convolutions = _of_type(model, CONVOLUTIONS)
    if convolutions:
        return convolutions
    blocks = {
        f"{name}.{index}"
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        for index in range(len(module))
    }
    # Blocks within blocks would count twice: only the outermost are taken.
    outermost = [b for b in blocks if not any(b != other and b.startswith(f"{other}.") for other in blocks)]
    found = {*outermost, *_of_type(model, (nn.RNNBase,))}
    return tuple(name for name, _ in model.named_modules() if name in found)


def _of_type(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> tuple[str, ...]:
    return tuple(name for name, module in model.named_modules() if isinstance(module, kinds))

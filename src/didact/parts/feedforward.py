"""The feed-forward layers of a decoder: where a neuron's pre-activation and the layer's key can be read and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.errors import BadInput
from didact.core.objective import Objective, device_of, evaluating
from didact.data.text import TextDataset

#: names that decoders give to the map into the feed-forward layer (its gate, where it is gated) and out of it
INTO = ("gate_proj", "c_fc", "fc1", "dense_h_to_4h", "fc_in", "w1", "wi")
OUT_OF = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "w2", "wo")

Change = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class FeedForward:
    """One layer: the module whose output is the pre-activation, and the one whose input is the key."""

    into: nn.Module
    out_of: nn.Module


def feed_forward_layers(model: nn.Module) -> list[FeedForward]:
    """The feed-forward layers in order.

    Raises:
        BadInput: when no module has one of the usual names.
    """
    found = []
    for name, parent in model.named_modules():
        children = dict(parent.named_children())
        into = next((children[n] for n in INTO if n in children), None)
        out_of = next((children[n] for n in OUT_OF if n in children), None)
        if into is not None and out_of is not None and "attn" not in name.rsplit(".", 1)[-1]:
            found.append(FeedForward(into, out_of))
    if not found:
        raise BadInput(
            f"{type(model).__name__} has no feed-forward layer that is known by its name. Expected children such as "
            f"{', '.join(INTO[:3])} and {', '.join(OUT_OF[:3])}."
        )
    return found


@contextmanager
def changing(layers: list[FeedForward], change: Change) -> Iterator[None]:
    """Inside, `change(layer, z)` replaces every layer's pre-activation z (B, T, d_ff)."""

    def hook(i: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, inputs, output: change(i, output)

    handles = [layer.into.register_forward_hook(hook(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def reading(
    layers: list[FeedForward],
    *,
    keys: Callable[[int, Tensor], None] | None = None,
    before: Callable[[int, Tensor], None] | None = None,
) -> Iterator[None]:
    """Inside, `keys(layer, k)` sees what enters the maps out of the layers, `before(layer, z)` the pre-activations."""
    handles = []
    for i, layer in enumerate(layers):
        if keys is not None:
            handles.append(layer.out_of.register_forward_pre_hook(lambda _, inputs, i=i: keys(i, inputs[0])))
        if before is not None:
            handles.append(layer.into.register_forward_hook(lambda _, __, out, i=i: before(i, out)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of each neuron's pre-activation over all tokens, (layers, d_ff) each."""

    mean: Tensor
    std: Tensor
    magnitude: Tensor  #: mean absolute activation that enters the map out of the layer


@torch.no_grad()
def moments(objective: Objective, model: nn.Module, data: TextDataset, batch_size: int = 64) -> Moments:
    """Of the tokens of some texts, padding left out. Cost: one forward pass over them."""
    layers = feed_forward_layers(model)
    total: list[Tensor | float] = [0.0] * len(layers)
    square: list[Tensor | float] = [0.0] * len(layers)
    size: list[Tensor | float] = [0.0] * len(layers)
    count = 0
    kept = torch.zeros(0)

    def before(i: int, z: Tensor) -> None:
        rows = z[kept].double()
        total[i] = total[i] + rows.sum(0)
        square[i] = square[i] + rows.square().sum(0)

    def keys(i: int, key: Tensor) -> None:
        size[i] = size[i] + key[kept].double().abs().sum(0)

    with evaluating(model), reading(layers, keys=keys, before=before):
        for batch in objective.loader(data, batch_size):
            inputs = {k: v for k, v in objective.to(batch, device_of(model)).items() if k != "labels"}
            kept = inputs["attention_mask"].bool()
            count += int(kept.sum())
            model(**inputs)
            count_forward(len(kept))
    mean = torch.stack([torch.as_tensor(t) for t in total]) / count
    spread = (torch.stack([torch.as_tensor(s) for s in square]) / count - mean.square()).clamp(min=0).sqrt()
    magnitude = torch.stack([torch.as_tensor(s) for s in size]) / count
    return Moments(mean.float(), spread.float(), magnitude.float())


@torch.no_grad()
def prompt_keys(objective: Objective, model: nn.Module, data: TextDataset, batch_size: int = 64) -> Tensor:
    """(N, layers, d_ff) keys at the last token of each item's prompt."""
    layers = feed_forward_layers(model)
    found: list[Tensor] = []
    caught: dict[int, Tensor] = {}
    with evaluating(model), reading(layers, keys=lambda i, key: caught.__setitem__(i, key)):
        for batch in objective.loader(data, batch_size):
            inputs = {k: v for k, v in objective.to(batch, device_of(model)).items() if k != "labels"}
            prompt = inputs["attention_mask"].bool() & (objective.targets(batch).to(device_of(model)) < 0)
            model(**inputs)
            count_forward(len(prompt))
            found.append(torch.stack([last_of(caught[i], prompt) for i in range(len(layers))], 1).cpu())
    return torch.cat(found)


def last_of(states: Tensor, mask: Tensor) -> Tensor:
    """(B, d): of states (B, T, d) the one at each row's last position with a True mask."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = torch.where(mask, positions, -1).amax(1).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), last]

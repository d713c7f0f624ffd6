"""Low-rank adapters on groups of layers, and the served model: one frozen backbone, adapters and a head a shard."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective import head_name, output_tensor
from didact.models.wrappers import wrapper

State = dict[str, Tensor]
Averaged = Literal["probabilities", "outputs"]
#: modules whose linear layers are used by their weights, not called: an adapter there would be passed over in silence
CLOSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def layers_of(model: nn.Module, targets: Sequence[str] = ()) -> list[list[str]]:
    """The adaptable layers from bottom to top: each a list of the names of its maps.

    Maps are nn.Linear, ungrouped nn.Conv2d and the Conv1D of transformers; the head (the last linear map) is none.
    Maps of one numbered block ("encoder.layer.3.") make one layer. `targets` keeps the maps whose name ends so
    ("query", "value").
    """
    closed = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, CLOSED))
    head, layers = head_name(model), dict[str, list[str]]()
    for name, module in model.named_modules():
        if name == head or not _adaptable(module) or name.startswith(closed):
            continue
        if targets and name.split(".")[-1] not in targets:
            continue
        layers.setdefault(_block(name), []).append(name)
    return list(layers.values())


def layer_groups(model: nn.Module, slices: int, targets: Sequence[str] = ()) -> list[list[str]]:
    """The maps of each slice's group: N // slices layers a group, from the top of the N layers down.

    Raises:
        BadInput: more slices than adaptable layers.
    """
    layers = layers_of(model, targets)
    size = len(layers) // slices
    if size < 1:
        among = f" named {' or '.join(targets)}" if targets else ""
        raise BadInput(
            f"Each slice needs a layer of its own: {slices} slices were asked for, but {type(model).__name__} has "
            f"{len(layers)} adaptable layers{among}. Use fewer slices or a deeper model."
        )
    top_down = layers[::-1]
    return [[name for layer in top_down[j * size : (j + 1) * size] for name in layer] for j in range(slices)]


class LowRank(nn.Module):
    """scale * up(down(dropout(x))), to be added to what a map makes of x; starts at exactly zero.

    `down` has `rank` outputs and the map's kernel; `up` leads to the map's outputs. scale = alpha / sqrt(rank).
    """

    def __init__(self, layer: nn.Module, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.down, self.up = _down_and_up(layer, rank)
        self.dropout = nn.Dropout(dropout)
        self.scale = alpha / math.sqrt(rank)
        nn.init.zeros_(self.up.weight)
        self.to(next(layer.parameters()))

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.up(self.down(self.dropout(x)))
        return self.scale * change


class Adaptable(nn.Module):
    """A frozen map with adapters by slot; the one of `slot`, if there is one, is added."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.adapters = nn.ModuleDict()
        self.slot = ""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(x)
        return output + self.adapters[self.slot](x) if self.slot in self.adapters else output

    @property
    def weight(self) -> Tensor:  # some models look at the type of a layer's weight before they call it
        return self.layer.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        return self.layer.bias  # type: ignore[return-value]


class Heads(nn.Module):
    """The backbone's own head, kept for saving, and a copy of it by slot; the one of `slot` is used."""

    def __init__(self, layer: nn.Module, slots: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = nn.ModuleDict({str(slot): copy.deepcopy(layer) for slot in range(slots)})
        self.slot = "0"

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.heads[self.slot](x)
        return output

    @property
    def weight(self) -> Tensor:
        return self.layer.weight  # type: ignore[return-value]


class SlicedEnsemble(nn.Module):
    """One frozen backbone and, in each slot, low-rank adapters on its first groups of layers and a head.

    Called as the backbone is; returns (B, ..., C) log-probabilities of the slots' averaged probabilities, or their
    averaged outputs for a regressor. With one slot: that slot's raw output. One forward pass of the backbone a slot.
    The backbone stays in evaluation mode also in training, so that no running statistic moves.

    Args:
        groups: names of the maps of each group.
        active: how many groups each slot has.
    """

    kind = "s3t"
    tokenizer: Any = None

    def __init__(
        self,
        backbone: nn.Module,
        groups: Sequence[Sequence[str]],
        head: str,
        active: Sequence[int],
        rank: int = 8,
        alpha: float | None = None,
        dropout: float = 0.1,
        average: Averaged = "probabilities",
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.groups, self.head, self.active = [list(group) for group in groups], head, list(active)
        self.rank, self.alpha, self.dropout, self.average = rank, alpha, dropout, average
        for number, group in enumerate(self.groups):
            for name in group:
                self._adapt(name, [slot for slot, count in enumerate(self.active) if number < count])
        heads = Heads(backbone.get_submodule(head), len(self.active))
        backbone.set_submodule(head, heads)
        heads.heads.requires_grad_(True)
        self.train(backbone.training)

    def _adapt(self, name: str, slots: Sequence[int]) -> None:
        layer = Adaptable(self.backbone.get_submodule(name))
        for slot in slots:
            adapter = LowRank(layer.layer, self.rank, self.alpha or self.rank, self.dropout)
            layer.adapters[str(slot)] = adapter
        self.backbone.set_submodule(name, layer)

    # -- serving ---------------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        return averaged([self.member(slot, *inputs, **named) for slot in range(len(self.active))], self.average)

    def member(self, slot: int, *inputs: Any, **named: Any) -> Tensor:
        """The raw output of one slot."""
        for module in self.slotted():
            module.slot = str(slot)
        return output_tensor(self.backbone(*inputs, **named))

    def slotted(self) -> Iterator[Adaptable | Heads]:
        for module in self.backbone.modules():
            if isinstance(module, (Adaptable, Heads)):
                yield module

    def train(self, mode: bool = True) -> SlicedEnsemble:
        super().train(False)
        self.training = mode
        for module in self.modules():
            if isinstance(module, LowRank):
                module.train(mode)
        return self

    # -- the tensors of a slot -------------------------------------------------------------------------------------

    def adapters(self, slot: int, group: int) -> dict[str, nn.Module]:
        """Map name -> adapter."""
        found = {name: self.backbone.get_submodule(name) for name in self.groups[group]}
        return {name: layer.adapters[str(slot)] for name, layer in found.items() if isinstance(layer, Adaptable)}

    def head_of(self, slot: int) -> nn.Module:
        heads = self.backbone.get_submodule(self.head)
        assert isinstance(heads, Heads)
        return heads.heads[str(slot)]

    # -- saving and loading ----------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        names = ("groups", "head", "active", "rank", "alpha", "dropout", "average")
        return {name: getattr(self, name) for name in names}

    def parts(self) -> dict[str, nn.Module]:
        """The backbone as it was given, without adapters."""
        plain = copy.deepcopy(self.backbone)
        for name in (*(name for group in self.groups for name in group), self.head):
            plain.set_submodule(name, plain.get_submodule(name).layer)  # type: ignore[arg-type]
        return {"backbone": plain}

    def own_tensors(self) -> State:
        wrapped = [f"backbone.{name}.adapters." for group in self.groups for name in group]
        own = (*wrapped, f"backbone.{self.head}.heads.")
        return {name: tensor.contiguous() for name, tensor in self.state_dict().items() if name.startswith(own)}

    @classmethod
    def assemble(cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any) -> SlicedEnsemble:
        return cls(parts["backbone"], **options)


wrapper("s3t")(SlicedEnsemble)  # type: ignore[arg-type]  # it serves more than language models


def averaged(outputs: Sequence[Tensor], how: Averaged) -> Tensor:
    """The log of the mean probabilities (..., C) of several raw outputs, or their mean; a single output as it is."""
    if len(outputs) == 1:
        return outputs[0]
    if how == "outputs":
        return torch.stack(list(outputs)).mean(0)
    return torch.stack([F.log_softmax(output, -1) for output in outputs]).logsumexp(0) - math.log(len(outputs))


def _adaptable(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.groups == 1
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def _block(name: str) -> str:
    """ "encoder.layer.3.attention.query" -> "encoder.layer.3": up to the first number, or the whole name."""
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: number + 1])


def _down_and_up(layer: Any, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    if isinstance(layer, nn.Conv2d):
        shape = (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        down: Any = nn.Conv2d(layer.in_channels, rank, *shape, bias=False, padding_mode=layer.padding_mode)  # type: ignore[arg-type]
        return down, nn.Conv2d(rank, layer.out_channels, 1, bias=False)
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, rank, bias=False), nn.Linear(rank, layer.out_features, bias=False)
    inputs, outputs = layer.weight.shape  # Conv1D keeps its weight the other way round
    return nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

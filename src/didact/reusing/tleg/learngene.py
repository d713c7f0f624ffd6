"""The learngene of a transformer: two blocks A and B, of which every layer of any depth is a point on one line."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call

from didact.core.errors import BadInput
from didact.models.artifacts import load, save
from didact.parts.stacks import Stack, block_state, find_stack, with_depth

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Learngene:
    """Two blocks and what stands around them. `expand(depth)` makes a network of its own."""

    template: nn.Module  #: any network of the architecture, with everything but the blocks trained
    stack: Stack  #: where its blocks are
    a: State  #: parameter of a block -> its value at layer 0
    b: State  #: its slope over the relative depth l / L

    def expand(self, depth: int) -> nn.Module:
        """An ordinary network of `depth` blocks, in evaluation mode: block l is A + (l / depth) B."""
        made = with_depth(self.template, self.stack, depth)
        values = line(self.a, self.b, depth)
        with torch.no_grad():
            for place, state in enumerate(values):
                for name, value in state.items():
                    made.get_parameter(self.stack.parameter(place, name)).copy_(value)
        return made.eval()

    def initialise(self, model: nn.Module) -> list[str]:
        """Fill a network of the same kind in place, whatever its depth; returns the parameters left as they were.

        Positions of another picture size are interpolated. What has another shape, such as the head of other classes,
        is left alone with a warning.
        """
        stack = find_stack(model, self.stack.name)
        if stack.shapes != self.stack.shapes:
            raise BadInput("The model's blocks have other parameters than the learngene's.")
        shared: dict[str, Tensor] = dict(self.template.named_parameters())
        values = line(self.a, self.b, stack.depth)
        left = []
        with torch.no_grad():
            for place, state in enumerate(values):
                for name, value in state.items():
                    model.get_parameter(stack.parameter(place, name)).copy_(value)
            for name, parameter in model.named_parameters():
                if stack.owns(name):
                    continue
                stored = shared.get(name)
                fitted = None if stored is None else resized(stored, parameter.shape)
                if fitted is None:
                    left.append(name)
                else:
                    parameter.copy_(fitted)
        if left:
            warnings.warn(f"Left as they were, for their shapes differ: {', '.join(left)}.", stacklevel=2)
        return left

    @property
    def stored_parameters(self) -> int:
        """Numbers to store: two blocks and what stands around them."""
        around = sum(p.numel() for n, p in self.template.named_parameters() if not self.stack.owns(n))
        return around + sum(v.numel() for v in self.a.values()) + sum(v.numel() for v in self.b.values())

    def save(self, folder: str | Path) -> Path:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save(with_depth(self.template, self.stack, 1), folder / "template")
        tensors = {
            f"{side}.{n}": v.contiguous() for side, state in (("a", self.a), ("b", self.b)) for n, v in state.items()
        }
        save_file(tensors, str(folder / "line.safetensors"))
        (folder / "learngene.json").write_text(json.dumps({"stack": self.stack.name}), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> Learngene:
        folder = Path(folder)
        template = load(folder / "template")
        name = json.loads((folder / "learngene.json").read_text(encoding="utf-8"))["stack"]
        tensors = load_file(str(folder / "line.safetensors"))
        a, b = ({n[2:]: v for n, v in tensors.items() if n.startswith(f"{side}.")} for side in "ab")
        return cls(template, find_stack(template, name), a, b)


def line(a: Mapping[str, Tensor], b: Mapping[str, Tensor], depth: int) -> list[State]:
    """Parameters of each of `depth` layers: A + (l / depth) B for l = 0 .. depth - 1. The last is not at A + B."""
    if depth < 1:
        raise BadInput(f"A model has at least one layer, but depth {depth} was asked for.")
    return [{name: a[name] + (layer / depth) * b[name] for name in a} for layer in range(depth)]


def fitted_line(model: nn.Module, stack: Stack) -> tuple[State, State]:
    """The (A, B) whose layers come closest, in squares, to those of an ordinary network."""
    states = [block_state(model, stack, layer) for layer in range(stack.depth)]
    at = torch.arange(stack.depth) / stack.depth
    centred = at - at.mean()
    spread = float(centred.square().sum())
    a, b = {}, {}
    for name in states[0]:
        values = torch.stack([state[name] for state in states]).float()
        mean = values.mean(0)
        weights = centred.view(-1, *(1,) * mean.ndim)
        b[name] = (weights * values).sum(0) / spread if spread else torch.zeros_like(mean)
        a[name] = mean - at.mean() * b[name]
    return a, b


def layer_line(model: nn.Module, name: str | None = None) -> dict[str, dict[str, float]]:
    """How close a trained network's layers are to a line, a row a parameter of the block.

    `explained` is the share of the variance over layers along the first principal component, `linearity` the absolute
    correlation of that component with the layer's number.
    """
    stack = find_stack(model, name)
    if stack.depth < 3:
        raise BadInput(f"At least 3 blocks are needed to tell a line from two points, but there are {stack.depth}.")
    states = [block_state(model, stack, layer) for layer in range(stack.depth)]
    found = {}
    for parameter in states[0]:
        values = torch.stack([state[parameter].flatten().double() for state in states])
        centred = values - values.mean(0)
        left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
        total = float(sizes.square().sum())
        if total == 0:
            continue
        at = torch.arange(stack.depth).double()
        at = at - at.mean()
        correlation = float((left[:, 0] @ at).abs() / at.norm())  # left's column has norm 1 and mean 0
        found[parameter] = {"explained": float(sizes[0].square()) / total, "linearity": correlation}
    return found


def resized(value: Tensor, shape: torch.Size) -> Tensor | None:
    """The tensor when it fits, positions (1, T, d) of a square picture at another size, or None."""
    if value.shape == shape:
        return value
    if value.ndim != 3 or len(shape) != 3 or value.shape[::2] != shape[::2]:
        return None
    old, new = round(value.shape[1] ** 0.5), round(shape[1] ** 0.5)
    if old * old != value.shape[1] or new * new != shape[1]:
        return None
    grid = value.transpose(1, 2).reshape(1, -1, old, old)
    return (
        nn.functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
    )


class LinearStack(nn.Module):
    """A network of which only A, B and what stands around the blocks are parameters; trained as one network.

    The layers are computed from A and B once a forward pass, and gradients reach both through all of them.
    """

    def __init__(self, template: nn.Module, stack: Stack, a: State, b: State, tied: bool = False) -> None:
        """`tied` leaves the slope at zero and untrained: all layers are A."""
        super().__init__()
        # Held in a tuple, so that its own, unused block weights are no parameters of this module.
        self._template = (copy.deepcopy(template),)
        self.stack = stack
        self.a = nn.ParameterDict({_key(n): nn.Parameter(v.clone()) for n, v in a.items()})
        self.b = nn.ParameterDict({_key(n): nn.Parameter(v.clone(), requires_grad=not tied) for n, v in b.items()})
        around = {n: p for n, p in template.named_parameters() if not stack.owns(n)}
        self.around = nn.ParameterDict({_key(n): nn.Parameter(p.detach().clone()) for n, p in around.items()})

    def forward(self, *inputs: Any, **named: Any) -> Any:
        values = {_name(n): p for n, p in self.around.items()}
        for place, state in enumerate(line(dict(self.a.items()), dict(self.b.items()), self.stack.depth)):
            values |= {self.stack.parameter(place, _name(n)): value for n, value in state.items()}
        return functional_call(self._template[0], values, inputs, named)

    def learngene(self) -> Learngene:
        template = copy.deepcopy(self._template[0])
        with torch.no_grad():
            for key, parameter in self.around.items():
                template.get_parameter(_name(key)).copy_(parameter)
        a, b = ({_name(n): p.detach().clone() for n, p in side.items()} for side in (self.a, self.b))
        return Learngene(template, self.stack, a, b)

    def train(self, mode: bool = True) -> LinearStack:
        self._template[0].train(mode)
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> LinearStack:
        self._template[0]._apply(fn)  # type: ignore[no-untyped-call]  # its buffers must be where the parameters are
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def fresh_line(template: nn.Module, stack: Stack, seed: int = 0) -> tuple[State, State]:
    """Initial A and B: matrices of both truncated normal with deviation 0.02; of the rest, A as a fresh block has it
    (norm weights 1, biases 0) and B zero."""
    generator = torch.Generator().manual_seed(seed)
    block = template.get_submodule(f"{stack.name}.0")
    a, b = {}, {}
    for name, parameter in block.named_parameters():
        value = parameter.detach()
        if value.ndim >= 2:
            a[name], b[name] = (
                nn.init.trunc_normal_(torch.empty_like(value), std=0.02, generator=generator) for _ in "ab"
            )
        else:
            start = torch.zeros_like(value) if name.endswith("bias") else torch.ones_like(value)
            a[name], b[name] = start, torch.zeros_like(value)
    return a, b


def _key(name: str) -> str:
    return name.replace(".", "/")  # a ParameterDict takes no dots


def _name(key: str) -> str:
    return key.replace("/", ".")

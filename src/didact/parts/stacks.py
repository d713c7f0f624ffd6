"""Stacks of identical blocks: found in any model, taken apart and built again with another depth."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn

from didact.core.errors import BadInput

#: where Hugging Face configurations and our own architectures keep the number of blocks
DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "depth", "layers")


@dataclass(frozen=True)
class Stack:
    """A list of blocks inside a model, by its name."""

    name: str
    depth: int
    shapes: dict[str, tuple[int, ...]]  #: parameter of a block -> its shape

    def parameter(self, block: int, name: str) -> str:
        return f"{self.name}.{block}.{name}"

    def owns(self, parameter: str) -> bool:
        return parameter.startswith(f"{self.name}.")


def find_stack(model: nn.Module, name: str | None = None) -> Stack:
    """The model's list of identical blocks: the named one, or the one with the most parameters.

    Raises BadInput when there is none, or the blocks differ in their parameters.
    """
    lists = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) > 0}
    if name is not None:
        if name not in lists:
            raise BadInput(f"The model has no list of blocks {name!r}. Its lists: {', '.join(lists) or 'none'}.")
        return _stack(name, lists[name])
    uniform = [_stack(n, m) for n, m in lists.items() if _alike(m)]
    if not uniform:
        raise BadInput(
            f"{type(model).__name__} has no list of identical blocks (a ModuleList whose members have parameters of "
            "the same names and shapes)."
        )
    return max(uniform, key=lambda stack: sum(p.numel() for p in lists[stack.name].parameters()))


def blocks(model: nn.Module, stack: Stack) -> nn.ModuleList:
    found = model.get_submodule(stack.name)
    assert isinstance(found, nn.ModuleList)
    return found


def block_state(model: nn.Module, stack: Stack, block: int) -> dict[str, Tensor]:
    """Parameters of one block by their names inside it."""
    return {n: p.detach() for n, p in blocks(model, stack)[block].named_parameters()}


def with_depth(model: nn.Module, stack: Stack, depth: int) -> nn.Module:
    """A copy of the model with `depth` blocks, each a copy of the first; everything else as it is."""
    if depth < 1:
        raise BadInput(f"A model has at least one block, but depth {depth} was asked for.")
    made = copy.deepcopy(model)
    first = blocks(made, stack)[0]
    made.set_submodule(stack.name, nn.ModuleList(_numbered(copy.deepcopy(first), i) for i in range(depth)))
    config = getattr(made, "config", None)
    for key in DEPTHS:
        if config is not None and getattr(config, key, None) == stack.depth:
            setattr(config, key, depth)
    architecture = getattr(model, "architecture", None)
    if isinstance(architecture, dict):
        named = [key for key in DEPTHS if architecture["options"].get(key) == stack.depth]
        options = {**architecture["options"], **dict.fromkeys(named[:1], depth)}
        made.architecture = {**architecture, "options": options}  # type: ignore[assignment]
    return made


def _stack(name: str, members: nn.ModuleList) -> Stack:
    if not _alike(members):
        raise BadInput(f"The blocks of {name!r} differ in the names or shapes of their parameters.")
    return Stack(name, len(members), _shapes(members[0]))


def _alike(members: nn.ModuleList) -> bool:
    first = _shapes(members[0])
    return bool(first) and all(_shapes(member) == first for member in members)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def _numbered(block: nn.Module, place: int) -> nn.Module:
    # Hugging Face's attention finds its place in the key-value cache by this number.
    for module in block.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = place  # type: ignore[assignment]
    return block

"""The pool: instances of different width, and learnable maps by which the front of one joins the back of another."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective.models import head_name, output_tensor
from didact.models.artifacts import load, save
from didact.models.small import architecture, build


@runtime_checkable
class Staged(Protocol):
    """What an instance must offer: a transformer in three stages. `didact.models.vit.VisionTransformer` is one."""

    blocks: nn.ModuleList

    def embed(self, inputs: Any) -> Tensor:
        """Inputs -> (B, T, width)."""

    def read_out(self, tokens: Tensor) -> Tensor:
        """The last block's output -> the network's output."""


@dataclass(frozen=True, order=True)
class Configuration:
    """A network of the pool: an instance, or the front of one (blocks 0 to `leave`) and the back of a wider one (from
    block `enter`)."""

    front: int  #: index of the instance that begins
    back: int  #: index of the instance that ends; the same for an instance as it is
    leave: int = -1
    enter: int = -1

    @property
    def stitched(self) -> bool:
        return self.front != self.back

    def __str__(self) -> str:
        return f"{self.front}[:{self.leave + 1}] + {self.back}[{self.enter}:]" if self.stitched else f"{self.front}"


def stitched_pairs(blocks: int, window: int = 2, stride: int = 1) -> dict[tuple[int, int], int]:
    """(leave, enter) -> number of its matrix. Pairs first met in the same sliding window share one matrix."""
    if window > blocks:
        raise BadInput(f"A window of {window} blocks does not fit instances of {blocks}.")
    found: dict[tuple[int, int], int] = {}
    for number, start in enumerate(range(0, blocks - window + 1, stride)):
        inside = range(start, start + window)
        for leave in inside:
            for enter in inside:
                found.setdefault((leave, enter), number)
    return found


class Pool(nn.Module):
    """Instances from narrow to wide with the same number of blocks, and the stitches between the ends of that range.

    `forward` runs the configuration chosen last by `choose`, so that the pool is trained like any network.
    """

    def __init__(self, instances: list[nn.Module], window: int = 2, every_pair: bool = False) -> None:
        """`every_pair` stitches all pairs of neighbouring widths, instead of the narrowest with the widest alone."""
        super().__init__()
        self.instances = nn.ModuleList(instances)
        self.window, self.every_pair = window, every_pair
        self.depth = _common_depth(instances)
        self.widths = [width_of(instance) for instance in instances]
        if self.widths != sorted(set(self.widths)):
            raise BadInput(f"The instances' widths must increase from one to the next, but they are {self.widths}.")
        self.matrices = stitched_pairs(self.depth, window)
        self.stitches = nn.ModuleDict(
            {
                _key(front, back, number): nn.Linear(self.widths[front], self.widths[back])
                for front, back in self.joints()
                for number in range(max(self.matrices.values()) + 1)
            }
        )
        self.chosen = Configuration(0, 0)

    def joints(self) -> list[tuple[int, int]]:
        """Pairs of instances that are joined, narrower first."""
        last = len(self.instances) - 1
        return [(i, i + 1) for i in range(last)] if self.every_pair else [(0, last)] if last else []

    def configurations(self) -> list[Configuration]:
        """All networks of the pool: the instances, then the stitched ones."""
        whole = [Configuration(i, i) for i in range(len(self.instances))]
        return whole + [Configuration(f, b, leave, enter) for f, b in self.joints() for leave, enter in self.matrices]

    def stitch(self, configuration: Configuration) -> nn.Linear:
        number = self.matrices[configuration.leave, configuration.enter]
        return cast(nn.Linear, self.stitches[_key(configuration.front, configuration.back, number)])

    def choose(self, configuration: Configuration) -> None:
        self.chosen = configuration

    def forward(self, inputs: Any) -> Tensor:
        return self.run(self.chosen, inputs)

    def run(self, configuration: Configuration, inputs: Any) -> Tensor:
        front, back = self._instance(configuration.front), self._instance(configuration.back)
        x = front.embed(inputs)
        if not configuration.stitched:
            return back.read_out(through(back.blocks, x))
        x = self.stitch(configuration)(through(front.blocks[: configuration.leave + 1], x))
        return back.read_out(through(back.blocks[configuration.enter :], x))

    def build(self, configuration: Configuration) -> nn.Module:
        """The configuration as a network of its own, in evaluation mode, with copies of the weights it uses."""
        front, back = self.instances[configuration.front], self.instances[configuration.back]
        if not configuration.stitched:
            return _copy(front)
        made = build("stitched", front=front.architecture, back=back.architecture, leave=configuration.leave,
                     enter=configuration.enter)  # fmt: skip
        made.take(front, back, self.stitch(configuration))  # type: ignore[operator]
        return made.eval()

    def parameters_of(self, configuration: Configuration) -> int:
        return sum(p.numel() for p in self.build(configuration).parameters())

    def _instance(self, index: int) -> Staged:
        return cast(Staged, self.instances[index])

    def save(self, folder: str | Path) -> Path:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for i, instance in enumerate(self.instances):
            save(instance, folder / f"instance-{i}")
        save_file(
            {n: p.detach().contiguous() for n, p in self.stitches.state_dict().items()},
            str(folder / "stitches.safetensors"),
        )
        about = {"instances": len(self.instances), "window": self.window, "every_pair": self.every_pair}
        (folder / "pool.json").write_text(json.dumps(about), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> Pool:
        folder = Path(folder)
        about = json.loads((folder / "pool.json").read_text(encoding="utf-8"))
        made = cls(
            [load(folder / f"instance-{i}") for i in range(about["instances"])], about["window"], about["every_pair"]
        )
        made.stitches.load_state_dict(load_file(str(folder / "stitches.safetensors")))
        return made.eval()


@architecture("stitched")
class Stitched(nn.Module):
    """The front of one transformer, a linear map, the back of a wider one; as light as what it uses.

    `front` and `back` are architectures as `{"name", "options"}` that build something `Staged`.
    """

    def __init__(self, front: dict[str, Any], back: dict[str, Any], leave: int, enter: int) -> None:
        super().__init__()
        self.front = build(front["name"], **front["options"])
        self.back = build(back["name"], **back["options"])
        self.stitch = nn.Linear(width_of(self.front), width_of(self.back))
        staged_front, staged_back = cast(Staged, self.front), cast(Staged, self.back)
        staged_front.blocks = staged_front.blocks[: leave + 1]
        staged_back.blocks = staged_back.blocks[enter:]
        self.leave, self.enter = leave, enter
        for name in reading_parts(self.front):
            setattr(self.front, name, nn.Identity())
        for name in embedding_parts(self.back):
            setattr(self.back, name, None)

    def forward(self, inputs: Any) -> Tensor:
        front, back = cast(Staged, self.front), cast(Staged, self.back)
        x = self.stitch(through(front.blocks, front.embed(inputs)))
        return back.read_out(through(back.blocks, x))

    @torch.no_grad()
    def take(self, front: nn.Module, back: nn.Module, stitch: nn.Linear) -> None:
        """Copy weights from whole instances."""
        for mine, source, shift in ((self.front, front, 0), (self.back, back, self.enter)):
            theirs = dict(source.named_parameters())
            for name, parameter in mine.named_parameters():
                parameter.copy_(theirs[_shifted(name, shift)])
        self.stitch.load_state_dict(stitch.state_dict())


def through(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = output_tensor(block(x))
    return x


def width_of(instance: nn.Module) -> int:
    """Width of the tokens between the blocks: what its last linear layer reads."""
    if not isinstance(instance, Staged):
        raise BadInput(
            f"{type(instance).__name__} cannot be stitched: an instance offers embed(inputs), blocks and "
            "read_out(tokens), as didact.models.vit does."
        )
    if not isinstance(getattr(instance, "architecture", None), dict):
        raise BadInput(
            f"{type(instance).__name__} cannot be built again in parts: declare its class with "
            "didact.models.small.architecture and make instances by didact.models.small.build."
        )
    return int(cast(nn.Linear, instance.get_submodule(head_name(instance))).in_features)


def depth_of(instance: nn.Module) -> int:
    return len(cast(Staged, instance).blocks)


def embedding_parts(instance: nn.Module) -> list[str]:
    """Names of what only `embed` uses."""
    return list(getattr(instance, "embedding_names", ("patch_embedding", "positions")))


def reading_parts(instance: nn.Module) -> list[str]:
    """Names of what only `read_out` uses."""
    return list(getattr(instance, "reading_names", ("norm", "head")))


def _common_depth(instances: list[nn.Module]) -> int:
    if not instances:
        raise BadInput("A pool needs at least one instance.")
    for instance in instances:
        width_of(instance)  # says what an instance must offer
    depths = {depth_of(instance) for instance in instances}
    if len(depths) != 1:
        raise BadInput(f"All instances of a pool must have the same number of blocks, but they have {sorted(depths)}.")
    return depths.pop()


def _copy(instance: nn.Module) -> nn.Module:
    return copy.deepcopy(instance).eval()


def _key(front: int, back: int, number: int) -> str:
    return f"{front}-{back}-{number}"


def _shifted(name: str, by: int) -> str:
    """The name of a block's parameter in the whole instance."""
    parts = name.split(".")
    if parts[0] == "blocks":
        parts[1] = str(int(parts[1]) + by)
    return ".".join(parts)

"""Small networks for embedded problems, buildable by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from didact.core import registry
from didact.core.errors import BadInput, UnknownName

_builders: dict[str, Callable[..., nn.Module]] = {}


def architecture(name: str) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Class decorator: make a module buildable by name."""

    def decorate(cls: type[nn.Module]) -> type[nn.Module]:
        _builders[name] = cls
        return cls

    return decorate


def build(name: str, **options: Any) -> nn.Module:
    """An untrained model of a named architecture; it remembers how it was built (`.architecture`)."""
    if name not in _builders:
        registry.load()  # some architectures are declared beside the methods and problems that use them
    if name not in _builders:
        raise UnknownName(f"There is no architecture {name!r}. Known: {', '.join(sorted(_builders))}.")
    model = _builders[name](**options)
    model.architecture = {"name": name, "options": options}  # type: ignore[assignment]
    return model


@architecture("mlp")
class MLP(nn.Module):
    """Fully connected ReLU network: (B, ...) flattened to (B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (128, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(x.flatten(1)))
        return output


@architecture("convnet")
class ConvNet(nn.Module):
    """3x3 convolutions, each with ReLU and 2x2 max pooling, a dense layer and a linear head.

    Images (B, channels_in, size, size) -> (B, outputs). With the defaults and 8x8 digits: 87,178 parameters.
    """

    def __init__(
        self,
        outputs: int = 10,
        size: int = 8,
        channels_in: int = 1,
        channels: Sequence[int] = (32, 64),
        dense: int = 256,
    ) -> None:
        super().__init__()
        side = size // 2 ** len(channels)
        if side < 1:
            raise BadInput(f"Images of {size} pixels cannot be halved {len(channels)} times. Use fewer channels.")
        blocks: list[nn.Module] = []
        for width in channels:
            blocks.append(nn.Sequential(nn.Conv2d(channels_in, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)))
            channels_in = width
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(channels_in * side * side, dense), nn.ReLU())
        self.head = nn.Linear(dense, outputs)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.dense(self.blocks(x)))
        return output


def mlp(inputs: int, outputs: int, hidden: Sequence[int] = (128, 128)) -> nn.Module:
    """See `MLP`."""
    return build("mlp", inputs=inputs, outputs=outputs, hidden=list(hidden))


def convnet(
    outputs: int = 10,
    size: int = 8,
    channels_in: int = 1,
    channels: Sequence[int] = (32, 64),
    dense: int = 256,
) -> nn.Module:
    """See `ConvNet`."""
    return build(
        "convnet",
        outputs=outputs,
        size=size,
        channels_in=channels_in,
        channels=list(channels),
        dense=dense,
    )


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

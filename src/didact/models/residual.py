"""A residual multilayer perceptron: the small network with many blocks of one width."""

from __future__ import annotations

from torch import Tensor, nn

from didact.models.small import architecture, build


@architecture("residual-mlp")
class ResidualMLP(nn.Module):
    """Pre-norm residual blocks of two linear layers each: (B, ...) flattened to (B, inputs) -> (B, outputs).

    With 64 inputs, 10 outputs and the defaults: 158,890 parameters.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 96, blocks: int = 8) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x)
        output: Tensor = self.head(self.norm(x))
        return output


class ResidualBlock(nn.Module):
    """x + W2 relu(W1 norm(x)), (B, width) -> (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, width)
        self.leave = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.leave(self.enter(self.norm(x)).relu())
        return x + change


def residual_mlp(inputs: int, outputs: int, width: int = 96, blocks: int = 8) -> nn.Module:
    """See `ResidualMLP`."""
    return build("residual-mlp", inputs=inputs, outputs=outputs, width=width, blocks=blocks)

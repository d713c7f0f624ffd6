"""The hypernetwork: from the source embeddings of a token's spelling to the token's own embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.models.small import architecture, build
from didact.reusing.zett.surface import NOTHING

SPREAD = 0.02  #: standard deviation that embeddings are brought to at the entrance
TINY = 1e-8


class Rescaler(nn.Module):
    """A fixed affine map of every dimension, fitted once: x -> weight * x + bias."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(width))
        self.register_buffer("bias", torch.zeros(width))

    @torch.no_grad()
    def fit(self, x: Tensor, spread: Tensor | float, mean: Tensor | float) -> Rescaler:
        """Bring rows x (N, width) to a standard deviation and a mean, each a number or one a dimension."""
        self.weight.copy_(torch.as_tensor(spread) / (x.std(0, correction=0) + TINY))
        self.bias.copy_(torch.as_tensor(mean) - self.weight * x.mean(0))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x + self.bias


class ResidualBlock(nn.Module):
    """norm(x + gelu(W2 gelu(W1 x))), (..., width) -> (..., width)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.enter, self.leave, self.norm = nn.Linear(width, inner), nn.Linear(inner, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.norm(x + F.gelu(self.leave(F.gelu(self.enter(x)))))
        return made


@architecture("zett-hypernetwork")
class Hypernetwork(nn.Module):
    """Surface forms (V, L) and source embeddings (S, inputs) -> embeddings (V, width) for each head.

    `inputs` is the width of what is read of a source token (input and output embedding side by side, when they are not
    tied), `heads_out` the widths of what is predicted. The state at the first place is what the heads read.
    """

    def __init__(
        self,
        inputs: int,
        heads_out: list[int],
        hidden: int = 64,
        layers: int = 3,
        length: int = 7,
        attention_heads: int = 2,
    ) -> None:
        super().__init__()
        self.length = length
        self.scale_in = Rescaler(inputs)
        self.project = nn.Sequential(nn.Linear(inputs, hidden), ResidualBlock(hidden, 2 * hidden))
        self.positions = nn.Parameter(torch.randn(length, hidden) * SPREAD)
        self.norm = nn.LayerNorm(hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, attention_heads, 2 * hidden, dropout=0.0, activation="gelu", batch_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.heads = nn.ModuleList(
            nn.Sequential(ResidualBlock(hidden, 2 * hidden), nn.Linear(hidden, width)) for width in heads_out
        )
        self.scales_out = nn.ModuleList(Rescaler(width) for width in heads_out)

    def forward(self, forms: Tensor, source: Tensor) -> list[Tensor]:
        state = self.state(forms, source)
        return [scale(head(state)) for head, scale in zip(self.heads, self.scales_out, strict=True)]

    def state(self, forms: Tensor, source: Tensor) -> Tensor:
        """(V, hidden). Forms of one length go through together, so that nothing is spent on empty places."""
        forms = forms.to(source.device)
        lengths = (forms != NOTHING).sum(1).clamp(min=1)
        order, states = [], []
        for length in sorted(set(lengths.tolist())):
            rows = torch.nonzero(lengths == length).flatten()
            ids = forms[rows, :length].clamp(min=0)
            x = self.project(self.scale_in(source[ids])) + self.positions[:length]
            order.append(rows)
            states.append(self.body(self.norm(x))[:, 0])
        made: Tensor = torch.cat(states)[torch.cat(order).argsort()]
        return made

    @torch.no_grad()
    def fit_scales(self, source: Tensor, targets: list[Tensor]) -> None:
        """Fit the affine maps: entering embeddings to the standard deviation 0.02 around 0, predictions of the source
        tokens to the mean and standard deviation of their real embeddings."""
        self.scale_in.fit(source, SPREAD, 0.0)
        forms = torch.full((len(source), self.length), NOTHING, device=source.device)
        forms[:, 0] = torch.arange(len(source), device=source.device)
        state = self.state(forms, source)
        for head, scale, target in zip(self.heads, self.scales_out, targets, strict=True):
            assert isinstance(scale, Rescaler)
            scale.fit(head(state), target.std(0, correction=0), target.mean(0))


def hypernetwork(
    inputs: int, heads_out: list[int], hidden: int, layers: int, length: int, attention_heads: int
) -> Hypernetwork:
    """See `Hypernetwork`; this one can be saved and loaded by name."""
    made = build(
        "zett-hypernetwork",
        inputs=inputs,
        heads_out=heads_out,
        hidden=hidden,
        layers=layers,
        length=length,
        attention_heads=attention_heads,
    )
    assert isinstance(made, Hypernetwork)
    return made

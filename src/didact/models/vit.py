"""A small vision transformer: patches, positions, identical blocks, mean pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.models.small import architecture, build


class Block(nn.Module):
    """Pre-norm transformer block: (B, T, dim) -> (B, T, dim)."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))
        return output

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, dim/heads)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


@architecture("vit")
class VisionTransformer(nn.Module):
    """Images (B, channels_in, size, size) -> (B, outputs), by `depth` identical blocks over patches.

    No class token: the patches' mean goes to the head. With the defaults and 8x8 digits: 16 patches, 174,058
    parameters. Errors: a size that is no multiple of the patch, a width that is no multiple of the heads.
    """

    def __init__(
        self,
        outputs: int = 10,
        size: int = 8,
        patch: int = 2,
        channels_in: int = 1,
        dim: int = 48,
        depth: int = 6,
        heads: int = 4,
        feedforward: int | None = None,
    ) -> None:
        super().__init__()
        if size % patch:
            raise BadInput(f"Images of {size} pixels cannot be cut into patches of {patch}.")
        if dim % heads:
            raise BadInput(f"The width {dim} is no multiple of the number of heads, {heads}.")
        if depth < 1:
            raise BadInput(f"A transformer has at least one block, but depth={depth} was asked for.")
        self.patch_embedding = nn.Conv2d(channels_in, dim, patch, stride=patch)
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, feedforward or 4 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.read_out(self.encode(x))

    def embed(self, x: Tensor) -> Tensor:
        """Patches with their positions, (B, T, dim)."""
        embedded: Tensor = self.patch_embedding(x).flatten(2).transpose(1, 2) + self.positions
        return embedded

    def encode(self, x: Tensor) -> Tensor:
        """Output of the last block, (B, T, dim)."""
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return x

    def read_out(self, tokens: Tensor) -> Tensor:
        """The last block's output (B, T, dim) -> (B, outputs)."""
        output: Tensor = self.head(self.norm(tokens).mean(1))
        return output


def vit(outputs: int = 10, size: int = 8, patch: int = 2, channels_in: int = 1, dim: int = 48, depth: int = 6,
        heads: int = 4, feedforward: int | None = None) -> nn.Module:  # fmt: skip
    """See `VisionTransformer`."""
    options = {"outputs": outputs, "size": size, "patch": patch, "channels_in": channels_in, "dim": dim}
    return build("vit", **options, depth=depth, heads=heads, feedforward=feedforward)

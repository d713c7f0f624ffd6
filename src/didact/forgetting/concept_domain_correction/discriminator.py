"""A PatchGAN discriminator for images of any size."""

from __future__ import annotations

from torch import Tensor, nn

from didact.core.errors import BadInput

WIDTHS = (64, 128, 256, 512)


class PatchDiscriminator(nn.Module):
    """Images (B, C, H, W) -> (B, 1, h, w) logits, one a patch; sigmoid 1 means "made under the concept's prompt".

    4x4 convolutions of stride 2 with 64, 128, 256 and 512 channels, batch normalisation in all but the first, leaky
    ReLU of slope 0.2, and a 4x4 output convolution. Small images get as many of the four as leave 2x2 to look at.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        if size < 4:
            raise BadInput(f"The discriminator needs images of at least 4x4 pixels, but their smaller side is {size}.")
        layers: list[nn.Module] = []
        for index, width in enumerate(WIDTHS):
            if size // 2 < 2:
                break
            layers.append(nn.Conv2d(channels, width, 4, stride=2, padding=1))
            if index:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.LeakyReLU(0.2))
            channels, size = width, size // 2
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(channels, 1, 4, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.body(x))
        return output

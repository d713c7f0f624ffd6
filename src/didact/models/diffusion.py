"""A small prompted diffusion model, and sampling from any.

A diffusion model is called as `model(sample, timestep, prompt)`: noisy images (B, C, H, W), steps (B,), token ids
(B, L); it returns the predicted noise (B, C, H, W). `didact.core.objective.Denoising` trains and judges it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from didact.core.errors import BadInput, MissingExtra
from didact.core.objective import Denoising, device_of, evaluating
from didact.models.small import architecture, build


@architecture("unet")
class PromptedUNet(nn.Module):
    """A U-Net whose blocks are scaled and shifted (FiLM) by the step and the prompt.

    Images (B, channels_in, H, W) with sides divisible by 2^(levels - 1), steps (B,), prompts (B, L) of token ids below
    `tokens` -> (B, channels_in, H, W). One level for each of `channels`; the prompt is the sum of its tokens'
    embeddings through two linear layers (`text`); the `film` layers alone let step and prompt into the picture. With
    the defaults: about 0.2 million parameters.
    """

    def __init__(
        self, tokens: int = 33, channels_in: int = 1, channels: Sequence[int] = (32, 64), embedding: int = 64
    ) -> None:
        super().__init__()
        self.width = embedding
        self.text = PromptEncoder(tokens, embedding)
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.enter = nn.Conv2d(channels_in, channels[0], 3, padding=1)
        down, up, wide = list[nn.Module](), list[nn.Module](), channels[0]
        for width in channels:
            down.append(FilmBlock(wide, width, embedding))
            wide = width
        self.middle = FilmBlock(wide, wide, embedding)
        for width in reversed(channels):
            up.append(FilmBlock(wide + width, width, embedding))  # what comes up beside what went down
            wide = width
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.leave = nn.Sequential(nn.GroupNorm(8, wide), nn.SiLU(), nn.Conv2d(wide, channels_in, 3, padding=1))

    def forward(self, sample: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        factor = 2 ** (len(self.down) - 1)
        if sample.shape[-1] % factor or sample.shape[-2] % factor:
            raise BadInput(
                f"This U-Net halves images {len(self.down) - 1} times, so their sides must be divisible by {factor}, "
                f"but they are {tuple(sample.shape[-2:])}."
            )
        condition = self.time(wave(timestep, self.width)) + self.text(prompt)
        x, skipped = self.enter(sample), list[Tensor]()
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x, condition)
            skipped.append(x)
        x = self.middle(x, condition)
        for level, block in enumerate(self.up):
            x = F.interpolate(x, scale_factor=2.0) if level else x
            x = block(torch.cat([x, skipped.pop()], 1), condition)
        output: Tensor = self.leave(x)
        return output


class PromptEncoder(nn.Module):
    """Token ids (B, L) -> (B, d): the sum of the tokens' embeddings, through two linear layers."""

    def __init__(self, tokens: int, embedding: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, embedding)
        self.mix = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, prompt: Tensor) -> Tensor:
        output: Tensor = self.mix(self.tokens(prompt).sum(1))
        return output


class FilmBlock(nn.Module):
    """Two convolutions with a residual connection; between them each channel is scaled and shifted by a condition."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.norm = nn.GroupNorm(8, outputs)
        self.film = nn.Linear(condition, 2 * outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.pass_by = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(F.silu(condition))[..., None, None].chunk(2, 1)
        h = self.norm(self.first(x)) * (1 + scale) + shift
        output: Tensor = self.pass_by(x) + self.second(F.silu(h))
        return output


def wave(timestep: Tensor, width: int) -> Tensor:
    """(B,) steps -> (B, width): sines and cosines of falling frequency."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(width // 2, device=timestep.device) / (width // 2))
    angle = timestep[:, None].float() * frequency
    return torch.cat([angle.sin(), angle.cos()], 1)


def unet(tokens: int = 33, channels_in: int = 1, channels: Sequence[int] = (32, 64), embedding: int = 64) -> nn.Module:
    """See `PromptedUNet`."""
    return build("unet", tokens=tokens, channels_in=channels_in, channels=list(channels), embedding=embedding)


@torch.no_grad()
def sample(
    model: nn.Module,
    prompts: Tensor,
    objective: Denoising,
    shape: Sequence[int],
    *,
    steps: int = 20,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Images for prompts by DDIM, deterministic given the seed: (N, L) token ids -> (N, *shape).

    Image i begins with the same noise whatever the model, so that samples of two models can be compared one by one.
    The noise schedule and the range of the images are the objective's. Cost: `steps` forward passes an image.
    """
    if not 1 <= steps <= objective.timesteps:
        raise BadInput(f"Sampling takes 1 to {objective.timesteps} steps, but {steps} was given.")
    noise = torch.randn((len(prompts), *shape), generator=torch.Generator().manual_seed(seed))
    device = device_of(model)
    with evaluating(model):
        parts = [
            _denoise(model, x.to(device), p.to(device), objective, steps)
            for x, p in zip(torch.split(noise, batch_size), torch.split(prompts, batch_size), strict=True)
        ]
    return torch.cat(parts).cpu()


def _denoise(model: nn.Module, x: Tensor, prompt: Tensor, objective: Denoising, steps: int) -> Tensor:
    try:
        import diffusers
    except ImportError:
        raise MissingExtra("diffusers", "diffusion") from None
    kind: Any = diffusers.DDIMScheduler
    # "trailing" begins at the last step of the diffusion, where the model was trained to meet pure noise.
    scheduler = kind.from_config(objective.scheduler.config, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        output = objective.predict(model, x, t.expand(len(x)).to(x.device), prompt)
        x = scheduler.step(output, t, x).prev_sample
    return x

"""Differentially private SGD: Poisson batches, clipped per-example gradients, Gaussian noise.

The privacy accounting is opacus's. The gradients are ours, by `torch.func`: they also work for tied embeddings and for
layers that hooks do not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput, MissingExtra
from didact.core.objective import Objective
from didact.parts.datasets import take


def noise_for(epsilon: float, delta: float, *, rate: float, steps: int) -> float:
    """The noise multiplier that makes `steps` of DP-SGD at this sampling rate (epsilon, delta)-private."""
    accountants = _opacus()
    found: float = accountants.utils.get_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant="rdp"
    )
    return found


def spent(noise: float, *, rate: float, steps: int, delta: float) -> float:
    """The epsilon of `steps` of DP-SGD by Renyi accounting; infinite without noise."""
    if noise <= 0:
        return math.inf
    accountant = _opacus().RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    epsilon: float = accountant.get_epsilon(delta=delta)
    return epsilon


def classic_epsilon(noise: float, steps: int, delta: float) -> float:
    """The Renyi bound of full-batch Gaussian steps with the classic conversion, in closed form."""
    rho = steps / (2 * noise**2)
    return rho + 2 * math.sqrt(rho * math.log(1 / delta))


def dp_sgd(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    *,
    steps: int,
    lr: float,
    batch_size: int,
    noise: float,
    clip: float = 1.0,
    seed: int = 0,
    chunk: int = 32,
    after_step: Callable[[nn.Module, int], bool] | None = None,
) -> int:
    """Train `model` in place; returns the steps done.

    Each step takes every sample with probability batch_size / N, clips each one's gradient to norm `clip`, sums, adds
    N(0, (noise * clip)^2) to every entry and divides by `batch_size`. Memory: `chunk` gradients at a time.

    Raises:
        BadInput: batch normalisation (its statistics mix samples), an empty data set, a batch larger than the data.
    """
    size = len(dataset)  # type: ignore[arg-type]
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        raise BadInput("DP-SGD needs every sample's own gradient; batch normalisation mixes samples. Use group norm.")
    if not 1 <= batch_size <= size:
        raise BadInput(f"The batch size must lie in 1..{size}, the number of samples, but {batch_size} was given.")
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    spread = noise * clip if noise else 0.0  # without noise the clip may be infinite
    for step in range(steps):
        chosen = torch.nonzero(torch.rand(size, generator=generator) < batch_size / size)[:, 0].tolist()
        total = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for start in range(0, len(chosen), chunk):
            batch = take(dataset, chosen[start : start + chunk], objective)
            _add_clipped(total, objective.per_sample_gradients(model, batch), clip)
        with torch.no_grad():
            for name, parameter in parameters.items():
                drawn = torch.randn(parameter.shape, generator=generator).to(parameter) if noise else 0.0
                parameter.sub_(lr * (total[name] + spread * drawn) / batch_size)
        if after_step and after_step(model, step):
            return step + 1
    return steps


def _add_clipped(total: dict[str, Tensor], gradients: dict[str, Tensor], clip: float) -> None:
    squares = [g.flatten(1).square().sum(1) for g in gradients.values()]
    norms = torch.stack(squares).sum(0).sqrt()
    factors = (clip / norms.clamp(min=1e-12)).clamp(max=1.0)
    for name, gradient in gradients.items():
        total[name] += torch.einsum("b,b...->...", factors, gradient)


def _opacus() -> Any:
    try:
        import opacus.accountants
        import opacus.accountants.utils
    except ImportError:
        raise MissingExtra("opacus", "privacy") from None
    return opacus.accountants

"""Dropping most of a delta and rescaling the rest, tensor by tensor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor

from didact.core.errors import BadInput
from didact.reusing.deltas import Change

Strategy = Literal["random", "magnitude"]
Target = Literal["delta", "weights"]


@overload
def drop_and_rescale(
    delta: Tensor, rate: float, generator: torch.Generator | None = None, *, rescale: bool = True
) -> Tensor: ...
@overload
def drop_and_rescale(
    delta: Mapping[str, Tensor], rate: float, generator: torch.Generator | None = None, *, rescale: bool = True
) -> dict[str, Tensor]: ...
def drop_and_rescale(
    delta: Tensor | Mapping[str, Tensor],
    rate: float,
    generator: torch.Generator | None = None,
    *,
    rescale: bool = True,
) -> Tensor | dict[str, Tensor]:
    """Zero each number with probability `rate` and divide the others by 1 - rate, so that the expectation stays.

    Takes a tensor or a whole delta by name; returns the same in float32. A rate of 1 gives zeros.
    """
    if isinstance(delta, Mapping):
        return {name: drop_and_rescale(value, rate, generator, rescale=rescale) for name, value in delta.items()}
    check_rate(rate)
    value = delta.float()
    if rate == 0:
        return value.clone()
    if rate == 1:
        return torch.zeros_like(value)
    # 31 random bits against a threshold: the same draw as bernoulli_, which takes five times as long on a processor.
    gone = torch.empty_like(value, dtype=torch.int32).random_(generator=generator) < round(rate * 2**31)
    kept = value.masked_fill(gone, 0.0)
    return kept.div_(1 - rate) if rescale else kept


def drop_smallest(delta: Tensor, rate: float, *, rescale: bool = False) -> Tensor:
    """Zero the floor(rate * n) smallest magnitudes of a tensor; of equal ones at the border the first go."""
    check_rate(rate)
    value = delta.float()
    # In decimal, as the rate was written: 0.29 * 100 is 28.999999999999996 in binary.
    gone = min(int(rate * value.numel() + 1e-6), value.numel())
    if gone == 0:
        return value.clone()
    kept = value.flatten().clone()
    kept[kept.abs().argsort(stable=True)[:gone]] = 0.0
    return (kept / (1 - rate) if rescale and rate < 1 else kept).view_as(value)


def dropping(
    rate: float, *, strategy: Strategy = "random", rescale: bool = True, target: Target = "delta", seed: int, key: str
) -> Change:
    """The change of a model's deltas for `Deltas`: what is dropped depends on seed, key and parameter name alone.

    `key` tells the models apart: with the same masks for all, their errors would add up instead of averaging out.
    With the target "weights" the fine-tuned weights themselves are dropped, and the answer is still a delta.
    """
    check_rate(rate)

    def change(name: str, delta: Tensor, base: Tensor) -> Tensor:
        subject = delta if target == "delta" else base + delta
        if strategy == "magnitude":
            kept = drop_smallest(subject, rate, rescale=rescale)
        else:
            kept = drop_and_rescale(subject, rate, _generator(seed, key, name, delta), rescale=rescale)
        return kept if target == "delta" else kept - base

    return change


def check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise BadInput(f"The drop rate is a share between 0 and 1, but {rate} was given.")


def _generator(seed: int, key: str, name: str, like: Tensor) -> torch.Generator:
    drawn = hashlib.sha256(f"{seed}/{key}/{name}".encode()).digest()[:8]
    return torch.Generator(like.device).manual_seed(int.from_bytes(drawn, "big") >> 1)

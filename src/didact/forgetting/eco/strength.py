"""How strong a corruption should be: zeroth-order descent on the distance to what an ignorant model scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: strengths below this are taken for it: the formula asks for a positive one
FLOOR = 1e-8


@dataclass
class Search:
    """The strength found, its distance to the reference, and everything tried on the way."""

    strength: float | Tensor
    distance: float
    tried: list[tuple[float, float]] = field(default_factory=list)  #: (strength or its mean, distance)


def next_strength(
    strength: float, above: float, below: float, *, eps: float, lr: float, lowest: float
) -> tuple[float, float]:
    """(next strength, gradient) from the distances at strength + eps and strength - eps."""
    gradient = (above - below) / (2 * eps)
    return max(strength - lr * gradient, lowest), gradient


def search(
    distance: Callable[[float], float],
    *,
    lowest: float = 0.1,
    eps: float = 0.0999,
    lr: float = 100.0,
    steps: int = 10,
    tolerance: float = 0.01,
) -> Search:
    """The strength of smallest distance among those that a descent from `lowest` tries.

    Ends early at a distance of `tolerance`. Cost: two distances a step, and one at the end.
    """
    found = Search(lowest, float("inf"))

    def tried(value: float) -> float:
        at = distance(value)
        found.tried.append((value, at))
        if at < found.distance:
            found.strength, found.distance = value, at
        return at

    strength = lowest
    for _ in range(steps):
        above, below = tried(strength + eps), tried(max(strength - eps, FLOOR))
        if found.distance <= tolerance:
            return found
        strength, _ = next_strength(strength, above, below, eps=eps, lr=lr, lowest=lowest)
    tried(strength)
    return found


def search_vector(
    distance: Callable[[Tensor], float],
    dims: int,
    *,
    generator: torch.Generator,
    lowest: float = 0.1,
    eps: float = 0.0999,
    lr: float = 100.0,
    steps: int = 10,
    tolerance: float = 0.01,
) -> Search:
    """As `search`, with a strength for every dimension; each step goes along a random unit direction."""
    found = Search(torch.full((dims,), lowest), float("inf"))

    def tried(value: Tensor) -> float:
        at = distance(value)
        found.tried.append((float(value.mean()), at))
        if at < found.distance:
            found.strength, found.distance = value, at
        return at

    strength = torch.full((dims,), lowest)
    for _ in range(steps):
        direction = torch.randn(dims, generator=generator)
        direction /= direction.norm()
        above, below = tried(strength + eps * direction), tried((strength - eps * direction).clamp(min=FLOOR))
        if found.distance <= tolerance:
            return found
        strength = (strength - lr * (above - below) / (2 * eps) * direction).clamp(min=lowest)
    tried(strength)
    return found

"""How strong a corruption should be: zeroth-order descent on the distance to what an ignorant model scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Keep = Literal["last", "best"]

#: strengths below this are taken for it: the formula asks for a positive one
FLOOR = 1e-8


@dataclass
class Search:
    """The strength found, its distance to the reference, and everything tried on the way."""

    strength: float | Tensor = 0.0  #: a number, or a tensor of a number for each dimension
    distance: float = math.inf
    tried: list[tuple[float, float]] = field(default_factory=list)  #: (strength or its mean, distance)
    best: tuple[float | Tensor, float] = (
        0.0,
        math.inf,
    )  #: the strength of smallest distance among them, and that distance

    def note(self, strength: float | Tensor, distance: float) -> float:
        self.strength, self.distance = strength, distance
        self.tried.append((float(torch.as_tensor(strength, dtype=torch.float64).mean()), distance))
        if distance < self.best[1]:
            self.best = strength, distance
        return distance

    def ended(self, keep: Keep) -> Search:
        if keep == "best":
            self.strength, self.distance = self.best
        return self


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
    keep: Keep = "last",
) -> Search:
    """Descend from `lowest`; the result is where it ends, as published, or the best of all strengths tried.

    Ends early at a strength whose distance is at most `tolerance`. Cost: two distances a step, and one at the end.
    """
    found, strength = Search(), lowest
    for _ in range(steps):
        above = found.note(strength + eps, distance(strength + eps))
        lower = max(strength - eps, FLOOR)
        below = found.note(lower, distance(lower))
        if found.best[1] <= tolerance:
            return found.ended("best")
        strength, _ = next_strength(strength, above, below, eps=eps, lr=lr, lowest=lowest)
    found.note(strength, distance(strength))
    return found.ended(keep)


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
    keep: Keep = "last",
) -> Search:
    """As `search`, with a strength for every dimension; each step goes along a random unit direction."""
    found, strength = Search(), torch.full((dims,), lowest)
    for _ in range(steps):
        direction = torch.randn(dims, generator=generator)
        direction /= direction.norm()
        above, below = (
            found.note(value, distance(value))
            for value in (strength + eps * direction, (strength - eps * direction).clamp(min=FLOOR))
        )
        if found.best[1] <= tolerance:
            return found.ended("best")
        strength = (strength - lr * (above - below) / (2 * eps) * direction).clamp(min=lowest)
    found.note(strength, distance(strength))
    return found.ended(keep)

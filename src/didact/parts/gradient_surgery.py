"""Gradient surgery: take out of one gradient what works against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Surgery = Literal["project", "unit", "none"]

#: norms below this count as no gradient at all
TINY = 1e-8


def surgery(
    gradients: Sequence[Tensor], protected: Sequence[Tensor], how: Surgery = "project", strength: float = 1.0
) -> list[Tensor]:
    """Each gradient g without the part that points against its protected gradient r, tensor by tensor.

    Where g.r < 0, and only there:

    * project: g - strength * (g.r / |r|^2) * r; at strength 1 the result is orthogonal to r
    * unit:    g - strength * cos(g, r) * r / |r|: the same direction, but a length of at most `strength`, whatever
      the length of g

    `none` returns the gradients as they are. A descent step along the result does not, to first order, increase the
    protected loss (at strength 1 of `project`). Nothing is changed in place.
    """
    if how == "none":
        return list(gradients)
    return [_without_conflict(g, r, how, strength) for g, r in zip(gradients, protected, strict=True)]


def _without_conflict(g: Tensor, r: Tensor, how: Surgery, strength: float) -> Tensor:
    dot, length = torch.sum(g * r), torch.linalg.vector_norm(r)
    if dot >= 0 or length < TINY:
        return g
    scale: Tensor = dot / (torch.linalg.vector_norm(g) * length**2) if how == "unit" else dot / length**2
    return torch.sub(g, strength * scale * r)


def clipped(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """The gradients scaled so that their common norm is at most `norm`."""
    total = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
    factor = (norm / (total + 1e-6)).clamp(max=1.0)
    return [g * factor for g in gradients]

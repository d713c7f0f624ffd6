"""Higher-order compatibility: new features attract the old ones of the same image, repel those of other classes."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from didact.core.errors import BadInput

Mask = Literal["exclude", "zero"]


class HOC:
    """lam * cross-entropy + (1 - lam) * C, where C contrasts new features with those of a frozen model.

    C = mean_i [-mu a_i.b_i + log sum_{j: y_j != y_i} exp(mu b_i.a_j)], a and b the normalised new and old features.
    With `mask="zero"` the similarities within a class become 0 instead of leaving the sum, as in the released code.
    """

    def __init__(self, lam: float = 0.1, mu: float = 10.0, mask: Mask = "exclude") -> None:
        if not 0 <= lam <= 1:
            raise BadInput(f"lam weighs two losses and lies between 0 and 1, but {lam} was given.")
        if mu <= 0:
            raise BadInput(f"mu is positive, but {mu} was given.")
        self.lam, self.mu, self.mask = lam, mu, mask

    def contrast(self, new: Tensor, old: Tensor, labels: Tensor) -> Tensor:
        """C, a scalar, from features (B, d) of both models and labels (B,). They are normalised here."""
        if new.shape != old.shape:
            raise BadInput(
                f"New features of shape {tuple(new.shape)} cannot be compared with old ones of {tuple(old.shape)}: "
                "both models must embed into the same simplex."
            )
        a, b = F.normalize(new, dim=1), F.normalize(old, dim=1)
        similar = self.mu * b @ a.T  # (B, B): old i with new j
        own = similar.diagonal()
        same = labels[:, None] == labels[None, :]
        if self.mask == "zero":
            return (similar.masked_fill(same, 0.0).logsumexp(1) - own).mean()
        others = similar.masked_fill(same, -math.inf)
        alone = same.all(1)  # nobody of another class in the batch: nothing to repel
        repelled = others.masked_fill(alone[:, None], 0.0).logsumexp(1).masked_fill(alone, 0.0)
        return (repelled - own).mean()

    def __call__(self, scores: Tensor, new: Tensor, old: Tensor, labels: Tensor) -> Tensor:
        return self.lam * F.cross_entropy(scores, labels) + (1 - self.lam) * self.contrast(new, old, labels)

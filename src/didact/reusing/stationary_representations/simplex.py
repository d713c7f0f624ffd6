"""Fixed class prototypes: the corners of a regular simplex, the same for every model that will ever be trained."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput


def simplex_prototypes(classes: int) -> Tensor:
    """(K, K-1): K unit vectors, each two at the cosine -1/(K-1), in float32."""
    if classes < 2:
        raise BadInput(f"A simplex needs at least 2 classes, but {classes} was given.")
    size = classes - 1
    last = (1 - (1 + size) ** 0.5) / size
    corners = torch.cat([torch.eye(size, dtype=torch.double), torch.full((1, size), last, dtype=torch.double)])
    corners -= corners.mean(0)
    unit: Tensor = corners / corners.norm(dim=1, keepdim=True)
    return unit.float()


class SimplexClassifier(nn.Module):
    """A classifier that is never trained: the score of class y is the inner product with prototype K-1-y.

    Features (B, K-1) -> scores (B, K), in the order of the labels. Classes yet to come already have their prototype,
    so nothing has to be moved for them. The prototypes are a buffer that is not stored: K decides them.
    """

    prototypes: Tensor

    def __init__(self, classes: int = 1024) -> None:
        super().__init__()
        self.classes, self.features = classes, classes - 1
        # Models trained elsewhere on other classes fill the rows from the front, ours are filled from the back.
        self.register_buffer("prototypes", simplex_prototypes(classes).flip(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-1] != self.features:
            raise BadInput(
                f"A simplex of {self.classes} classes takes features of size {self.features}, but "
                f"{features.shape[-1]} were given. Put a linear layer without bias in front."
            )
        return features @ self.prototypes.T

    def row_of(self, label: int) -> int:
        """The row of `simplex_prototypes(K)` that a class uses."""
        if not 0 <= label < self.classes:
            raise BadInput(
                f"The simplex was laid out for {self.classes} classes, so labels go from 0 to {self.classes - 1}, "
                f"but {label} was given. More classes need a larger simplex, and models trained with it."
            )
        return self.classes - 1 - label

    @property
    def fingerprint(self) -> str:
        """What two models must have in common for their features to be comparable: count, order and prototypes."""
        rounded = (self.prototypes * 1e4).round().to(torch.int32).cpu().contiguous()
        return hashlib.sha256(f"{self.classes}".encode() + rounded.numpy().tobytes()).hexdigest()[:16]

"""Handwritten digits: 1,797 small grey images in ten classes, bundled with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.data.splits import Splits, split_indices


def digits(
    seed: int = 0, *, train: int = 1000, validation: int = 297, test: int = 500, size: int = 8
) -> Splits[TensorDataset]:
    """The digits as three disjoint, stratified parts; the seed draws the split.

    Each part is a ``TensorDataset`` of x: float32 (1, size, size) in [0, 1] and y: int64 scalar in 0..9.
    A ``size`` other than 8 resizes bilinearly. Needs no network; 1,797 x size^2 x 4 bytes.

    Raises BadInput when the sizes are negative or exceed 1,797 together, or when ``size`` is below 1.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise BadInput(f"The image size must be a whole number of at least 1 pixel, but {size!r} was given.")
    bundle = load_digits()
    images = torch.from_numpy(bundle.images.astype(np.float32) / 16.0).unsqueeze(1)  # (1797, 1, 8, 8)
    if size != 8:
        images = interpolate(images, size=(size, size), mode="bilinear", antialias=size < 8).clamp(0.0, 1.0)
    labels = torch.from_numpy(bundle.target.astype(np.int64))
    parts = split_indices(seed, len(labels), train=train, validation=validation, test=test, labels=bundle.target)
    return Splits(*(TensorDataset(images[part], labels[part]) for part in map(torch.from_numpy, parts)))

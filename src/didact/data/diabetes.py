"""Disease progression of 442 diabetes patients: a small real regression task, bundled with scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.data.splits import Splits, split_indices


@dataclass(frozen=True)
class Standardised(Splits[TensorDataset]):
    """Splits of a regression task; ``y * target_std + target_mean`` is the target in its own unit."""

    target_mean: float
    target_std: float
    feature_names: tuple[str, ...]


def diabetes(seed: int = 0, *, train: int = 300, validation: int = 50, test: int = 92) -> Standardised:
    """Ten measurements per patient and the disease progression a year later, standardised.

    Each part is a ``TensorDataset`` of x: float32 (10,) and y: float32 scalar. Mean and standard deviation
    come from the training part alone, so nothing of validation or test leaks into it.

    Raises BadInput when the sizes are negative, exceed 442 together, or leave fewer than two training
    samples.
    """
    bundle = load_diabetes(scaled=False)
    x, y = bundle.data.astype(np.float64), bundle.target.astype(np.float64)
    parts = split_indices(seed, len(y), train=train, validation=validation, test=test)
    if train < 2:
        raise BadInput(f"Standardising needs at least 2 training samples, but train={train} was given.")
    x_mean, x_std = x[parts.train].mean(0), x[parts.train].std(0)
    y_mean, y_std = float(y[parts.train].mean()), float(y[parts.train].std())
    x = (x - x_mean) / np.where(x_std > 0, x_std, 1.0)  # a constant column (tiny training part) becomes 0
    y = (y - y_mean) / (y_std or 1.0)
    features, target = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32))
    pieces = (TensorDataset(features[part], target[part]) for part in map(torch.from_numpy, parts))
    train_part, validation_part, test_part = pieces
    names = tuple(bundle.feature_names)
    return Standardised(train_part, validation_part, test_part, y_mean, y_std or 1.0, names)

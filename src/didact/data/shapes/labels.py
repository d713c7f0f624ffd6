"""Labels made from other labels: boxes from masks, and wrong labels on purpose."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from didact.core.errors import BadInput


def boxes_around(instances: Tensor, most: int) -> Tensor:
    """Tight boxes (N, most, 4), pixel edges x0, y0, x1, y1, of instance masks (N, H, W); NaN if absent."""
    boxes = torch.full((len(instances), most, 4), float("nan"))
    for k in range(most):
        mask = instances == k + 1
        there = mask.flatten(1).any(1)
        for axis, across in ((0, 1), (1, 2)):  # x from columns, y from rows
            line = mask.any(across).to(torch.uint8)
            first, last = line.argmax(1), line.shape[1] - line.flip(1).argmax(1)
            boxes[there, k, axis] = first[there].float()
            boxes[there, k, axis + 2] = last[there].float()
    return boxes


def wrong_labels(labels: Tensor, classes: int, noise: float, seed: int) -> Tensor:
    """A copy of ``labels`` of which exactly round(noise x N) are replaced by another class."""
    flips = share_of("noise", noise, len(labels))
    if flips and classes < 2:
        raise BadInput("Wrong labels need at least 2 classes.")
    rng = np.random.default_rng(seed)
    where = torch.from_numpy(rng.permutation(len(labels))[:flips])
    result = labels.clone()
    result[where] = (result[where] + torch.from_numpy(rng.integers(1, max(classes, 2), size=flips))) % classes
    return result


def share_of(name: str, share: float, n: int) -> int:
    if not 0 <= share <= 1:
        raise BadInput(f"{name} is a share between 0 and 1, but {share} was given.")
    return round(share * n)

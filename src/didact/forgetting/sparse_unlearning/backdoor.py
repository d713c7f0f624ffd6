"""The backdoor use of unlearning: forget poisoned data, and with it the trigger."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.registry import problem
from didact.data.digits import digits
from didact.forgetting.problem import UnlearningProblem, unlearning_problem
from didact.forgetting.problems import digit_recipe
from didact.models.workpieces import trained


@problem("digits-backdoor", family="forgetting")
def digits_backdoor(
    seed: int = 0, *, share: float = 0.1, label: int = 0, patch: int = 2, epochs: int = 40
) -> UnlearningProblem:
    """Forget a backdoor: a tenth of the digits were given a white corner and the label 0, and it was learnt.

    The poisoned images are the forget data. `forget_score` is then the attack's success on poisoned training
    data, `forget_unseen` its success on stamped test images of other digits, `test_score` the accuracy on
    clean test images; a retrained model has no trigger, so the target is 0.

    The paper stamps 4x4 zeros, a 64th of a 32x32 colour image. Here the images have 8x8 pixels, so the patch
    is 2x2 (a 16th), and it is white: the digits' corners are black already, so zeros would mark nothing.
    """
    if not 0 < share < 1:
        raise BadInput(f"The share to poison lies between 0 and 1, but {share} was given.")
    if not 0 <= label < 10:
        raise BadInput(f"The target label must lie in 0..9, but {label} was given.")
    splits = digits(seed)
    images, labels = splits.train.tensors
    others = torch.nonzero(labels != label).squeeze(1)
    count = min(len(others), max(1, round(share * len(labels))))
    poisoned = others[torch.from_numpy(np.random.default_rng(seed).permutation(len(others))[:count])]
    clean = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, poisoned, False)

    forget = _poisoned(TensorDataset(images[poisoned], labels[poisoned]), label, patch)
    retain = TensorDataset(images[clean], labels[clean])
    recipe = digit_recipe(epochs=epochs)
    mixed = TensorDataset(*(torch.cat(pair) for pair in zip(retain.tensors, forget.tensors, strict=True)))
    return unlearning_problem(
        trained(recipe, mixed, seed),
        forget,
        retain,
        splits.test,
        holdout=_poisoned(splits.test, label, patch),
        validation=splits.validation,
        validation_holdout=_poisoned(splits.validation, label, patch),
        objective=recipe.objective,
        recipe=recipe,
        target=0.0,
        seed=seed,
        about={"share": share, "label": label, "patch": patch},
    )


def stamp(images: Tensor, size: int = 2, value: float = 1.0) -> Tensor:
    """Images (N, C, H, W) with a square of `size` pixels of one value in the lower right corner; a copy."""
    if not 0 < size <= min(images.shape[-2:]):
        raise BadInput(f"The patch must have 1 to {min(images.shape[-2:])} pixels a side, but {size} was given.")
    stamped = images.clone()
    stamped[..., -size:, -size:] = value
    return stamped


def _poisoned(data: TensorDataset, label: int, patch: int) -> TensorDataset:
    """The stamped images of all other classes, all labelled with the attack's target."""
    images, labels = data.tensors
    chosen = labels != label
    return TensorDataset(stamp(images[chosen], patch), torch.full_like(labels[chosen], label))

"""The relearning attack: how many updates bring forgotten data back?"""

from __future__ import annotations

import copy
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from didact.core.fit import Diverged, Hooks, fit
from didact.core.recipe import Recipe, seeded


def relearning_steps(
    model: nn.Module, forget: Dataset[Any], recipe: Recipe, bar: float, seed: int = 0, epochs: int = 10
) -> int:
    """Updates, with the recipe's optimiser on `forget` alone, until the mean forget loss is at most `bar`.

    The loss is checked before the first update and after each; the cap is `epochs` passes.
    """
    cap = recipe.steps_for(forget, epochs)
    objective = recipe.objective
    student = copy.deepcopy(model)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    if float(objective.losses(student, forget).mean()) <= bar:
        return 0

    def back(current: nn.Module, step: int) -> bool:
        return float(objective.losses(current, forget).mean()) <= bar

    try:
        with seeded(seed):
            log = fit(
                student,
                forget,
                objective,
                steps=cap,
                batch_size=recipe.batch_size,
                lr=recipe.lr,
                optimizer=recipe.optimizer,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                seed=seed,
                hooks=Hooks(after_step=back),
            )
    except Diverged:
        return cap
    return log.steps

"""The family's main problem: a classifier for one's own classes, from a hub and a few labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from didact.core.objective import Classification
from didact.core.registry import problem
from didact.data.digits import digits
from didact.reusing.hub.zoo import DIGITS, picture_recipe, zoo
from didact.reusing.problem import ReuseProblem, reuse_problem
from didact.reusing.request import Budget, Request, Task
from didact.reusing.tuning import tuned_quality


@problem("hub", family="reusing")
def hub(
    seed: int = 0, *, models: int = 20, classes: int = 6, labelled: int = 18, unlabelled: int = 150, steps: int = 100
) -> ReuseProblem:
    """Make a classifier of six kinds of digits from a hub of 20 small models, 18 labels and 150 unlabelled pictures.

    The hub's models know 3 to 6 digits each, or shapes, or tables, and differ in quality; no one was trained for just
    these six classes (see `zoo`). Fine-tuning takes 100 steps. A ranking is compared with what each model reaches when
    it is fine-tuned on the 18 labels.
    """
    made = zoo(seed, models=models)
    rng = np.random.default_rng(seed + 1)
    chosen = np.sort(rng.choice(10, size=classes, replace=False))
    names = tuple(DIGITS[c] for c in chosen)
    splits = digits(seed)
    x, y = _of_classes(splits.validation, chosen)
    task = Task(
        data=TensorDataset(x[labelled : labelled + unlabelled]),
        labelled=TensorDataset(x[:labelled], y[:labelled]),
        classes=names,
        objective=Classification(),
    )
    test = TensorDataset(*_of_classes(splits.test, chosen))
    budget = Budget(steps=steps)
    recipe = picture_recipe(classes)

    def quality() -> dict[str, float]:
        return dict(tuned_quality(Request(made.records, task, made.base, budget, recipe, seed), test))

    return reuse_problem(
        made.records,
        task,
        test,
        base=made.base,
        budget=budget,
        recipe=recipe,
        quality=quality,
        seed=seed,
        about={"classes": ", ".join(names)},
    )


def _of_classes(data: TensorDataset, chosen: np.ndarray) -> tuple[Tensor, Tensor]:
    """Samples of the chosen classes, relabelled from 0."""
    x, y = data.tensors
    place = torch.full((10,), -1)
    place[torch.from_numpy(chosen)] = torch.arange(len(chosen))
    mine = place[y] >= 0
    return x[mine], place[y[mine]]

"""A hub whose models know other classes than the task's: which of them is worth fine-tuning?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.data.shapes.labels import wrong_labels
from didact.models.small import convnet
from didact.models.workpieces import trained
from didact.reusing.problem import ReuseProblem, reuse_problem
from didact.reusing.request import Budget, ModelRecord, Request, Task
from didact.reusing.tuning import tuned_quality

#: channels of the two convolutions, and width of the features
EQUAL = ((16, 32, 64),)
UNEQUAL = ((8, 16, 32), (16, 32, 64), (24, 48, 128))


@problem("transfer-hub", family="reusing")
def transfer_hub(
    seed: int = 0,
    *,
    models: int = 12,
    classes: int = 4,
    scored: int = 200,
    tuned: int = 60,
    steps: int = 50,
    draws: int = 5,
    unequal: bool = False,
) -> ReuseProblem:
    """Rank 12 networks that know other digits than the task's four, by 200 labelled pictures.

    The networks are convnets of one size with 64 features (`unequal`: of three sizes with 32, 64 or 128). They differ
    in the number of digits they were trained on (2 to 6), the epochs (1 to 15) and the share of wrong labels (none to
    60 %). What each is worth is its accuracy on the task after 50 steps of fine-tuning on 60 of the labelled pictures,
    averaged over five draws of these 60.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(10)
    target, others = np.sort(order[:classes]), order[classes:]
    splits = digits(seed)
    records = _networks(models, others, splits.train.tensors, UNEQUAL if unequal else EQUAL, rng, seed)
    x, y = relabelled(splits.train.tensors, target)
    task = Task(
        labelled=TensorDataset(x[:scored], y[:scored]),
        classes=tuple(f"digit {c}" for c in target),
        objective=Classification(),
    )
    held = [relabelled(part.tensors, target) for part in (splits.validation, splits.test)]
    test = TensorDataset(*(torch.cat(column) for column in zip(*held, strict=True)))
    recipe = _recipe(classes, EQUAL[0], 15)

    def quality() -> dict[str, float]:
        found = []
        for draw in range(draws):
            own = torch.randperm(scored, generator=torch.Generator().manual_seed(1000 * seed + draw))[:tuned]
            few = Task(labelled=TensorDataset(x[own], y[own]), classes=task.classes, objective=task.objective)
            found.append(tuned_quality(Request(records, few, None, Budget(steps=steps), recipe, draw), test))
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    about = {"classes": ", ".join(task.classes), "fine-tuned on": tuned}
    return reuse_problem(
        records, task, test, budget=Budget(steps=steps), recipe=recipe, quality=quality, seed=seed, about=about
    )


def relabelled(tensors: Sequence[Tensor], chosen: Sequence[int] | np.ndarray) -> tuple[Tensor, Tensor]:
    """Samples of the chosen classes, labelled by their place among them."""
    x, y = tensors
    place = torch.full((int(y.max()) + 1,), -1)
    place[torch.as_tensor(np.asarray(chosen))] = torch.arange(len(chosen))
    mine = place[y] >= 0
    return x[mine], place[y[mine]]


def _networks(
    models: int,
    others: np.ndarray,
    tensors: Sequence[Tensor],
    sizes: Sequence[tuple[int, int, int]],
    rng: np.random.Generator,
    seed: int,
) -> tuple[ModelRecord, ...]:
    """Every trait takes each of its values equally often, in an order of its own."""
    most = len(others)
    traits: dict[str, list[Any]] = {
        "classes": _spread(sorted({2, max(2, most // 2), max(2, most * 2 // 3), most}), models, rng),
        "epochs": _spread((1, 4, 15), models, rng),
        "noise": _spread((0.0, 0.3, 0.6), models, rng),
        "sizes": _spread(sizes, models, rng),
    }
    records = []
    for i in range(models):
        chosen = np.sort(rng.choice(others, size=traits["classes"][i], replace=False))
        x, y = relabelled(tensors, chosen)
        y = wrong_labels(y, len(chosen), traits["noise"][i], seed + i)
        recipe = _recipe(len(chosen), traits["sizes"][i], traits["epochs"][i])
        model: nn.Module = trained(recipe, TensorDataset(x, y), seed + i)
        tags = {name: values[i] for name, values in traits.items()}
        known = {"classes": tuple(f"digit {c}" for c in chosen), "input_shape": (1, 8, 8), "semantic": tags}
        records.append(ModelRecord.of(model, f"network-{i:02}", licence="Apache-2.0", **known))
    return tuple(records)


def _spread(values: Sequence[Any], models: int, rng: np.random.Generator) -> list[Any]:
    repeated = [values[i % len(values)] for i in range(models)]
    return [repeated[i] for i in rng.permutation(models).tolist()]


def _recipe(outputs: int, sizes: tuple[int, int, int], epochs: int) -> Recipe:
    return Recipe(
        lambda: convnet(outputs, channels=sizes[:2], dense=sizes[2]),
        Classification(),
        f"transfer hub {sizes}",
        epochs=epochs,
        lr=2e-3,
    )

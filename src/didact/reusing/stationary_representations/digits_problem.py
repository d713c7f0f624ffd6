"""The embedded scenario: four tasks of digits, and a wider network trained elsewhere before the third."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.data.shapes import shapes
from didact.models.small import convnet
from didact.models.workpieces import trained
from didact.reusing.request import ModelRecord
from didact.reusing.stationary_representations.networks import retrieval_net
from didact.reusing.stationary_representations.problem import UpgradeProblem, upgrade_problem
from didact.reusing.stationary_representations.stream import Step, Stream

TASKS = ((0, 1, 2, 3), (4, 5), (6, 7), (8, 9))
NAMES = tuple(f"digit {i}" for i in range(10))
OLD, NEW = ((16, 32), 64), ((32, 64), 128)  # channels and dense width of the first network and of the wider one


@problem("upgraded-digits", family="reusing")
def upgraded_digits(
    seed: int = 0,
    *,
    classes: int = 32,
    replaced: int = 2,
    elsewhere: str = "digits",
    epochs: int = 70,
    lr: float = 0.02,
) -> UpgradeProblem:
    """Four tasks of digits (0-3, 4-5, 6-7, 8-9); before the third a wider convnet replaces the first one.

    The wider one was trained by others on pictures of their own (300 other digits of all classes, or, with
    `elsewhere="shapes"`, outlines that are no digits), once against the same simplex of 32 prototypes and once with a
    classifier that is learnt. The gallery holds 200 test digits, the queries are the other 300.
    """
    if not 0 < replaced < len(TASKS):
        raise BadInput(f"The replacement comes before task 1, 2 or 3 (of 0 to 3), but {replaced} was given.")
    splits = digits(seed)
    x, y = splits.train.tensors
    theirs, ours = TensorDataset(x[:300], y[:300]), (x[300:], y[300:])
    if elsewhere == "shapes":
        theirs = _outlines(seed, classes)
    elif elsewhere != "digits":
        raise BadInput(f"elsewhere is digits or shapes, but {elsewhere!r} was given.")
    recipe = Recipe(
        lambda: convnet(classes, channels=OLD[0], dense=OLD[1]),
        Classification(),
        "upgrades",
        epochs=epochs,
        batch_size=64,
        lr=lr,
        optimizer="sgd",
        schedule="cosine",
    )
    records = [_from_elsewhere(recipe, theirs, classes, fixed, seed) for fixed in (True, False)]
    ids = tuple(record.id for record in records)
    steps = tuple(
        Step(_of_classes(*ours, chosen), ids if number == replaced else ()) for number, chosen in enumerate(TASKS)
    )
    (vx, vy), (tx, ty) = splits.validation.tensors, splits.test.tensors
    return upgrade_problem(
        Stream(steps, classes),
        TensorDataset(tx[:200], ty[:200]),
        TensorDataset(tx[200:], ty[200:]),
        recipe=recipe,
        replacements=records,
        validation=(TensorDataset(vx[:120], vy[:120]), TensorDataset(vx[120:], vy[120:])),
        classes=NAMES,
        seed=seed,
        about={"replaced": replaced, "elsewhere": elsewhere},
    )


def _from_elsewhere(recipe: Recipe, data: TensorDataset, classes: int, fixed: bool, seed: int) -> ModelRecord:
    kind = "simplex" if fixed else "learnt"
    wide = recipe.but(
        build=lambda: retrieval_net(convnet(classes, channels=NEW[0], dense=NEW[1]), classes, classes - 1, fixed),
        name=f"elsewhere {kind}",
    )
    model = trained(wide, data, seed + 500)
    return ModelRecord.of(
        model,
        f"wide-{kind}",
        input_shape=(1, 8, 8),
        licence="Apache-2.0",
        semantic={"prototypes": model.fingerprint} if fixed else {},
    )


def _of_classes(x: Tensor, y: Tensor, chosen: tuple[int, ...]) -> TensorDataset:
    mine = torch.isin(y, torch.tensor(chosen))
    return TensorDataset(x[mine], y[mine])


def _outlines(seed: int, classes: int) -> TensorDataset:
    """Shapes in the digits' format, labelled from the last class down: others fill the simplex from its other end."""
    scenes = shapes(seed, 1000, size=32, factors={"shape": 6, "texture": ("solid",), "size": ("large",), "rotation": 1})
    grey = (scenes.instances > 0).float().unsqueeze(1)
    small = interpolate(grey, size=(8, 8), mode="bilinear", antialias=True)
    return TensorDataset(small, classes - 1 - torch.as_tensor(np.asarray(scenes.labels("shape"))).long())

"""Your own hub: three networks that other people trained, and a task that none of them was trained for.

    didact bench reusing --problem examples/own_hub.py:make --seeds 1

Two of the networks know some kinds of wine each, the third sorts tumours by other measurements and is of no use here.
"""

import torch
from sklearn.datasets import load_breast_cancer, load_wine
from torch import nn
from torch.utils.data import TensorDataset

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.reusing import Budget, ModelRecord, Task, reuse_problem


def table(load) -> tuple[torch.Tensor, torch.Tensor]:
    bundle = load()
    x = (bundle.data - bundle.data.mean(0)) / bundle.data.std(0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return torch.tensor(x, dtype=torch.float32)[order], torch.tensor(bundle.target)[order]


def network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, outputs))


def trained(x: torch.Tensor, y: torch.Tensor, known: tuple[int, ...], seed: int) -> nn.Module:
    mine = torch.isin(y, torch.tensor(known))
    labels = torch.searchsorted(torch.tensor(known), y[mine])
    recipe = Recipe(lambda: network(x.shape[1], len(known)), Classification(), epochs=30, lr=3e-3)
    return recipe.fit(TensorDataset(x[mine], labels), seed)


def make(seed: int = 0):
    x, y = table(load_wine)
    theirs, mine = (x[:100], y[:100]), (x[100:], y[100:])
    names = ("barolo", "grignolino", "barbera")
    models = [
        ModelRecord.of(
            trained(*theirs, known, seed), f"wine-{i}", classes=tuple(names[c] for c in known), input_shape=(13,)
        )
        for i, known in enumerate(((0, 1), (1, 2)))
    ]
    other = table(load_breast_cancer)
    tumours = ModelRecord.of(
        trained(*other, (0, 1), seed), "tumours", classes=("malignant", "benign"), input_shape=(30,)
    )
    few, test = slice(0, 15), slice(15, None)
    task = Task(TensorDataset(mine[0][:40]), TensorDataset(mine[0][few], mine[1][few]), names)
    recipe = Recipe(lambda: network(13, 3), Classification(), "wine", epochs=30)
    return reuse_problem(
        [*models, tumours],
        task,
        TensorDataset(mine[0][test], mine[1][test]),
        budget=Budget(steps=60),
        recipe=recipe,
        seed=seed,
    )

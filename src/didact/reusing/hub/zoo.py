"""The zoo: small networks that descend from one base, trained on overlapping parts of digits, shapes and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.data.digits import digits
from didact.data.shapes import shapes
from didact.data.shapes.labels import wrong_labels
from didact.models.small import convnet, mlp
from didact.models.workpieces import cached, digest, trained
from didact.reusing.request import ModelRecord, fingerprint
from didact.reusing.specified import specified
from didact.reusing.tuning import with_head

DIGITS = tuple(f"digit {i}" for i in range(10))
CHANNELS, DENSE = (16, 32), 64
TABLES = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer}


@dataclass(frozen=True, eq=False)
class Zoo:
    """The models with their common ancestor, and what each was trained on (the dock's specifications need it)."""

    base: ModelRecord
    records: tuple[ModelRecord, ...]
    inputs: dict[str, Tensor]  #: model id -> the inputs (N, ...) it was trained on


def zoo(seed: int = 0, *, models: int = 20) -> Zoo:
    """About twenty models: of each ten, seven know 3 to 6 digits, two know shapes, one a table.

    All that see pictures are fine-tuned from one base, a convnet that has learnt to tell how a digit is turned. They
    differ in classes, number of training samples (60 to 400) and share of wrong labels (none to 40 %), so some are
    worth more than others. Trained once and cached: about a second a model.
    """
    rng = np.random.default_rng(seed)
    base = _base(seed)
    ancestor = ModelRecord.of(base, "base", input_shape=(1, 8, 8), licence="Apache-2.0")
    made = []
    for i in range(models):
        kind = "digits" if i % 10 < 7 else "shapes" if i % 10 < 9 else "table"
        if kind == "table":
            made.append(_table_model(i, seed))
        else:
            made.append(_picture_model(i, kind, base, ancestor.digest, rng, seed))
    return Zoo(ancestor, tuple(record for record, _ in made), {record.id: x for record, x in made})


def picture_net(outputs: int) -> nn.Module:
    """The architecture of all models that see pictures: 8x8 grey, 11,000 parameters and a head."""
    return convnet(outputs, channels=CHANNELS, dense=DENSE)


def picture_recipe(outputs: int, epochs: int = 15, lr: float = 2e-3) -> Recipe:
    return Recipe(lambda: picture_net(outputs), Classification(), "zoo", epochs=epochs, lr=lr)


def _base(seed: int) -> nn.Module:
    """Trained without labels: to tell by how many quarters a picture is turned."""
    x = digits(seed).train.tensors[0]
    turned = torch.cat([x.rot90(k, (2, 3)) for k in range(4)])
    quarters = torch.arange(4).repeat_interleave(len(x))
    return trained(picture_recipe(4, epochs=6, lr=1e-3), TensorDataset(turned, quarters), seed)


def _picture_model(
    i: int, kind: str, base: nn.Module, ancestor: str, rng: np.random.Generator, seed: int
) -> tuple[ModelRecord, Tensor]:
    x, y, names = _digit_pool(seed) if kind == "digits" else _shape_pool(seed)
    chosen = np.sort(rng.choice(len(names), size=int(rng.integers(3, min(6, len(names)) + 1)), replace=False))
    size, noise = int(rng.choice([60, 150, 400])), float(rng.choice([0.0, 0.0, 0.2, 0.4]))
    data = _part(x, y, chosen, size, noise, seed + i)
    classes = tuple(names[c] for c in chosen)
    record = _fine_tuned(f"{kind}-{i:02}", base, data, classes, seed + i)
    tags = {"data": "Image", "task": "Classification", "samples": len(data), "wrong labels": noise}
    known: dict[str, Any] = {"base": ancestor, "semantic": tags, "licence": "Apache-2.0", "input_shape": (1, 8, 8)}
    known["specification"] = specified(data.tensors[0], "Image", seed)
    return ModelRecord.of(record, f"{kind}-{i:02}", classes=classes, **known), data.tensors[0]


def _part(x: Tensor, y: Tensor, chosen: NDArray[np.int64], size: int, noise: float, seed: int) -> TensorDataset:
    """At most `size` samples of the chosen classes, relabelled from 0, some of them wrongly."""
    place = torch.full((int(y.max()) + 1,), -1)
    place[torch.from_numpy(chosen)] = torch.arange(len(chosen))
    mine = torch.nonzero(place[y] >= 0).flatten()
    mine = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(seed))][:size]
    return TensorDataset(x[mine], wrong_labels(place[y[mine]], len(chosen), noise, seed))


def _fine_tuned(name: str, base: nn.Module, data: TensorDataset, classes: tuple[str, ...], seed: int) -> nn.Module:
    blank = with_head(base, (), classes, seed)
    recipe = picture_recipe(len(classes))
    key = {"zoo": name, "base": fingerprint(base), "recipe": recipe.key, "data": digest(data), "seed": seed}
    return cached(key, lambda: recipe.fit(data, seed, init=blank), lambda: blank)


def _digit_pool(seed: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    x, y = digits(seed).train.tensors
    return x, y, DIGITS


def _shape_pool(seed: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Shapes in the digits' format: bright on black, 8x8."""
    factors = {"shape": 6, "texture": ("solid",), "size": ("large",), "rotation": 1}
    scenes = shapes(seed, 1000, size=32, factors=factors)
    grey = (scenes.instances > 0).float().unsqueeze(1)
    small = interpolate(grey, size=(8, 8), mode="bilinear", antialias=True)
    labels = torch.as_tensor(np.asarray(scenes.labels("shape"))).long()
    return small, labels, tuple(f"shape {name}" for name in scenes.vocabulary["shape"])


def _table_model(i: int, seed: int) -> tuple[ModelRecord, Tensor]:
    name = list(TABLES)[(i // 10) % len(TABLES)]
    bundle = TABLES[name]()
    x = torch.from_numpy((bundle.data - bundle.data.mean(0)) / bundle.data.std(0)).float()
    data = TensorDataset(x, torch.from_numpy(bundle.target).long())
    classes = tuple(f"{name} {label}" for label in bundle.target_names)
    recipe = Recipe(lambda: mlp(x.shape[1], len(classes), (32,)), Classification(), f"zoo {name}", epochs=20, lr=3e-3)
    model = trained(recipe, data, seed)
    tags = {"data": "Table", "task": "Classification", "samples": len(data)}
    known: dict[str, Any] = {"semantic": tags, "licence": "Apache-2.0", "input_shape": (x.shape[1],)}
    known["specification"] = specified(x, "Table", seed)
    return ModelRecord.of(model, f"{name.replace(' ', '-')}-{i:02}", classes=classes, **known), x

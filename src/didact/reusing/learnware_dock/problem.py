"""The claim's problem: digits, a dock of learnwares that know four of them each, and users who need six."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.utils.data import TensorDataset

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.models.small import mlp
from didact.models.workpieces import trained
from didact.reusing.learnware_dock.crowd import Crowd, CrowdProblem, CrowdTruth
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.learnware_dock.tuning import gamma_by_reuse
from didact.reusing.problem import Truth
from didact.reusing.request import Budget, ModelRecord, Request, Task
from didact.reusing.specified import remembered, specified

NAMES = tuple(f"digit {i}" for i in range(10))
COLUMNS, KNOWN = 20, 4  # principal components; classes a learnware
SHARES = (0.3, 0.3, 0.1, 0.1, 0.1, 0.1)  # of a user's six classes
TESTED = 200  # test samples a user
REPORTED = (0.1, 1.0, 3.0)  # kernel widths at which learnwares are specified besides the one that the dock fixed


@problem("dock-digits", family="reusing")
def dock_digits(
    seed: int = 0, *, learnwares: int = 15, users: int = 12, labelled: int = 30, unlabelled: int = 150, steps: int = 200
) -> CrowdProblem:
    """Serve 12 users of six digits each from a dock of 15 classifiers that know four digits each.

    Digits are reduced to 20 principal components. A user's digits come in unequal shares (.3, .3 and four times .1),
    so no single learnware covers them. Every learnware is specified at several kernel widths; the first is the one
    that the dock fixed by itself on herded points. Each user has 150 unlabelled and 30 labelled samples; training
    from scratch takes 200 steps. An answer is scored by its mean accuracy over the users.
    """
    pool = _pool(seed)
    rng = np.random.default_rng(seed)
    records = _dock(pool, learnwares, seed, rng)
    budget = Budget(steps=steps)
    given, truths = [], []
    for _ in range(users):
        task, test = _user(pool, labelled, unlabelled, rng)
        recipe = Recipe(lambda: mlp(COLUMNS, len(SHARES), (64,)), Classification(), "dock user")
        given.append(Request(records, task, budget=budget, recipe=recipe, seed=seed))
        truths.append(Truth(test, alone(records, task.classes, test)))
    first = given[0]
    crowd = Crowd(records, first.task, budget=budget, recipe=first.recipe, seed=seed, users=tuple(given))
    about = {"learnwares": learnwares, "users": users, "gamma": records[0].specification[0].gamma}
    return CrowdProblem(crowd, lambda: CrowdTruth(tuple(truths)), seed=seed, about=about)  # type: ignore[arg-type, return-value]


def alone(records: Sequence[ModelRecord], classes: tuple[str, ...], test: TensorDataset) -> dict[str, float]:
    """Test accuracy of every learnware as it is, among the user's classes; classes it does not know are missed."""
    x, y = test.tensors
    found = {}
    for record in records:
        source = Source.of(record)
        scores, _ = source.aligned(source.probabilities(x), classes)
        # One that knows none of the classes scores 0 everywhere and would be read as naming the first.
        right = (scores.argmax(axis=1) == y.numpy()) & (scores.max(axis=1) > 0)
        found[record.id] = float(right.mean())
    return found


@dataclass(frozen=True)
class _Pool:
    """Digits for the learnwares and, apart from them, for the users."""

    theirs: tuple[Tensor, Tensor]
    ours: tuple[Tensor, Tensor]


def _pool(seed: int) -> _Pool:
    parts = digits(seed, train=600, validation=0, test=1197)
    (x, y), (ours, labels) = parts.train.tensors, parts.test.tensors
    reduce = PCA(COLUMNS, random_state=0).fit(x.flatten(1).numpy())

    def reduced(images: Tensor) -> Tensor:
        return torch.from_numpy(reduce.transform(images.flatten(1).numpy())).float()

    return _Pool((reduced(x), y), (reduced(ours), labels))


def _dock(pool: _Pool, learnwares: int, seed: int, rng: np.random.Generator) -> tuple[ModelRecord, ...]:
    """Records with specifications at several widths, the one that the dock fixed first."""
    x, y = pool.theirs
    made = []
    for i in range(learnwares):
        chosen = np.sort(rng.choice(10, size=KNOWN, replace=False))
        mine = torch.isin(y, torch.from_numpy(chosen))
        data = TensorDataset(x[mine], torch.searchsorted(torch.from_numpy(chosen), y[mine]))
        made.append(_learnware(i, data, tuple(NAMES[c] for c in chosen), seed + i))
    preliminary = [_with(record, data, (0.1,), seed) for record, data in made]
    key = {"gamma of": [record.digest for record in preliminary], "seed": seed}
    fixed = float(remembered(key, lambda: gamma_by_reuse(preliminary, seed=seed)))
    widths = (fixed, *(gamma for gamma in REPORTED if gamma != fixed))
    return tuple(_with(record, data, widths, seed) for record, data in made)


def _learnware(i: int, data: TensorDataset, classes: tuple[str, ...], seed: int) -> tuple[ModelRecord, TensorDataset]:
    from didact.reusing.dock.semantics import Input, Output, SemanticSpecification

    recipe = Recipe(lambda: mlp(COLUMNS, KNOWN, (64,)), Classification(), "learnware", epochs=20, lr=3e-3)
    semantic = SemanticSpecification(
        name=f"learnware-{i:02}",
        description=f"Tells {', '.join(classes)} apart by {COLUMNS} principal components of 8 x 8 grey images.",
        data="Table",
        task="Classification",
        library="PyTorch",
        scenario=("Education",),
        licence="Apache-2.0",
        input=Input(dimension=COLUMNS, description={j: f"principal component {j + 1}" for j in range(COLUMNS)}),
        output=Output(dimension=KNOWN, description=dict(enumerate(classes))),
    )
    known = {"classes": classes, "input_shape": (COLUMNS,), "semantic": semantic, "licence": "Apache-2.0"}
    return ModelRecord.of(trained(recipe, data, seed), semantic.name, **known), data


def _with(record: ModelRecord, data: TensorDataset, widths: Sequence[float], seed: int) -> ModelRecord:
    rows = data.tensors[0]
    return replace(record, specification=tuple(specified(rows, "Table", seed, gamma)() for gamma in widths))


def _user(pool: _Pool, labelled: int, unlabelled: int, rng: np.random.Generator) -> tuple[Task, TensorDataset]:
    """A user's task and test samples: six digits in fixed shares, three parts without a common sample."""
    x, y = pool.ours
    chosen = np.sort(rng.choice(10, size=len(SHARES), replace=False))
    shares = rng.permutation(SHARES)
    parts: list[list[int]] = [[], [], []]
    for digit, share in zip(chosen, shares, strict=True):
        order = rng.permutation(np.flatnonzero(y.numpy() == digit))
        start = 0
        for part, size in zip(parts, (unlabelled, labelled, TESTED), strict=True):
            count = max(1, round(size * share))
            part.extend(order[start : start + count].tolist())
            start += count
    place = torch.full((10,), -1)
    place[torch.from_numpy(chosen)] = torch.arange(len(chosen))
    hidden, few, test = (torch.from_numpy(rng.permutation(part)) for part in parts)
    task = Task(
        TensorDataset(x[hidden]),
        TensorDataset(x[few], place[y[few]]),
        tuple(NAMES[c] for c in chosen),
        Classification(),
    )
    return task, TensorDataset(x[test], place[y[test]])

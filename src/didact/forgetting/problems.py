"""Embedded unlearning problems: real digits, drawn shapes, and a regression, each with a deletion request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import nn
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.objective import Classification, Objective, Regression
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.diabetes import diabetes
from didact.data.digits import digits
from didact.data.shapes import shapes
from didact.data.splits import Splits
from didact.forgetting.problem import UnlearningProblem, unlearning_problem
from didact.models.small import convnet, mlp
from didact.models.workpieces import trained

#: drawn shapes that a small convnet learns from 1,500 pictures: six kinds, upright, of any colour and place
UPRIGHT = {"shape": 6, "texture": ("solid", "shaded"), "size": ("medium", "large"), "rotation": 1}


@problem("digits-class", family="forgetting")
def digits_class(
    seed: int = 0, *, forget: int = 3, train: int = 1000, width: int = 32, dense: int = 256, epochs: int = 40
) -> UnlearningProblem:
    """Forget one class of handwritten digits: a convnet must lose `forget` and keep the other nine.

    1,000 of scikit-learn's 8x8 digits for training, 297 for validation, 500 for testing; `width` and `dense` size
    the convnet (87,178 parameters at the defaults), trained for 40 epochs with Adam.
    """
    return _class_problem(digits(seed, train=train), forget, seed, digit_recipe(10, width, dense, epochs))


@problem("digits-random", family="forgetting")
def digits_random(seed: int = 0, *, share: float = 0.1, noise: float = 0.0, epochs: int = 40) -> UnlearningProblem:
    """Forget a random tenth of the handwritten digits: the model should treat them as it treats unseen ones.

    The digits are so easy that a model which never saw a sample mostly gets it right: doing nothing comes close to
    retraining. With `noise` this share of all training labels is wrong, so that there is something to remember.
    """
    splits = digits(seed)
    if noise:
        splits = Splits(_mislabelled(splits.train, noise, seed), splits.validation, splits.test)
    return _random_problem(splits, share, seed, digit_recipe(epochs=epochs))


@problem("digits-subset", family="forgetting")
def digits_subset(seed: int = 0, *, digit: int = 1, epochs: int = 40) -> UnlearningProblem:
    """Forget one way of writing a digit: the larger of two k-means clusters of its images; the other way stays.

    A retrained model still knows most of them from the other ways, so the right forget score is not 0.
    """
    splits = digits(seed)
    writing = _cluster_of(splits.train, digit, seed)
    return _masked_problem(splits, writing, seed, digit_recipe(epochs=epochs), {"digit": digit})


@problem("shapes-class", family="forgetting")
def shapes_class(seed: int = 0, *, forget: int = 2, train: int = 1500, epochs: int = 20) -> UnlearningProblem:
    """Forget one kind of shape in drawn colour images (32x32, one object each, any colour, size and place)."""
    return _class_problem(_shape_splits(seed, train), forget, seed, _shape_recipe(epochs))


@problem("shapes-random", family="forgetting")
def shapes_random(seed: int = 0, *, share: float = 0.1, train: int = 1500, epochs: int = 20) -> UnlearningProblem:
    """Forget a random tenth of the drawn shapes."""
    return _random_problem(_shape_splits(seed, train), share, seed, _shape_recipe(epochs))


@problem("shapes-subset", family="forgetting")
def shapes_subset(seed: int = 0, *, colour: int = 0, train: int = 1500, epochs: int = 20) -> UnlearningProblem:
    """Forget a sub-population: the shapes of one colour, of whatever kind."""
    return _masked_problem(
        _shape_splits(seed, train),
        lambda data: data.tensors[2] == colour,
        seed,
        _shape_recipe(epochs),
        {"colour": colour},
    )


@problem("digits-regression", family="forgetting")
def digits_regression(seed: int = 0, *, at_most: int = 2, epochs: int = 60) -> UnlearningProblem:
    """Read the digit as a number; forget the images whose number is at most `at_most`."""
    splits = Splits(*(TensorDataset(d.tensors[0], d.tensors[1].float()) for d in digits(seed)))
    recipe = Recipe(lambda: convnet(outputs=1), Regression("l1"), "convnet for numbers", epochs=epochs, lr=1e-3)
    return _masked_problem(splits, lambda data: data.tensors[1] <= at_most, seed, recipe, {"at_most": at_most})


@problem("diabetes", family="forgetting")
def diabetes_tail(seed: int = 0, *, share: float = 0.3, epochs: int = 200) -> UnlearningProblem:
    """Regression on scikit-learn's 442 diabetes patients; forget those with the fastest progression.

    The target is disease progression, standardised; `share` is the part of the training data to forget.
    """
    splits = diabetes(seed)
    bar = float(torch.quantile(splits.train.tensors[1], 1 - share))
    recipe = Recipe(lambda: mlp(10, 1, hidden=(64, 64)), Regression("l2"), "mlp 64-64", epochs=epochs, lr=3e-3)
    return _masked_problem(splits, lambda data: data.tensors[1] > bar, seed, recipe, {"share": share})


def _class_problem(splits: Splits[TensorDataset], forget: int, seed: int, recipe: Recipe) -> UnlearningProblem:
    classes = int(splits.train.tensors[1].max()) + 1
    if not 0 <= forget < classes:
        raise BadInput(f"The class to forget must lie in 0..{classes - 1}, but {forget} was given.")
    return _masked_problem(splits, lambda data: data.tensors[1] == forget, seed, recipe, {"class": forget}, target=0.0)


def _random_problem(splits: Splits[TensorDataset], share: float, seed: int, recipe: Recipe) -> UnlearningProblem:
    if not 0 < share < 1:
        raise BadInput(f"The share to forget lies between 0 and 1, but {share} was given.")
    train = splits.train
    chosen = np.random.default_rng(seed).permutation(len(train))[: max(1, round(share * len(train)))]
    # Unseen items of the same kind are simply test data; half of it plays the hold-out, the other half the test.
    (test, holdout), (validation, validation_holdout) = (_halves(d, seed) for d in (splits.test, splits.validation))
    return _assemble(
        train, np.isin(np.arange(len(train)), chosen), test, holdout, validation, validation_holdout, seed, recipe,
        {"share": share},
    )  # fmt: skip


def _masked_problem(
    splits: Splits[TensorDataset],
    chosen: Callable[[TensorDataset], Any],
    seed: int,
    recipe: Recipe,
    about: dict[str, Any],
    target: float | None = None,
) -> UnlearningProblem:
    """Forget the items for which `chosen` is true; the same items of the other parts become hold-outs."""
    (test, holdout), (validation, validation_holdout) = (
        _divide(part, np.asarray(chosen(part), dtype=bool)) for part in (splits.test, splits.validation)
    )
    return _assemble(
        splits.train, np.asarray(chosen(splits.train), dtype=bool), test, holdout, validation, validation_holdout,
        seed, recipe, about, target,
    )  # fmt: skip


def _assemble(
    train: TensorDataset,
    forgotten: np.ndarray[Any, np.dtype[np.bool_]],
    test: TensorDataset,
    holdout: TensorDataset,
    validation: TensorDataset,
    validation_holdout: TensorDataset,
    seed: int,
    recipe: Recipe,
    about: dict[str, Any],
    target: float | None = None,
) -> UnlearningProblem:
    retain, forget = _divide(_pairs(train), forgotten)
    return unlearning_problem(
        trained(recipe, _pairs(train), seed),
        forget,
        retain,
        _pairs(test),
        holdout=_pairs(holdout),
        validation=_pairs(validation),
        validation_holdout=_pairs(validation_holdout),
        objective=recipe.objective,
        recipe=recipe,
        target=target,
        seed=seed,
        about=about,
    )


def _pairs(data: TensorDataset) -> TensorDataset:
    """Input and target alone: other factors are for choosing, not for learning."""
    return TensorDataset(*data.tensors[:2])


def _divide(data: TensorDataset, chosen: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[TensorDataset, TensorDataset]:
    """(the others, the chosen)"""
    mask = torch.from_numpy(chosen)
    return TensorDataset(*(t[~mask] for t in data.tensors)), TensorDataset(*(t[mask] for t in data.tensors))


def _mislabelled(data: TensorDataset, share: float, seed: int) -> TensorDataset:
    """The data with a random share of its labels replaced by other ones."""
    if not 0 < share < 1:
        raise BadInput(f"The share of wrong labels lies between 0 and 1, but {share} was given.")
    x, y = data.tensors
    chosen = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[: round(share * len(y))]
    wrong = y.clone()
    wrong[chosen] = Classification().resample(y[chosen], y, "other", torch.Generator().manual_seed(seed + 1))
    return TensorDataset(x, wrong)


def _halves(data: TensorDataset, seed: int) -> tuple[TensorDataset, TensorDataset]:
    order = np.random.default_rng(seed).permutation(len(data))
    return _divide(data, np.isin(np.arange(len(data)), order[: len(data) // 2]))


def _cluster_of(train: TensorDataset, digit: int, seed: int) -> Callable[[TensorDataset], Any]:
    """Membership in the larger of two k-means clusters of one digit's training images."""
    own = train.tensors[0][train.tensors[1] == digit].flatten(1).numpy()
    clusters = KMeans(2, n_init=10, random_state=seed).fit(own)
    common = int(np.bincount(clusters.labels_).argmax())

    def chosen(data: TensorDataset) -> Any:
        near = clusters.predict(data.tensors[0].flatten(1).numpy()) == common
        return near & (data.tensors[1] == digit).numpy()

    return chosen


def digit_recipe(outputs: int = 10, width: int = 32, dense: int = 256, epochs: int = 40) -> Recipe:
    """A convnet for 8x8 digits, trained with Adam at 1e-3."""

    def build() -> nn.Module:
        return convnet(outputs, 8, 1, (width, 2 * width), dense)

    objective: Objective = Classification()
    return Recipe(build, objective, f"convnet {width}-{2 * width}-{dense}", epochs=epochs, lr=1e-3)


def _shape_recipe(epochs: int) -> Recipe:
    return Recipe(
        lambda: convnet(6, 32, 3, (16, 32, 64), 128),
        Classification(),
        "convnet 16-32-64-128",
        epochs=epochs,
        lr=2e-3,
        schedule="cosine",
    )


def _shape_splits(seed: int, train: int) -> Splits[TensorDataset]:
    """Training, 300 validation and 500 test images with shape as target and colour as a third column."""
    scenes = shapes(seed, n=train + 800, size=32, objects=1, factors=UPRIGHT)
    images, kind = scenes.classification(target="shape").tensors
    images = 4 * (images - images.mean((1, 2, 3), keepdim=True))  # how bright the background is says nothing
    colour = scenes.classification(target="colour").tensors[1]
    data = TensorDataset(images, kind, colour)
    cuts = (slice(0, train), slice(train, train + 300), slice(train + 300, None))
    return Splits(*(TensorDataset(*(t[cut] for t in data.tensors)) for cut in cuts))

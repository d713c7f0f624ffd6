"""The universal baselines: what every unlearning method is compared with, given the same care."""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.cost import note
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Range
from didact.core.objective import Batch, evaluating
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.datasets import pooled, targets_of, with_targets
from didact.parts.paired import mixed_batches, paired_batches


@register
class Original(Unlearner):
    """The model as it was: forgets nothing, costs nothing. The lower end of every plot."""

    card = Card("original", "The model before unlearning", kind="baseline")

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        return model


@register
class Retrain(Unlearner):
    """Train again from scratch without the forget data: exact, and as dear as the first training.

    Uses the problem's recipe; the seed differs from that of the scorer's reference, so that two retrainings do not
    agree by construction. Where the retained data given is only a sample, the problem offers the owner's pipeline as
    `extras["retrain"]`, and `lr_factor` has no effect. Trains everything. Cost: the recipe's epochs over the retained
    data.
    """

    card = Card(
        "retrain",
        "Retraining without the forget data",
        kind="baseline",
        needs=("retain", "labels"),
        tunes={"lr_factor": Range(0.3, 3.0, log=True)},
    )
    lr_factor: PositiveFloat = 1.0  #: learning rate relative to the recipe's

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        if "retrain" in request.extras:  # the owner's own pipeline: the retained data given is only a sample
            retrained: nn.Module = request.extras["retrain"](request.seed + 31337)
            return retrained
        recipe = request.need_recipe()
        return recipe.fit(request.need_retain(), request.seed + 31337, lr=recipe.lr * self.lr_factor)


@register
class FineTune(Unlearner):
    """Go on training on the retained data alone and hope that the rest fades.

    Trains everything, with the recipe's optimiser, for a tenth of its epochs and at least five. Cost: those epochs
    over the retained data.
    """

    card = Card(
        "fine-tune",
        "Fine-tuning on the retained data",
        kind="baseline",
        needs=("retain", "labels"),
        tunes={"lr_factor": Range(0.1, 30.0, log=True), "epochs": Range(1, 10, integer=True)},
    )
    epochs: PositiveInt | None = None  #: default: a tenth of the recipe's, at least 5
    lr_factor: PositiveFloat = 1.0  #: learning rate relative to the recipe's

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        recipe = request.need_recipe()
        epochs = self.epochs or max(5, recipe.epochs // 10)
        return recipe.fit(request.need_retain(), request.seed, init=model, epochs=epochs, lr=recipe.lr * self.lr_factor)


@register
class GradientAscent(Unlearner):
    """Climb the loss on the forget data until the model scores there as one that knows nothing.

    Trains everything with Adam at a tenth of the recipe's rate and gradient norms clipped at 1. After each epoch it
    stops when the forget score is at the target. Needs no retained data. Cost: at most `epochs` passes over forget.
    """

    card = Card(
        "gradient-ascent",
        "Gradient ascent on the forget data",
        kind="baseline",
        needs=("labels",),
        tunes={"lr": Range(1e-5, 1e-2, log=True)},
    )
    lr: PositiveFloat | None = None  #: default: a tenth of the recipe's
    epochs: PositiveInt = 20  #: at most; ends as soon as the forget score is reached
    batch_size: PositiveInt = 32  #: samples a step
    stop: bool = True  #: end at the target; False runs all epochs
    clip: PositiveFloat | None = 1.0  #: largest norm of the gradient

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        log = fit(
            model,
            request.forget,
            request.objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or request.need_recipe().lr / 10,
            clip=self.clip,
            seed=request.seed,
            hooks=Hooks(
                loss=lambda m, batch, step: -request.objective.loss(m, batch),
                stop=forgotten(request) if self.stop else None,
            ),
        )
        note(steps=log.steps)
        return model


@register
class GradientDifference(Unlearner):
    """Gradient ascent on the forget data, held by the ordinary loss on the retained data (Liu, Liu and Stone, 2022).

    Trains everything with Adam at a tenth of the recipe's rate, one forget and one retain batch a step, until the
    forget score is at the target. Cost: two passes a sample for `2 * steps * batch_size` samples at most.
    """

    card = Card(
        "gradient-difference",
        "Gradient ascent on forget, descent on retain",
        kind="baseline",
        needs=("retain", "labels"),
        tunes={"lr": Range(1e-5, 1e-2, log=True), "retain_weight": Range(0.1, 10.0, log=True)},
    )
    lr: PositiveFloat | None = None  #: default: a tenth of the recipe's
    retain_weight: PositiveFloat = 1.0  #: weight of the retained data's loss
    epochs: PositiveInt = 20  #: passes over the forget data, at most
    batch_size: PositiveInt = 32  #: samples a step
    stop: bool = True  #: end at the target; False runs all epochs
    clip: PositiveFloat | None = 1.0  #: largest norm of the gradient

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        rounds = -(-len(request.forget) // self.batch_size)  # type: ignore[arg-type]

        def loss(m: nn.Module, pair: Any, step: int) -> Tensor:
            forget, retain = pair
            return -objective.loss(m, forget) + self.retain_weight * objective.loss(m, retain)

        log = fit(
            model,
            request.forget,
            objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or request.need_recipe().lr / 10,
            clip=self.clip,
            seed=request.seed,
            hooks=Hooks(
                loss=loss,
                batches=lambda epoch: paired_batches(
                    request.forget, request.need_retain(), objective, batch_size=self.batch_size,
                    steps=rounds, seed=request.seed + 1000 * epoch,
                ),
                stop=forgotten(request) if self.stop else None,
            ),
        )  # fmt: skip
        note(steps=log.steps)
        return model


@register
class RandomLabels(Unlearner):
    """Train on the forget data with wrong targets, beside the retained data with right ones ("amnesiac" learning).

    Forget targets are redrawn once: another class than the true one; for regressors a Gaussian with the training
    targets' mean and spread. Trains everything with the recipe's optimiser. Cost: `epochs` passes over all data
    (over forget alone with `use_retain=False`).
    """

    card = Card(
        "random-labels",
        "Fine-tuning on random labels",
        kind="baseline",
        needs=("retain", "labels"),
        tunes={"lr_factor": Range(0.03, 3.0, log=True), "epochs": Range(1, 10, integer=True)},
    )
    epochs: PositiveInt = 5  #: passes over the data
    lr_factor: PositiveFloat = 0.3  #: learning rate relative to the recipe's
    use_retain: bool = True  #: train on the retained data beside the forget data

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        recipe = request.need_recipe()
        wrong = relabelled(request)
        data: Dataset[Any] = ConcatDataset([wrong, request.need_retain()]) if self.use_retain else wrong
        return recipe.fit(data, request.seed, init=model, epochs=self.epochs, lr=recipe.lr * self.lr_factor)


@register
class BadTeacher(Unlearner):
    """Imitate an untrained network on the forget data and the original on the rest (Chundawat et al., 2023).

    The student starts as the original; its output is pulled to the untrained teacher's on forget samples and to the
    original's on a random 30 % of the retained samples. Needs no labels. Trains everything with Adam, at the
    recipe's rate for five epochs: the paper's 1e-4 for one epoch makes a dozen updates on a thousand images, which
    change little. Cost: two forward and one backward pass a sample.
    """

    card = Card(
        "bad-teacher",
        "Bad teacher: imitate an untrained network where to forget",
        kind="baseline",
        needs=("retain",),
        tunes={"lr": Range(1e-5, 1e-2, log=True), "epochs": Range(1, 10, integer=True)},
    )
    lr: PositiveFloat | None = None  #: default: the recipe's
    epochs: PositiveInt = 5  #: passes over forget data and retained share
    retain_share: PositiveFloat = 0.3  #: part of the retained data that is used
    batch_size: PositiveInt = 32  #: samples a step

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        good, bad = copy.deepcopy(model).eval(), request.need_recipe().fresh(request.seed + 1).eval()
        retain = _share(request.need_retain(), self.retain_share, request.seed)

        def loss(m: nn.Module, mixed: tuple[Batch, Tensor], step: int) -> Tensor:
            batch, to_forget = mixed
            output = objective.forward(m, batch)
            goal = torch.empty_like(output)
            with torch.no_grad():
                for teacher, chosen in ((bad, to_forget), (good, ~to_forget)):
                    if chosen.any():
                        goal[chosen] = objective.forward(teacher, objective.rows(batch, chosen))
            return objective.divergence(output, goal)

        fit(
            model,
            ConcatDataset([request.forget, retain]),
            objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or request.need_recipe().lr,
            seed=request.seed,
            hooks=Hooks(
                loss=loss,
                batches=lambda epoch: mixed_batches(
                    request.forget, retain, objective, batch_size=self.batch_size, seed=request.seed + epoch
                ),
            ),
        )
        return model


def forgotten(request: Request) -> Any:
    """A stop hook: the mean forget score has reached the request's stop score."""

    def stop(model: nn.Module, epoch: int) -> bool:
        with evaluating(model):
            return request.objective.mean_score(model, request.forget) <= request.stop_score

    return stop


def relabelled(request: Request) -> Dataset[Any]:
    """The forget data with every target redrawn once, from the request's seed."""
    own = targets_of(request.forget, request.objective)
    seen = own if request.retain is None else own + targets_of(request.retain, request.objective)
    generator = torch.Generator().manual_seed(request.seed + 17)
    if len({t.shape for t in own}) == 1:
        drawn = request.objective.resample(torch.stack(own), pooled(seen), "other", generator)
        return with_targets(request.forget, drawn)
    pool = pooled(seen)
    return with_targets(request.forget, [request.objective.resample(t, pool, "other", generator) for t in own])


def _share(dataset: Dataset[Any], share: float, seed: int) -> Dataset[Any]:
    """A random part of a dataset, at least one sample."""
    size = len(dataset)  # type: ignore[arg-type]
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return Subset(dataset, order[: max(1, round(min(1.0, share) * size))].tolist())

"""Selective synaptic dampening (Foster, Schoepf and Brintrup, 2024)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from didact.core.claim import Claim, at_most, custom, no_worse
from didact.core.cost import note
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Card, Paper, Range
from didact.core.objective import Batch, Objective, guess_objective
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.fisher import Importance, accumulate, fisher_diagonal

#: the strengths that alpha="auto" tries, weakest edit first
GRID = np.geomspace(100.0, 1.0, 41)


@register
class SelectiveSynapticDampening(Unlearner):
    """Shrink the weights that matter far more to what must be forgotten than to everything else.

    One shot, no training step: the Fisher importance of every weight is measured on the forget data and on all
    training data; where the first exceeds `alpha` times the second, the weight is scaled down by their ratio. Fast,
    and kind to the rest as long as the network is wide enough for classes to have weights of their own; narrow
    networks share weights and lose more.

    All named parameters may be scaled, buffers never; nothing is trained. The importance of the training data can be
    measured when the model is trained (`measure`) and passed as `stored_importance`: the retained data is then
    not needed. `alpha` does not carry over between batch sizes (batch means cancel gradient noise, so larger batches
    need a larger alpha) nor between shares of forget data: `alpha="auto"` looks for the weakest edit that forgets.

    With `importance="sample"` and forget data that is part of the training data, a training importance is never
    below (|forget|/|all|) times the forget importance, so an alpha of |all|/|forget| or more changes nothing.

    Errors: an alpha or lam that is not positive, unlabelled data without `label_free`, a stored importance whose
    names or shapes are not the model's, a frozen model.

    Cost: one forward and one backward pass over all training data; memory for two gradients; `alpha="auto"` adds up
    to 41 forward passes over the forget data.

    Reference: Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
    Dampening", AAAI 2024, arXiv 2308.07707.
    """

    card = Card(
        "ssd",
        "Fast Machine Unlearning without Retraining through Selective Synaptic Dampening",
        paper=Paper("Foster, Schoepf and Brintrup", 2024, arxiv="2308.07707", venue="AAAI"),
        code="if-loops/selective-synaptic-dampening",
        licence="MIT",
        tunes={"alpha": Range(1.0, 100.0, log=True), "lam": Range(0.1, 2.0, log=True)},
    )
    alpha: PositiveFloat | Literal["auto"] = 10.0  #: a weight is selected when its importance ratio exceeds this
    lam: PositiveFloat = 1.0  #: strength: a selected weight is scaled by min(lam * I_all / I_forget, 1)
    importance: Literal["batch", "sample"] = "batch"  #: squares of batch-mean gradients, or of each sample's
    batch_size: PositiveInt = 64  #: of the importance passes; alpha depends on it
    label_free: bool = False  #: importance of the squared output norm instead of the loss: needs no labels
    stored_importance: Any = Field(None, repr=False, exclude=True)  #: importance of all training data, if kept
    target: float | None = None  #: forget score at which alpha="auto" stops; default: the request's, or 0.05

    @field_validator("stored_importance")
    @classmethod
    def _tensors_by_name(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, dict) and all(isinstance(v, Tensor) for v in value.values())):
            raise ValueError("stored_importance maps parameter names to tensors, as measure() returns them")
        return value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        of_all = self._importance_of_all(model, request)
        of_forget = self.measure(model, request.forget, objective)
        if self.alpha == "auto":
            return self._weakest_that_forgets(model, request, of_all, of_forget)
        report(dampen(model, of_all, of_forget, self.alpha, self.lam), self.alpha)
        return model

    def measure(self, model: nn.Module, dataset: Dataset[Any], objective: Objective | None = None) -> Importance:
        """Importance of every parameter for a data set: name -> tensor of the parameter's shape."""
        objective = objective or guess_objective(model, dataset)
        if self.label_free:

            def size_of_output(m: nn.Module, batch: Batch) -> Tensor:
                return objective.forward(m, batch).flatten(1).square().sum(1).mean()

            return accumulate(model, dataset, objective, size_of_output, torch.abs, self.batch_size)
        return fisher_diagonal(model, dataset, objective, form=self.importance, batch_size=self.batch_size)

    def _importance_of_all(self, model: nn.Module, request: Request) -> Importance:
        if self.stored_importance is not None:
            return checked(self.stored_importance, model)
        if request.retain is None:
            raise NotApplicable(
                "ssd needs the retained data, or the importance of all training data as stored_importance."
            )
        # The order counts in batch form: retained data first, forget data last, as in the authors' code.
        return self.measure(model, ConcatDataset([request.retain, request.forget]), request.objective)

    def _weakest_that_forgets(
        self, model: nn.Module, request: Request, of_all: Importance, of_forget: Importance
    ) -> nn.Module:
        """The largest alpha of the grid whose forget score is at the target; the smallest when none is."""
        stop = self.target if self.target is not None else (0.05 if request.target is None else request.stop_score)
        untouched = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for alpha in GRID:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(untouched[name])
            scales = dampen(model, of_all, of_forget, float(alpha), self.lam)
            if request.objective.mean_score(model, request.forget) <= stop:
                break
        report(scales, float(alpha))
        return model

    claim = Claim(
        "forgets a class in one shot and leaves the others as they were, where gradient ascent damages them",
        on=("digits-class:forget=3", "digits-class:forget=8"),
        seeds=5,
        arms={
            "self": "ssd:alpha=auto:batch_size=32",
            "gradient-ascent": "gradient-ascent:lr=1e-4",
            "sample-form": "ssd:alpha=auto:importance=sample",
        },
        expects=[
            at_most("forget_score", 0.10),
            no_worse("test_score", than="original", by=0.02),
            custom(
                "gradient-ascent (same stopping rule) loses at least 3 points more test accuracy",
                lambda rows: rows["self"]["test_score"] - rows["gradient-ascent"]["test_score"] - 0.03,
                arms=("self", "gradient-ascent"),
            ),
        ],
        note="In two of the ten runs (class 8, seeds 2 and 3) the edit that forgets costs the other classes 23 and 33 "
        "points. The cause is the batch form of the importance: 97 forget samples make four batches of 32, "
        "whose mean gradients are those of a few hard samples, so weights are selected that have little to do with "
        "the class. With the textbook form (arm sample-form) the same two runs lose 1 and 2 points.",
    )


@torch.no_grad()
def dampen(
    model: nn.Module, of_all: Importance, of_forget: Importance, alpha: float, lam: float
) -> dict[str, tuple[int, float]]:
    """Scale the selected weights in place. Returns, per tensor, how many were selected and their mean factor."""
    done: dict[str, tuple[int, float]] = {}
    for name, parameter in model.named_parameters():
        if name not in of_forget:
            continue  # frozen: it has no gradient, so no importance
        selected = of_forget[name] > alpha * of_all[name]
        # Division after masking only: elsewhere both importances may be zero.
        factor = (lam * of_all[name][selected] / of_forget[name][selected]).clamp(max=1.0)
        parameter[selected] *= factor
        done[name] = (int(selected.sum()), float(factor.mean()) if len(factor) else 1.0)
    return done


def checked(stored: Importance, model: nn.Module) -> Importance:
    """The stored importance, if it belongs to this model."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    given = {name: tuple(value.shape) for name, value in stored.items()}
    wrong = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
    if wrong:
        raise BadInput(
            f"stored_importance does not belong to this model: names or shapes differ at {', '.join(wrong[:5])}. "
            "Measure it again with measure(model, training_data)."
        )
    return stored


def report(scales: dict[str, tuple[int, float]], alpha: float) -> None:
    count = sum(selected for selected, _ in scales.values())
    weighted = sum(selected * factor for selected, factor in scales.values())
    note(alpha=alpha, selected=count, mean_factor=weighted / count if count else 1.0)
    note(selected_per_tensor={name: selected for name, (selected, _) in scales.items()})

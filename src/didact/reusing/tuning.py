"""Adapting one model of a hub to the user's classes: a head for them, then fine-tuning on the few labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.fit import fit
from didact.core.objective.models import head_name
from didact.core.recipe import seeded
from didact.models.workpieces import cached, digest
from didact.reusing.request import ModelRecord, Request, fingerprint


def with_head(model: nn.Module, known: tuple[str, ...], classes: tuple[str, ...], seed: int = 0) -> nn.Module:
    """A copy of a network whose last linear layer has one output for each of `classes`, in their order.

    Rows of classes that the model already knows are kept, so a model of the same classes still predicts what it did;
    the other rows are freshly initialised.
    """
    made = copy.deepcopy(model)
    name = head_name(made)
    old = made.get_submodule(name)
    assert isinstance(old, nn.Linear)
    if known and len(known) != old.out_features:
        raise BadInput(
            f"The model is said to know {len(known)} classes, but its last linear layer {name!r} has "
            f"{old.out_features} outputs."
        )
    with seeded(seed):
        new = nn.Linear(old.in_features, len(classes), bias=old.bias is not None).to(old.weight.device)
    with torch.no_grad():
        for row, label in enumerate(classes):
            if label in known:
                new.weight[row] = old.weight[known.index(label)]
                if old.bias is not None:
                    new.bias[row] = old.bias[known.index(label)]
    made.set_submodule(name, new)
    architecture = getattr(model, "architecture", None)
    if isinstance(architecture, dict) and "outputs" in architecture["options"]:
        options = {**architecture["options"], "outputs": len(classes)}
        made.architecture = {**architecture, "options": options}  # type: ignore[assignment]
    return made


def fine_tuned(record: ModelRecord, request: Request, steps: int | None = None) -> nn.Module:
    """The model with a head for the task's classes, trained on the labelled samples within the budget."""
    model = with_head(record.network(), record.classes, request.task.classes, request.seed)
    return train(model, request, steps)


def train(model: nn.Module, request: Request, steps: int | None = None) -> nn.Module:
    """Train a network in place on the labelled samples of a request; returns it in evaluation mode."""
    budget = request.budget
    with seeded(request.seed + 1):
        fit(
            model,
            request.need_labelled(),
            request.task.objective,
            steps=budget.steps if steps is None else steps,
            batch_size=budget.batch_size,
            lr=budget.lr,
            seed=request.seed,
        )
    return model.eval()


def tuned_quality(request: Request, test: Dataset[Any]) -> Mapping[str, float]:
    """Test score of every network of the hub after fine-tuning on the labelled samples: what reusing it is worth.

    Trained once and cached. Cost: the budget's steps a model.
    """
    objective = request.task.objective
    data = digest(request.need_labelled())
    shape = tuple(next(iter(objective.loader(test, 1)))[0].shape[1:])
    found = {}
    for record in request.models:
        if record.input_shape and record.input_shape != shape:
            continue
        model = record.load()
        if not isinstance(model, nn.Module):
            continue
        blank = with_head(model, record.classes, request.task.classes, request.seed)
        budget = request.budget
        key = {"tuned": fingerprint(blank), "data": data, "seed": request.seed, "budget": vars(budget)}
        tuned = cached(key, lambda blank=blank: train(copy.deepcopy(blank), request), lambda blank=blank: blank)  # type: ignore[misc]
        found[record.id] = objective.mean_score(tuned, test)
    return found

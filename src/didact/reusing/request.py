"""What a reuse method gets: a hub of models, a task of one's own, a budget. And the checks before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification, Objective
from didact.core.recipe import Recipe


@dataclass(frozen=True, eq=False)
class ModelRecord:
    """A model of a hub: how to load it, and what is known about it without loading it."""

    id: str
    load: Callable[[], Any]  #: a network in evaluation mode, or an object with `predict(inputs) -> (N, outputs)`
    classes: tuple[str, ...] = ()  #: what the outputs mean, in order
    input_shape: tuple[int, ...] = ()  #: of one sample
    semantic: Any = None  #: a dock's semantic specification, or any mapping of tags
    specification: Any = None  #: a statistical summary of the training data, such as a reduced kernel mean embedding
    parameters: int = 0
    licence: str = ""
    base: str = ""  #: fingerprint of the ancestor's weights, when it was fine-tuned from one
    digest: str = ""  #: fingerprint of its own weights

    def network(self) -> nn.Module:
        """The model as a network; refuses what can only predict."""
        model = self.load()
        if not isinstance(model, nn.Module):
            raise NotApplicable(f"The model {self.id} can only predict, but its weights are needed here.")
        return model

    @classmethod
    def of(cls, model: nn.Module, id: str, **known: Any) -> ModelRecord:
        """The record of a network in memory. `load` hands out the same object: methods work on copies."""
        known.setdefault("parameters", sum(p.numel() for p in model.parameters()))
        known.setdefault("digest", fingerprint(model))
        return cls(id, lambda: model, **known)


@dataclass(frozen=True, eq=False)
class Task:
    """What a user wants a model for. Data holds (input, ...) samples; of unlabelled data targets are never read."""

    data: Dataset[Any] | None = None  #: unlabelled inputs of the user
    labelled: Dataset[Any] | None = None  #: a few (input, class index) pairs
    classes: tuple[str, ...] = ()  #: what the outputs of the answer must mean, in order
    objective: Objective = field(default_factory=Classification)
    #: constraints and wishes by name: `depths`, `max_parameters`, `tokenizer`, `max_latency`
    wants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """What may be spent on the user's side."""

    steps: int = 200  #: optimiser steps
    batch_size: int = 32
    lr: float = 1e-3
    evaluations: int = 100  #: models or configurations that may be tried on the user's labels


@dataclass(frozen=True, eq=False)
class Request:
    """The `given` of a reuse problem."""

    models: tuple[ModelRecord, ...]
    task: Task
    base: ModelRecord | None = None
    budget: Budget = field(default_factory=Budget)
    recipe: Recipe | None = None  #: how a model for this task would be trained from scratch
    seed: int = 0
    #: what only some methods use, by name: the problem documents it, a method names it in its card's `needs`
    extras: Mapping[str, Any] = field(default_factory=dict)

    def need_models(self, at_least: int = 1) -> tuple[ModelRecord, ...]:
        if len(self.models) < at_least:
            raise NotApplicable(f"At least {at_least} models are needed to reuse, but {len(self.models)} are given.")
        return self.models

    def need_base(self) -> ModelRecord:
        if self.base is None:
            raise NotApplicable("This method needs the common ancestor of the models: pass base=.")
        return self.base

    def need_labelled(self) -> Dataset[Any]:
        if self.task.labelled is None:
            raise NotApplicable("This method needs some labelled samples of the task: pass Task(labelled=...).")
        return self.task.labelled

    def need_data(self) -> Dataset[Any]:
        """Inputs of the user: the unlabelled ones, or those of the labelled samples."""
        data = self.task.data if self.task.data is not None else self.task.labelled
        if data is None:
            raise NotApplicable("This method needs inputs of the task: pass Task(data=...).")
        return data

    def need_recipe(self) -> Recipe:
        if self.recipe is None:
            raise NotApplicable("This method trains a model anew and needs to know how: pass recipe=.")
        return self.recipe

    def want(self, name: str) -> Any:
        if name not in self.task.wants:
            raise NotApplicable(f"This method needs to know {name!r} of the task: pass Task(wants={{{name!r}: ...}}).")
        return self.task.wants[name]

    def need(self, name: str) -> Any:
        """One of the extras."""
        if name not in self.extras:
            raise NotApplicable(f"This method needs {name!r} beyond the task: pass extras={{{name!r}: ...}}.")
        return self.extras[name]


def as_records(models: Iterable[ModelRecord | nn.Module]) -> tuple[ModelRecord, ...]:
    """Records of models, also of bare networks, which are numbered."""
    return tuple(
        model if isinstance(model, ModelRecord) else ModelRecord.of(model, f"model-{i:02}")
        for i, model in enumerate(models)
    )


def check(request: Request) -> None:
    """Refuse what no method can work with, before any work."""
    ids = [record.id for record in request.models]
    double = sorted({i for i in ids if ids.count(i) > 1})
    if double:
        raise BadInput(f"Every model of a hub needs an id of its own, but {', '.join(double)} occurs more than once.")
    for name, data in (("data", request.task.data), ("labelled", request.task.labelled)):
        if data is not None and len(data) == 0:  # type: ignore[arg-type]
            raise BadInput(f"Task({name}=...) is empty. Give at least one sample, or leave it out.")
    if request.task.labelled is not None and request.task.classes:
        _check_labels(request.task)


def _check_labels(task: Task) -> None:
    labels = torch.cat([task.objective.targets(b) for b in task.objective.loader(task.labelled, 1024)])  # type: ignore[arg-type]
    if labels.is_floating_point() or labels.ndim != 1:
        raise BadInput("The labelled samples of a task with classes must have class indices, one whole number each.")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= len(task.classes)):
        raise BadInput(
            f"Labels from 0 to {len(task.classes) - 1} were expected for {len(task.classes)} classes, but they go from "
            f"{int(labels.min())} to {int(labels.max())}."
        )


def fingerprint(model: nn.Module) -> str:
    """Hash of a model's weights and buffers by name. Cost: one pass over them."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        sha.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.flatten().view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return sha.hexdigest()[:24]


def same_shape(models: Sequence[ModelRecord], shape: tuple[int, ...]) -> tuple[ModelRecord, ...]:
    """The models that take inputs of this shape, or do not say what they take."""
    return tuple(record for record in models if not record.input_shape or record.input_shape == shape)

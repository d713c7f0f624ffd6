"""What the dock's reusers work on: a user's inputs, a few labels perhaps, and what the answer must mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from didact.core.batches import materialise
from didact.core.errors import BadInput, NotApplicable
from didact.reusing.request import Request

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Case:
    """A user's task in memory. Inputs are arrays (n, ...) or lists of n texts."""

    inputs: Any
    classes: tuple[str, ...] = ()  #: what the answer's outputs must mean, in order; empty: what the models know
    labelled: Any = None  #: inputs of the samples with labels
    targets: NDArray[Any] | None = None  #: their labels: indices of classes, or numbers
    regression: bool = False
    seed: int = 0

    @classmethod
    def of(cls, request: Request) -> Case:
        task = request.task
        if task.objective.task not in ("classification", "regression"):
            raise NotApplicable(f"Learnwares are reused to classify or to regress, but this is {task.objective.task}.")
        labelled = targets = None
        if task.labelled is not None:
            labelled, targets = (part.numpy() for part in materialise(task.labelled)[:2])
        inputs = materialise(request.need_data())[0].numpy()
        return cls(inputs, task.classes, labelled, targets, task.objective.task == "regression", request.seed)

    def need_labels(self) -> tuple[Any, NDArray[Any]]:
        if self.targets is None:
            raise NotApplicable("This reuser learns from a few labelled samples of the task: give some.")
        return self.labelled, self.targets

    def need_classes(self) -> tuple[str, ...]:
        if not self.classes and not self.regression:
            raise NotApplicable("The classes of the task are not named, so that models cannot be brought together.")
        return self.classes


def vectors_of(inputs: Any, encoder: str = "") -> Array:
    """The vectors (n, d) in which specifications are made: raw values, flattened, or what an encoder makes of them."""
    if not encoder:
        rows = np.asarray(inputs.detach().cpu() if isinstance(inputs, torch.Tensor) else inputs)
        if rows.dtype.kind not in "iufb":
            raise BadInput("Numbers were expected. For texts reuse learnwares that are specified by a text encoder.")
        return rows.reshape(len(rows), -1).astype(np.float64)
    from didact.reusing.dock.specification.encoders import encoder_for

    made_by = encoder_for(kind_of(inputs), encoder)
    assert made_by is not None
    return made_by.encode(np.asarray(inputs) if kind_of(inputs) == "Image" else list(inputs))


def kind_of(inputs: Any) -> str:
    """Text for strings, Table for rows of numbers, Image for all else."""
    if len(inputs) and isinstance(inputs[0], str):
        return "Text"
    return "Table" if np.ndim(inputs) <= 2 else "Image"

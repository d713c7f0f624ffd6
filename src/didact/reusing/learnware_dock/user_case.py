"""A user's case from what `reuse_from` was given: arrays or texts, labels as names or places, classes or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found


def case_from(inputs: Any, labelled: Any, classes: Sequence[str] | None, found: Found, seed: int) -> Case:
    """The user's case; classes that were not given are the labels' names, or what the learnwares in use know."""
    regression = getattr(found.records[0].semantic, "task", "") == "Regression"
    if regression:
        few = None if labelled is None else inputs_from(labelled[0])
        numbers = None if labelled is None else np.asarray(labelled[1], dtype=np.float64)
        return Case(inputs, (), few, numbers, True, seed)
    names = tuple(classes or ())
    if labelled is None:
        return Case(inputs, names or _known(found), seed=seed)
    labels = np.asarray(labelled[1])
    if not names:
        names = tuple(sorted(set(labels.tolist()))) if labels.dtype.kind in "US" else _known(found)
    return Case(inputs, names, inputs_from(labelled[0]), _places(labels, names), seed=seed)


def inputs_from(data: Any) -> Any:
    if isinstance(data, torch.Tensor):
        return data.detach().cpu().numpy()
    if isinstance(data, (list, tuple)) and data and isinstance(data[0], str):
        return list(data)
    array = np.asarray(data)
    if array.dtype.kind in "US":
        return array.tolist()
    if array.dtype.kind not in "iufb" or array.ndim < 2:
        raise BadInput(
            f"Data are (n, columns) numbers, (n, ...) images or n texts; an array of {array.dtype} with the shape "
            f"{array.shape} was given."
        )
    return array


def _known(found: Found) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name for record in found.chosen for name in record.classes))
    if not names:
        raise BadInput("The learnwares found do not say what their outputs mean: pass classes=, the names in order.")
    return names


def _places(labels: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels as places in the names, whether they came as names or as places."""
    if labels.ndim != 1:
        raise BadInput(f"Labels are one for each sample, but an array of shape {labels.shape} was given.")
    if labels.dtype.kind in "US":
        unknown = sorted(set(labels.tolist()) - set(names))
        if unknown:
            raise BadInput(f"The labels must be among {', '.join(names)}; {', '.join(unknown[:5])} came too.")
        return np.array([names.index(label) for label in labels.tolist()], dtype=np.int64)
    if labels.dtype.kind not in "iu" or labels.min(initial=0) < 0 or labels.max(initial=0) >= len(names):
        raise BadInput(
            f"Labels are names of classes or whole numbers from 0 to {len(names) - 1}, their places, but "
            f"{', '.join(repr(label) for label in labels[:3].tolist())}, ... were given."
        )
    return labels.astype(np.int64)

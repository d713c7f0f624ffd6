"""Data sets of the Hugging Face hub, or a local folder laid out like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput


def from_hub(
    name: str,
    split: str = "train",
    *,
    subset: str | None = None,
    revision: str | None = None,
    x: str | None = None,
    y: str | None = None,
    limit: int | None = None,
) -> Any:
    """Load one part of a data set by its hub name ("user/name") or the path of a local folder of data files.

    Without ``x`` and ``y`` the ``datasets.Dataset`` itself is returned, in torch format, memory-mapped from
    disk. With both, the two columns become a ``TensorDataset``: numbers as they are (floats as float32),
    images as float32 (channels, height, width) in [0, 1], text classes as int64 in alphabetical order. That
    copies the part into memory; ``limit`` keeps its first so many rows. ``revision`` pins a hub version.

    Raises BadInput when the data set, part or column does
    not exist or a column cannot be stacked (for example images of different sizes). Needs a network for hub
    names that are not cached yet.
    """
    import datasets

    if (x is None) != (y is None):
        raise BadInput("Name both columns, x and y, or neither.")
    if limit is not None and limit < 1:
        raise BadInput(f"limit is a number of rows of at least 1, but {limit!r} was given.")
    try:
        part = datasets.load_dataset(name, subset, split=split, revision=revision)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise BadInput(f"The part {split!r} of the data set {name!r} could not be loaded: {error}") from error
    if limit is not None:
        part = part.select(range(min(limit, len(part))))
    if x is None or y is None:
        return part.with_format("torch")
    for column in (x, y):
        if column not in part.column_names:
            known = ", ".join(part.column_names)
            raise BadInput(f"The data set {name!r} has no column {column!r}. The columns are {known}.")
    return TensorDataset(_column(name, x, part[x]), _column(name, y, part[y]))


def _column(name: str, column: str, cells: Any) -> Tensor:
    cells = list(cells)
    if cells and isinstance(cells[0], str):
        return torch.from_numpy(np.unique(cells, return_inverse=True)[1].astype(np.int64))
    try:
        stacked = np.stack([_picture(cell) if hasattr(cell, "getbands") else np.asarray(cell) for cell in cells])
    except ValueError:
        raise BadInput(
            f"The cells of column {column!r} of {name!r} have different shapes; resize them first."
        ) from None
    if stacked.dtype.kind not in "biuf":
        raise BadInput(f"The column {column!r} of {name!r} holds {stacked.dtype}, but numbers or images are needed.")
    tensor = torch.from_numpy(stacked)
    return tensor.float() if tensor.is_floating_point() else tensor


def _picture(image: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = np.asarray(image, dtype=np.float32) / 255.0
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

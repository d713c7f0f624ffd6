"""A user's data file: arrays or texts, with or without labels."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput

Kind = Literal["Table", "Image", "Text"]


@dataclass(frozen=True, eq=False)
class DataFile:
    """What was in a file."""

    inputs: Any  #: array (n, ...), or a list of n texts
    labels: NDArray[Any] | None = None
    columns: tuple[str, ...] = ()  #: names of a table's columns

    @property
    def kind(self) -> Kind:
        if isinstance(self.inputs, list):
            return "Text"
        return "Table" if self.inputs.ndim <= 2 else "Image"


def read_data(path: Path, target: str | None = None, *, labels: bool = False) -> DataFile:
    """By its ending: npz with `x` (and `y`), csv or parquet with numeric columns, jsonl with `text` (and `label`).

    `target` names another column, array or field for the labels; with `labels` they must be there.
    """
    readers = {".npz": _npz, ".csv": _table, ".parquet": _table, ".jsonl": _texts}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path}: files that end in {', '.join(readers)} can be read, not {path.suffix!r}.")
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    found = reader(path, target)
    if labels and found.labels is None:
        raise BadInput(f"{path}: labels are needed, but there are none. Say with --target where they are.")
    return found


def _npz(path: Path, target: str | None) -> DataFile:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise BadInput(f"{path}: this is no .npz file of plain arrays ({error}).") from None
    if "x" not in arrays:
        raise BadInput(f"{path}: the array 'x' is missing; the file has {', '.join(arrays) or 'no arrays'}.")
    if target is not None and target not in arrays:
        raise BadInput(f"{path}: there is no array {target!r}; the file has {', '.join(arrays)}.")
    if arrays["x"].dtype.kind not in "biuf":
        raise BadInput(f"{path}: the array 'x' holds {arrays['x'].dtype}, but numbers are needed.")
    return DataFile(arrays["x"], arrays.get(target or "y"))


def _table(path: Path, target: str | None) -> DataFile:
    import pandas

    try:
        table = pandas.read_csv(path) if path.suffix.lower() == ".csv" else pandas.read_parquet(path)
    except (ValueError, OSError) as error:
        raise BadInput(f"{path}: this cannot be read as a table ({error}).") from None
    labels = None
    if target is not None:
        if target not in table.columns:
            raise BadInput(f"{path}: there is no column {target!r}. The columns are {', '.join(table.columns)}.")
        labels = _labels(path, target, table.pop(target))
    for name, column in table.items():
        if not pandas.api.types.is_numeric_dtype(column):
            raise BadInput(f"{path}: the column {name!r} must be numeric. If it holds labels, use --target {name}.")
    return DataFile(table.to_numpy(np.float64), labels, tuple(map(str, table.columns)))


def _labels(path: Path, target: str, column: Any) -> NDArray[Any]:
    """Numbers, or names as an array of strings: pandas would give objects."""
    import pandas

    if column.isna().any():
        raise BadInput(f"{path}: the column {target!r} has {int(column.isna().sum())} rows without a label.")
    if pandas.api.types.is_numeric_dtype(column):
        return np.asarray(column.to_numpy())
    return np.array([str(value) for value in column])


def _texts(path: Path, target: str | None) -> DataFile:
    texts: list[str] = []
    labels: list[Any] = []
    field = target or "label"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts.append(str(row["text"]))
        except (ValueError, TypeError, KeyError):
            raise BadInput(f"{path}, line {number}: a JSON object with the field 'text' was expected.") from None
        if field in row:
            labels.append(row[field])
    if labels and len(labels) != len(texts):
        raise BadInput(f"{path}: {len(labels)} of {len(texts)} lines have the field {field!r}; all or none must.")
    return DataFile(texts, np.asarray(labels) if labels else None)

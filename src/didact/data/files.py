"""A user's own data files as torch data sets, and back. Nothing is ever unpickled."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from didact.core.errors import BadInput


class TableDataset(TensorDataset):
    """Features x: float32 (columns,) and a target y: int64 class or float32 number, with the columns' names.

    ``class_names`` are the target's texts in the order of the classes; empty where the target was numeric.
    """

    def __init__(self, x: Tensor, y: Tensor, feature_names: Sequence[str], class_names: Sequence[str]) -> None:
        super().__init__(x, y)
        self.feature_names = tuple(feature_names)
        self.class_names = tuple(class_names)


class Records(Dataset[dict[str, Any]]):
    """A list of dicts, one a line of a JSON Lines file."""

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def load_dataset_file(path: str | Path, *, target: str | None = None) -> Any:
    """Read a data file, by its ending.

    - ``.npz``, ``.safetensors``: arrays ``x`` (N, ...) and ``y`` (N, ...) -> ``TensorDataset``. Floats become
      float32, whole numbers of y int64; x keeps uint8. ``target`` names another array than ``y``.
    - ``.csv`` (with a header), ``.parquet``: the column ``target`` is y, all others must be numeric
      -> ``TableDataset``. Text targets become classes in alphabetical order; whole numbers are classes too.
    - ``.jsonl``: one JSON object a line -> ``Records`` of dicts; ``target``, if given, must be in each.
    - a folder written by Hugging Face ``save_to_disk`` -> its ``datasets.Dataset`` in torch format.

    The whole file is read into memory, except for the folder, which stays on disk. Raises BadInput naming the
    file (and the line of a csv or jsonl file) when something is missing or malformed.
    """
    path = Path(path)
    if path.is_dir():
        return _saved_to_disk(path, target)
    readers: dict[str, Callable[[Path, str | None], Any]] = {
        ".npz": _npz,
        ".safetensors": _safetensors,
        ".csv": _csv,
        ".parquet": _parquet,
        ".jsonl": _jsonl,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadInput(f"{path}: files that end in {', '.join(readers)} can be read, not {path.suffix!r}.")
    if not path.is_file():
        raise BadInput(f"There is no file {path}.")
    return reader(path, target)


def save_dataset_file(dataset: Dataset[Any], path: str | Path) -> Path:
    """Write (x, y) pairs of equal shapes as ``.npz`` with arrays ``x`` and ``y``; returns the path."""
    path = Path(path)
    if path.suffix != ".npz":
        raise BadInput(f"Data sets are written as .npz files, but {path} was given.")
    tensors = getattr(dataset, "tensors", None)
    if tensors is None:
        pairs = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
        if not pairs or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            raise BadInput("Only data sets whose items are (x, y) pairs, at least one, can be written as .npz.")
        tensors = [torch.stack([torch.as_tensor(pair[i]) for pair in pairs]) for i in (0, 1)]
    if len(tensors) != 2:
        raise BadInput(f"Only data sets of (x, y) pairs can be written, but the items have {len(tensors)} parts.")
    np.savez_compressed(path, x=tensors[0].numpy(force=True), y=tensors[1].numpy(force=True))
    return path


def _npz(path: Path, target: str | None) -> TensorDataset:
    try:
        with np.load(path, allow_pickle=False) as file:
            return _pair(path, {name: file[name] for name in file.files}, target)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}: this is no .npz file of plain arrays ({error}).") from None


def _safetensors(path: Path, target: str | None) -> TensorDataset:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _pair(path, load_file(path), target)
    except SafetensorError as error:
        raise BadInput(f"{path}: this is no safetensors file ({error}).") from None


def _pair(path: Path, arrays: Mapping[str, Any], target: str | None) -> TensorDataset:
    label = target or "y"
    for name in ("x", label):
        if name not in arrays:
            raise BadInput(f"{path}: the array {name!r} is missing; the file has {', '.join(arrays) or 'no arrays'}.")
    x, y = (_tensor(path, name, arrays[name]) for name in ("x", label))
    if x.ndim < 1 or y.ndim < 1 or len(x) != len(y):
        raise BadInput(
            f"{path}: x and {label} must be equally long, but have shapes {tuple(x.shape)}, {tuple(y.shape)}."
        )
    return TensorDataset(x, y if y.is_floating_point() else y.long())


def _tensor(path: Path, name: str, array: Any) -> Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biuf":
            raise BadInput(f"{path}: the array {name!r} holds {array.dtype}, but numbers are needed.")
        array = torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    tensor: Tensor = array
    return tensor.float() if tensor.is_floating_point() else tensor


def _csv(path: Path, target: str | None) -> TableDataset:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        names = next(reader, [])
        place = _target_place(path, names, target)
        features: list[list[float]] = []
        targets: list[str] = []
        for row in reader:
            if not row:
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                raise BadInput(f"{where}: expected {len(names)} values as in the header, but found {len(row)}.")
            targets.append(row[place])
            features.append([_number(where, names[i], text) for i, text in enumerate(row) if i != place])
    if not targets:
        raise BadInput(f"{path}: there are no rows below the header.")
    kept = [name for i, name in enumerate(names) if i != place]
    return _table(np.array(features, dtype=np.float32).reshape(len(targets), -1), _typed(targets), kept)


def _parquet(path: Path, target: str | None) -> TableDataset:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path}: this is no parquet file ({error}).") from None
    place = _target_place(path, table.column_names, target)
    kept = [name for i, name in enumerate(table.column_names) if i != place]
    columns = [table[name].to_numpy() for name in kept]
    for name, column in zip(kept, columns, strict=True):
        if column.dtype.kind not in "biuf" or table[name].null_count:
            raise BadInput(f"{path}: the column {name!r} must be numeric without gaps, but it is {table[name].type}.")
    if table[table.column_names[place]].null_count:
        raise BadInput(f"{path}: the target column {table.column_names[place]!r} has gaps.")
    x = np.stack(columns, axis=1).astype(np.float32) if columns else np.zeros((table.num_rows, 0), np.float32)
    y = table[table.column_names[place]].to_pylist()
    return _table(x, _typed([str(value) for value in y]) if y and isinstance(y[0], str) else np.asarray(y), kept)


def _target_place(path: Path, names: Sequence[str], target: str | None) -> int:
    if target is None:
        raise BadInput(f"{path}: say which column is the target (target=...). The columns are {', '.join(names)}.")
    if target not in names:
        raise BadInput(f"{path}: there is no column {target!r}. The columns are {', '.join(names)}.")
    return list(names).index(target)


def _number(where: str, column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{where}: the column {column!r} must be numeric, but holds {text!r}.") from None


def _typed(texts: Iterable[str]) -> NDArray[Any]:
    """Whole numbers where all texts are, else numbers where all are, else texts."""
    found = np.array(list(texts))
    for kind in (np.int64, np.float64):
        try:
            return found.astype(kind)
        except ValueError:
            continue
    return found


def _table(x: NDArray[np.float32], y: NDArray[Any], names: Sequence[str]) -> TableDataset:
    classes: list[str] = []
    if y.dtype.kind not in "biuf":
        texts, y = np.unique(y, return_inverse=True)
        classes = [str(text) for text in texts]
    target = torch.from_numpy(y.astype(np.float32 if y.dtype.kind == "f" else np.int64))
    return TableDataset(torch.from_numpy(x), target, names, classes)


def _jsonl(path: Path, target: str | None) -> Records:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                rows.append(_record(f"{path}, line {number}", line, target))
    return Records(rows)


def _record(where: str, line: str, target: str | None) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: this is not JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(row, dict):
        raise BadInput(f"{where}: expected a JSON object, but found {type(row).__name__}.")
    if target is not None and target not in row:
        raise BadInput(f"{where}: the field {target!r} is missing. The fields are {', '.join(row)}.")
    return row


def _saved_to_disk(path: Path, target: str | None) -> Any:
    import datasets

    if (path / "dataset_dict.json").is_file():
        parts = ", ".join(sorted(part.name for part in path.iterdir() if part.is_dir()))
        raise BadInput(f"{path} holds several parts: name one of its folders ({parts}), as {path}/<part>.")
    try:
        dataset = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: this is no folder written by save_to_disk ({error}).") from None
    if target is not None and target not in dataset.column_names:
        raise BadInput(f"{path}: there is no column {target!r}. The columns are {', '.join(dataset.column_names)}.")
    return dataset.with_format("torch")

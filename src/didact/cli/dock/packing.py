"""A model's file or folder as what `write_package` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from didact.core.errors import BadInput


def readable_model(path: Path) -> Any:
    """A network from a didact folder, the path of an ONNX file or of a folder of code, a fitted estimator from skops.

    Nothing is unpickled: other formats are refused with what to use in their place.
    """
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise BadInput(f"There is no file or folder {path}.")
    if path.suffix == ".onnx":
        return path
    if path.suffix == ".skops":
        return _from_skops(path)
    raise BadInput(
        f"{path}: a model is a folder that didact saved, a folder of Python code, .onnx or .skops, not "
        f"{path.suffix!r}. Pickles are never read; save scikit-learn models with skops and others as ONNX."
    )


def _from_folder(path: Path) -> Any:
    if any(path.glob("*.safetensors")):
        from didact.models.artifacts import load

        return load(path)
    if any(path.glob("*.py")):
        return path
    raise BadInput(f"{path}: this folder holds neither a model that didact saved nor Python code.")


def _from_skops(path: Path) -> Any:
    from didact.reusing.dock.runtimes.scikit_learn import load

    return load(path.read_bytes())

"""The author's own Python class. Imported by the sandbox's worker and nowhere else."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np

from didact.reusing.dock.package.manifest import Code
from didact.reusing.dock.package.opening import Package
from didact.reusing.dock.runtimes.base import Learnware
from didact.reusing.dock.sandbox.failures import SandboxFailure

_NAME = "learnware_package"


class CodeLearnware(Learnware):
    """An instance of the class that the manifest names, from files unpacked into `folder`."""

    def __init__(self, package: Package, folder: Path) -> None:
        model = package.manifest.model
        assert isinstance(model, Code)
        home = folder / "package"
        home.mkdir()
        package.extract(home)
        made = getattr(_import(home, model.file), model.class_name, None)
        if not inspect.isclass(made):
            raise SandboxFailure("load-error", f"{model.file} has no class {model.class_name!r}.")
        self._model: Any = made(**model.kwargs)
        super().__init__(
            package,
            _shape(self._model, "input_shape", package.input_shape),
            _shape(self._model, "output_shape", package.output_shape),
        )

    def fit(self, x: Any, y: np.ndarray) -> None:
        if not callable(getattr(self._model, "fit", None)):
            raise self._cannot("be trained: its class has no `fit`")
        self._model.fit(self._checked(x), y)

    def finetune(self, x: Any, y: np.ndarray, epochs: int = 10, lr: float = 1e-3) -> None:
        if not callable(method := getattr(self._model, "finetune", None)):
            raise self._cannot("be trained on: its class has no `finetune`")
        known = inspect.signature(method).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        method(self._checked(x), y, **{k: v for k, v in {"epochs": epochs, "lr": lr}.items() if anything or k in known})

    def _predict(self, inputs: Any) -> np.ndarray:
        outputs = self._model.predict(inputs)
        if hasattr(outputs, "detach"):
            outputs = outputs.detach().cpu().numpy()
        array = np.asarray(outputs)
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise SandboxFailure("wrong-output-type", f"`predict` returned {type(outputs).__name__} of {array.dtype}.")
        return array


def _import(home: Path, file: str) -> Any:
    """The module in `file`; as a package when it is an __init__.py, so that it may import its neighbours."""
    sys.path.insert(0, str(home))
    path = home / file
    inner = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(_NAME, path, submodule_search_locations=inner)
    if spec is None or spec.loader is None:
        raise SandboxFailure("load-error", f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module


def _shape(model: Any, name: str, declared: tuple[int, ...] | None) -> tuple[int, ...]:
    """What the class says must be what the manifest says, where both say something."""
    said, word = getattr(model, name, None), name.replace("_", "-")
    if said is None:
        if declared is None:
            raise SandboxFailure(f"no-{word}", f"Neither the class nor the manifest tells {name}.")
        return declared
    try:
        shape = tuple(int(length) for length in (said if isinstance(said, tuple | list) else (said,)))
    except (TypeError, ValueError):
        shape = (-1,)
    if any(length < 1 or length > 2**24 for length in shape):
        raise SandboxFailure(f"wrong-{word}", f"{name} must be a tuple of lengths, not {said!r:.100}.")
    if declared is not None and shape != declared:
        raise SandboxFailure(f"wrong-{word}", f"The class says {name} {shape}, the manifest {declared}.")
    return shape

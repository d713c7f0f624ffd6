"""Runtimes: what loads the models of packages. The library of a runtime is imported when it is first used.

`torch`: safetensors for an architecture that didact builds by name. `onnx`: a graph without outside data. `skops`: a
scikit-learn estimator of known types. `python`: the author's own class, inside the sandbox only.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from didact.reusing.dock.errors import NotAllowed
from didact.reusing.dock.runtimes.base import Learnware

if TYPE_CHECKING:
    from didact.reusing.dock.package import Package

__all__ = ["Learnware", "load_here", "load_inside"]


def load_here(package: Package) -> Learnware:
    """Load a safe package in this process.

    Errors: BadPackage when the model is not what the manifest says; NotAllowed for code.
    """
    runtime = package.manifest.runtime
    if runtime == "torch":
        from didact.reusing.dock.runtimes.pytorch import TorchLearnware

        return TorchLearnware(package)
    if runtime == "onnx":
        from didact.reusing.dock.runtimes.onnx_graph import OnnxLearnware

        return OnnxLearnware(package)
    if runtime == "skops":
        from didact.reusing.dock.runtimes.scikit_learn import SklearnLearnware

        return SklearnLearnware(package)
    raise NotAllowed("code-not-allowed", "The code of a package is run in the sandbox only.")


def load_inside(package: Package, folder: Path) -> Learnware:
    """Load any package. Called by the sandbox's worker, and by nothing else: code is imported here."""
    if package.tier == "safe":
        return load_here(package)
    from didact.reusing.dock.runtimes.python_code import CodeLearnware

    return CodeLearnware(package, folder)

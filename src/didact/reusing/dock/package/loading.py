"""Loading a package: from a file to something that predicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from didact.reusing.dock.errors import NotAllowed
from didact.reusing.dock.package.opening import Package, open_package
from didact.reusing.dock.runtimes import load_here
from didact.reusing.dock.runtimes.base import Learnware

if TYPE_CHECKING:
    from didact.reusing.dock.sandbox import Sandbox


def load_package(
    package: Package | str | Path, *, allow_code: bool = False, sandbox: Sandbox | None = None
) -> Learnware:
    """The model of a package, ready to predict.

    A safe package is loaded in this process: weights for a registered architecture, an ONNX graph, or a scikit-learn
    estimator made of known types. Code is only ever run in a sandbox, and only when `allow_code` says so; with a
    `sandbox` given, a safe package runs in it too.

    Errors: BadPackage when the model is not what the manifest says; NotAllowed `code-not-allowed` for a package with
    code; NoSandbox where no sandbox is strong enough for it; SandboxFailure when it fails there.
    """
    package = package if isinstance(package, Package) else open_package(package)
    if package.tier == "code" and not allow_code:
        raise NotAllowed(
            "code-not-allowed",
            "This package holds Python code of its author. Pass allow_code=True to run it in the sandbox.",
        )
    if package.tier == "safe" and sandbox is None:
        return load_here(package)
    from didact.reusing.dock.runtimes.remote import SandboxedLearnware
    from didact.reusing.dock.sandbox import Sandbox

    return SandboxedLearnware(package, sandbox or Sandbox())

"""Class Sandbox: which isolation this machine allows, with which limits packages are run."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from didact.reusing.dock.sandbox.environments import environment_of
from didact.reusing.dock.sandbox.failures import NoSandbox, SandboxFailure
from didact.reusing.dock.sandbox.frames import Arrays
from didact.reusing.dock.sandbox.launcher import NOBODY
from didact.reusing.dock.sandbox.session import Session

if TYPE_CHECKING:
    from didact.reusing.dock.package import Package

Isolation = Literal["namespaces", "user-namespaces", "limits", "none"]

#: runtime -> what the worker imports before the package's memory is counted
_PRELOAD: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "safetensors.torch", "didact.models.small"),
    "onnx": ("onnx", "onnxruntime"),
    "skops": ("sklearn", "skops.io"),
    "python": (),
}
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "PyTorch": ("torch",),
    "ONNX": ("onnxruntime",),
    "scikit-learn": ("sklearn",),
}
#: architectures that need no family of methods to be imported; all others do, and that takes seconds
_PLAIN = ("mlp", "convnet")
_OURS = ("didact", "numpy", "yaml", "pydantic", "scipy", "torch", "sklearn", "skops", "onnxruntime", "safetensors")


@dataclass(frozen=True)
class Limits:
    """What one worker may use."""

    timeout: float = 1800.0  #: seconds until an answer must have come, loading included
    cpu: int = 1800  #: seconds of processor time
    memory: int = 4 * 2**30  #: bytes, beyond what the libraries take
    files: int = 256 * 2**20  #: bytes of its scratch folder, and of each file in it
    processes: int = 128  #: processes and threads
    answer: int = 2**28  #: bytes of one answer
    log: int = 2**16  #: bytes kept of what it writes to standard output and error


@dataclass(frozen=True)
class Sandbox:
    """Runs packages in a process of their own.

    With namespaces (Linux; as root, or where users may make them) the worker has no network, sees no process but its
    own and no file but Python's, read-only, and a scratch folder in memory. Without them there are still limits, an
    empty environment, a folder of its own and (on x86-64 and arm64) a filter that refuses sockets, but the
    machine's files can be read: packages with code are refused then, unless `allow_weak_sandbox` is set. What a
    machine allows is tried out once, not guessed.

    Errors: `NoSandbox` when there is no isolation, or not enough for what is run; `SandboxFailure` when a run fails.

    Cost: starting a worker takes a fraction of a second, and the import of the package's library on top of it.
    """

    limits: Limits = Limits()
    isolation: Isolation | Literal["auto"] = "auto"  #: "auto": the strongest that works here
    allow_weak_sandbox: bool = False  #: run packages with code also without namespaces
    environments: Path | None = None  #: where to install the requirements of packages; None: never

    @property
    def strength(self) -> Isolation:
        """The isolation that runs get."""
        return _strongest()[0] if self.isolation == "auto" else self.isolation if _works(self.isolation) else "none"

    @property
    def admits_code(self) -> bool:
        """Whether packages with code of their own are run here."""
        return self.strength.endswith("namespaces") or (self.strength == "limits" and self.allow_weak_sandbox)

    def explain(self) -> str:
        """One sentence for the operator."""
        if self.strength == "none":
            return "This machine offers no sandbox, so no package can be checked. Run the dock on Linux."
        if self.strength == "limits":
            taken = "are run all the same, as asked" if self.allow_weak_sandbox else "are refused"
            return f"Packages run with limits but can read this machine's files; packages with code {taken}."
        return "Packages run without network and without a view of this machine's files and processes."

    def run(
        self, package: Package, command: str, arrays: Mapping[str, np.ndarray] | None = None, **options: Any
    ) -> Arrays:
        """Load a package in a fresh worker, ask it one thing ("predict" with `x`) and end it."""
        with self.session(package) as session:
            return session.call(command, arrays, **options)[1]

    def session(self, package: Package) -> Session:
        """A worker with the package loaded.

        Errors: `NoSandbox`; `SandboxFailure` when the package cannot be loaded.
        """
        strength = self.strength
        if strength == "none":
            raise NoSandbox(self.explain())
        if package.tier == "code" and not self.admits_code:
            raise NoSandbox(
                "This package holds code, which is run only without a view of this machine; that needs Linux "
                "namespaces, which this machine does not allow. Allow them, or set allow_weak_sandbox and trust what "
                "is submitted."
            )
        python = environment_of(package, self.environments) if self.environments else Path(sys.executable)
        model = package.manifest.model
        whole = model.runtime == "torch" and model.architecture not in _PLAIN
        # Code is unpacked into the scratch folder: that much room is not the model's to use, but the package's.
        unpacked = sum(package.files.values()) if package.tier == "code" else 0
        session = self._start(strength, python, str(package.path.resolve()), whole=whole, unpacked=unpacked)
        try:
            wanted = (*_PRELOAD[package.manifest.runtime], *_LIBRARIES.get(package.semantic.library, ()))
            preload = [name for name in wanted if find_spec(name.partition(".")[0])]
            session.about, _ = session.call("load", preload=preload, memory=self.limits.memory)
        except BaseException:
            session.close()
            raise
        return session

    def _start(
        self, strength: Isolation, python: Path, package: str | None, *, whole: bool, unpacked: int = 0
    ) -> Session:
        limits = self.limits
        unprivileged = strength == "namespaces" or (strength == "limits" and _drops())
        plan = {
            "isolation": strength,
            "drop": NOBODY if unprivileged else 0,  # the user id to become
            "libraries": _libraries(python),
            "package": package,
            "python": str(python),
            "worker": _program("didact.reusing.dock.sandbox.worker", stubs=() if whole else ("didact.reusing",)),
            "environment": _environment(),
            "cpu": limits.cpu,
            "files": limits.files + unpacked,
            "processes": limits.processes,
            "resident": limits.memory + 2**30,
        }
        room = "didact.reusing.dock.sandbox"
        parents = ("didact", "didact.reusing", "didact.reusing.dock", room)
        command = [sys.executable, "-I", "-S", "-B", "-c", _program(f"{room}.launcher", stubs=parents)]
        return Session(plan, command, timeout=limits.timeout, answer=limits.answer, log=limits.log)


@cache
def _strongest() -> tuple[Isolation]:
    kinds: tuple[Isolation, ...] = ("namespaces", "user-namespaces", "limits")
    return (next((kind for kind in kinds if _works(kind)), "none"),)


@cache
def _works(strength: Isolation) -> bool:
    """Try it: isolation is there when a worker cannot reach a port and a file that it would reach otherwise."""
    if strength == "none" or (strength == "namespaces" and not _is_root()):
        return False
    if strength != "limits" and sys.platform != "linux":
        return False
    seen = _probe(strength)
    if seen is None:
        return False
    return strength == "limits" or not (seen["network"] or seen["files"])


def _probe(strength: Isolation) -> dict[str, Any] | None:
    sandbox = Sandbox(Limits(timeout=60.0))
    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile() as canary:
        Path(canary.name).chmod(0o644)
        try:
            with sandbox._start(strength, Path(sys.executable), None, whole=False) as session:
                return session.call("probe", port=server.getsockname()[1], file=canary.name)[0]
        except (NoSandbox, SandboxFailure):
            return None


@cache
def _drops() -> bool:
    """Whether an unprivileged user can run this Python at all (not when it is installed in root's own folder)."""
    return _is_root() and all(_readable_by_all(Path(folder)) for folder in _libraries(Path(sys.executable)))


def _readable_by_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents) if folder.exists())


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _libraries(python: Path) -> list[str]:
    """Folders with Python, its packages and didact: all that a worker sees."""
    folders = {sys.prefix, sys.base_prefix, *_packages()}
    folders |= {str(python.parent.parent), str(python.resolve().parent.parent)}
    return sorted(folder for folder in folders if folder not in ("", "/"))


@cache
def _packages() -> tuple[str, ...]:
    """Where the packages that a worker needs are, also when they are installed in unusual places."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for name in _OURS:
        found = find_spec(name)
        if found is not None and found.origin:
            package = Path(found.origin).resolve().parent
            # The folder above didact may be a repository with much else in it: only the package itself is shown.
            folders.add(str(package if name == "didact" else package.parent))
    return tuple(sorted(folders))


def _program(module: str, stubs: tuple[str, ...]) -> str:
    """Python source that runs a module's main. The packages in `stubs` are entered without running their faces."""
    source = Path(find_spec("didact").origin or "").resolve().parent.parent  # type: ignore[union-attr]
    search = [folder for folder in _packages() if not folder.startswith(str(source / "didact"))]
    lines = ["import sys, types", f"sys.path += {[*search, str(source)]!r}"]
    for name in stubs:
        folder = str(source.joinpath(*name.split(".")))
        lines.append(f"m = types.ModuleType({name!r}); m.__path__ = [{folder!r}]; sys.modules[{name!r}] = m")
    return "\n".join([*lines, f"from {module} import main", "main()"])


def _environment() -> dict[str, str]:
    """Nothing of this process's: only what keeps libraries small, quiet and offline."""
    ours = {"USER": "nobody", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    one = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0"}
    quiet["JOBLIB_MULTIPROCESSING"] = "0"
    return {**ours, **quiet, **dict.fromkeys(one, "1")}

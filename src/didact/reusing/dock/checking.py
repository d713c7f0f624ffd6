"""Checking a submitted package: whether it is whole, and whether its model does what it says."""

from __future__ import annotations

import string
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from didact.reusing.dock.errors import DockError
from didact.reusing.dock.package import Package, PackageLimits, open_package
from didact.reusing.dock.sandbox import NoSandbox, Sandbox, SandboxFailure, Session

_INPUTS = 10
_SLACK = 1e-6  # of a specification's distance to itself
_LONGEST_LOG = 2**17


@dataclass(frozen=True)
class CheckReport:
    """The verdict on a package."""

    usable: Literal[-1, 0, 1]  #: 1: it works; 0: whole, but its model does not do what it says; -1: not a package
    reason: str  #: a word for machines; empty when it is usable
    log: str  #: what was done and seen, for the owner
    input_shape: tuple[int, ...] | None = None  #: as the loaded model has it; None when it was not loaded
    output_shape: tuple[int, ...] | None = None
    seconds: float = field(default=0.0, compare=False)


def check_package(
    path: str | Path, *, sandbox: Sandbox, seed: int = 0, limits: PackageLimits | None = None
) -> CheckReport:
    """Open a package, load it in the sandbox and let it predict ten random inputs.

    The package is opened in this process, which runs nothing of it; its model, also one without code, is loaded in a
    worker with limits only. Bad content never raises: it is the verdict.

    Inputs: standard normal rows for tables, uniform values in [0, 1) for images, random letters for texts. Outputs
    must be as many, finite, of the declared shape, and labels within the declared classes.

    Cost: one worker process, one load, one prediction; at most `sandbox.limits.timeout` seconds.
    """
    log = _Log()
    try:
        package = open_package(path, limits or PackageLimits())
        log(f"Opened: {package.tier} package, runtime {package.manifest.runtime}, {len(package.files)} files.")
        _check_statistics(package)
        log(f"Specification: {package.specification.type}, {len(package.specification.beta)} points.")
    except (DockError, RecursionError, MemoryError) as error:
        code = error.code if isinstance(error, DockError) else "bad-manifest"
        log(f"Refused ({code}): {error}")
        return CheckReport(-1, code, log.text, seconds=log.seconds)
    return _run(package, sandbox, seed, log)


def _run(package: Package, sandbox: Sandbox, seed: int, log: _Log) -> CheckReport:
    shapes: dict[str, Any] = {}
    try:
        with sandbox.session(package) as session:
            log(f"Loaded in the sandbox ({sandbox.strength}).")
            shapes = {name: tuple(session.about[name]) for name in ("input_shape", "output_shape")}
            _check_shapes(package, **shapes)
            left = max(0.0, sandbox.limits.timeout - log.seconds)
            outputs = _predictions(session, package, shapes["input_shape"], seed, left)
            log.quote(session.log)
            _check_outputs(package, outputs, shapes["output_shape"])
            log(f"Predicted {_INPUTS} random inputs: outputs of shape {shapes['output_shape']}, all finite.")
    except SandboxFailure as failure:
        log.quote(failure.log)
        log(f"Failed ({failure.code}): {failure}")
        return CheckReport(0, failure.code, log.text, **shapes, seconds=log.seconds)
    except NoSandbox as error:
        log(f"Not run ({error.code}): {error}")
        return CheckReport(0, error.code, log.text, seconds=log.seconds)
    log("Usable.")
    return CheckReport(1, "", log.text, **shapes, seconds=log.seconds)


def _check_statistics(package: Package) -> None:
    for specification in package.specifications:
        with np.errstate(all="ignore"):
            distance, length = specification.distance(specification), specification.self_product
        if not (np.isfinite(length) and length > 0 and abs(distance) < _SLACK):
            raise DockError("bad-specification", "The specification's distance to itself is not zero.")


def _check_shapes(package: Package, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
    """For code, which may tell its shapes only now; the others were compared when the package was opened."""
    words = package.semantic
    if words.data == "Table" and words.input is not None and input_shape != (words.input.dimension,):
        raise SandboxFailure(
            "wrong-input-shape", f"The model takes {input_shape}, but tables of {words.input.dimension} were declared."
        )
    classes = words.output.dimension if words.output else 0
    if words.task == "Classification" and output_shape not in ((), (1,), (classes,)):
        raise SandboxFailure("wrong-output-shape", f"The model has outputs {output_shape} for {classes} classes.")
    if words.task == "Regression" and output_shape != (classes,) and (output_shape, classes) != ((), 1):
        raise SandboxFailure("wrong-output-shape", f"The model has outputs {output_shape} for {classes} targets.")


def _predictions(
    session: Session, package: Package, input_shape: tuple[int, ...], seed: int, timeout: float
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if package.semantic.data == "Text":
        letters = list(string.ascii_letters + string.digits + "      .,")
        texts = ["".join(rng.choice(letters, size=rng.integers(10, 300))) for _ in range(_INPUTS)]
        _, answer = session.call("predict", timeout=timeout, texts=texts)
    elif package.semantic.data == "Image":
        images = rng.random((_INPUTS, *input_shape), dtype=np.float32)
        _, answer = session.call("predict", {"x": images}, timeout=timeout)
    else:
        rows = rng.standard_normal((_INPUTS, *input_shape)).astype(np.float32)
        _, answer = session.call("predict", {"x": rows}, timeout=timeout)
    if "outputs" not in answer:
        raise SandboxFailure("bad-answer", "The worker sent no outputs.")
    return answer["outputs"]


def _check_outputs(package: Package, outputs: np.ndarray, output_shape: tuple[int, ...]) -> None:
    wanted = (_INPUTS, *output_shape)
    if outputs.shape != wanted:
        raise SandboxFailure("wrong-output-shape", f"{wanted} was declared for {_INPUTS} inputs; {outputs.shape} came.")
    if not np.isfinite(outputs).all():
        raise SandboxFailure("non-finite-output", "Among the outputs are values that are not finite.")
    words = package.semantic
    if words.task != "Classification" or words.output is None or output_shape not in ((), (1,)):
        return
    if not (outputs == np.floor(outputs)).all():
        raise SandboxFailure("wrong-output-type", "Labels are whole numbers, but others came.")
    if outputs.min() < 0 or outputs.max() >= words.output.dimension:
        raise SandboxFailure(
            "label-out-of-range",
            f"Labels from 0 to {words.output.dimension - 1} were declared; {outputs.min()} to {outputs.max()} came.",
        )


class _Log:
    """Sentences with the second at which they were written."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lines: list[str] = []

    def __call__(self, sentence: str) -> None:
        self._lines.append(f"{self.seconds:7.2f} s  {sentence}")

    def quote(self, output: str) -> None:
        """What the model itself wrote, set off."""
        self._lines += [f"        | {line}" for line in output.strip().splitlines()]

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def text(self) -> str:
        return "\n".join(self._lines)[-_LONGEST_LOG:]

"""The program inside the sandbox: it loads the package it was started with and answers requests until told to stop."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any

import numpy as np

from didact.reusing.dock.sandbox.failures import SandboxFailure, name_of
from didact.reusing.dock.sandbox.frames import HEAD, Arrays, pack, unpack
from didact.reusing.dock.sandbox.launcher import ANSWERS, PACKAGE, REQUESTS

_STAGE = {"load": "load-error", "predict": "predict-error", "fit": "fit-error", "finetune": "fit-error"}


def main() -> None:
    requests, answers = os.fdopen(os.dup(REQUESTS), "rb"), os.fdopen(os.dup(ANSWERS), "wb")
    # What the model prints goes to the log, and what it reads from the keyboard is empty.
    os.dup2(os.open(os.devnull, os.O_RDONLY), REQUESTS)
    os.dup2(2, ANSWERS)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    worker = _Worker()
    while (frame := _read(requests)) is not None:
        answers.write(worker.answer(*unpack(frame)))
        answers.flush()


class _Worker:
    learnware: Any = None

    def answer(self, request: dict[str, Any], arrays: Arrays) -> bytes:
        command = request["command"]
        try:
            said, made = getattr(self, f"_{command}")(request, arrays)
            return pack({"ok": True, **said}, made)
        except BaseException as error:  # also SystemExit and KeyboardInterrupt, whatever the model raises
            code = name_of(error, _STAGE.get(command, "crashed"))
            traceback.print_exc(limit=-8)
            sys.stderr.flush()
            return pack({"ok": False, "code": code, "message": f"{type(error).__name__}: {error}"[:2000]})

    def _probe(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """What can be reached from in here that must not be."""
        return {
            "network": _reachable(request["port"]),
            "files": Path(request["file"]).exists(),
            "uid": os.getuid(),
            "pid": os.getpid(),
            "environment": sorted(os.environ),
        }, {}

    def _load(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        from didact.reusing.dock.package import open_package
        from didact.reusing.dock.runtimes import load_inside

        for name in request["preload"]:
            importlib.import_module(name)
        _limit_memory(request["memory"])
        with os.fdopen(PACKAGE, "rb", closefd=False) as stream:
            self.learnware = load_inside(open_package(stream), Path.cwd())
        learnware = self.learnware
        shapes = {"input_shape": list(learnware.input_shape), "output_shape": list(learnware.output_shape)}
        return shapes, {}

    def _predict(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        x = request["texts"] if "texts" in request else arrays["x"]
        outputs = np.asarray(self.learnware.predict(x))
        if outputs.dtype.kind not in "biuf":
            raise SandboxFailure("wrong-output-type", f"The output is an array of {outputs.dtype}, not of numbers.")
        return {}, {"outputs": outputs}

    def _fit(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        self.learnware.fit(request.get("texts", arrays.get("x")), arrays["y"])
        return {}, {}

    def _finetune(self, request: dict[str, Any], arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        x = request.get("texts", arrays.get("x"))
        self.learnware.finetune(x, arrays["y"], epochs=request["epochs"], lr=request["lr"])
        return {}, {}


def _read(stream: IO[bytes]) -> bytes | None:
    head = stream.read(HEAD.size)
    return stream.read(HEAD.unpack(head)[0]) if len(head) == HEAD.size else None


def _limit_memory(allowance: int) -> None:
    """What the libraries take already is not the model's: its allowance comes on top of it."""
    import resource

    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        taken = 4 * 2**30  # /proc is hidden; libraries map no more than this
    try:
        resource.setrlimit(resource.RLIMIT_AS, (taken + allowance, taken + allowance))
    except (ValueError, OSError):
        sys.stderr.write("The limit on memory could not be set.\n")


def _reachable(port: int) -> bool:
    import socket

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False

"""How a run in the sandbox can end badly: each way has a code, the same in logs, in the API and in tests."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

from didact.reusing.dock.errors import DockError

#: code -> what it tells the owner of the learnware
REASONS: dict[str, str] = {
    "load-error": "The model could not be loaded.",
    "predict-error": "The model raised an error while predicting.",
    "fit-error": "The model raised an error while training.",
    "timeout": "The model did not answer in the time given.",
    "cpu-limit": "The model used more processor time than it may.",
    "out-of-memory": "The model asked for more memory than it may use.",
    "too-many-processes": "The model started more processes or threads than it may.",
    "too-many-files": "The model opened more files than it may.",
    "file-too-large": "The model wrote more than it may.",
    "network": "The model tried to reach the network, which it may not.",
    "outside-sandbox": "The model tried to change something outside its scratch folder.",
    "missing-requirement": "The model needs a package that is not installed here.",
    "crashed": "The model ended its process.",
    "bad-answer": "The model's process answered something that is not an array of numbers.",
    "answer-too-large": "The model's answer is larger than it may be.",
    "wrong-output-type": "The model's output is not an array of numbers.",
}

_BY_NUMBER = {
    errno.ENETUNREACH: "network",
    errno.EHOSTUNREACH: "network",
    errno.ECONNREFUSED: "network",
    errno.EAFNOSUPPORT: "network",
    errno.EROFS: "outside-sandbox",
    errno.EACCES: "outside-sandbox",
    errno.EPERM: "outside-sandbox",
    errno.EFBIG: "file-too-large",
    errno.ENOSPC: "file-too-large",
    errno.EDQUOT: "file-too-large",
    errno.EAGAIN: "too-many-processes",
    errno.EMFILE: "too-many-files",
    errno.ENOMEM: "out-of-memory",
}
# Libraries in C++ report a refused allocation in words only.
_NO_MEMORY = ("bad_alloc", "bad allocation", "not enough memory", "allocate memory", "MemoryError")


class SandboxFailure(DockError):
    """A run in the sandbox that failed. `code` is one of REASONS or that of the refusal raised inside; `log` is what
    the run wrote."""

    status = 422

    def __init__(self, code: str, message: str, log: str = "") -> None:
        super().__init__(code, message)
        self.log = log


class NoSandbox(DockError):
    """This machine offers no isolation, or not enough for what was asked."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__("no-sandbox", message)


def name_of(error: BaseException, otherwise: str) -> str:
    """The code of an error that was raised in the sandbox, or by what caused it."""
    for cause in _causes(error):
        if isinstance(cause, DockError):
            return cause.code
        if isinstance(cause, MemoryError) or out_of_memory(str(cause)):
            return "out-of-memory"
        if isinstance(cause, socket.gaierror):
            return "network"
        if isinstance(cause, OSError) and cause.errno in _BY_NUMBER:
            return _BY_NUMBER[cause.errno]
        if isinstance(cause, RuntimeError) and "can't start new thread" in str(cause):
            return "too-many-processes"
        if isinstance(cause, ModuleNotFoundError):
            return "missing-requirement"
        if isinstance(cause, SystemExit):
            return "crashed"
    return otherwise


def out_of_memory(text: str) -> bool:
    return any(sign in text for sign in _NO_MEMORY)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    fresh: list[object] = [error]
    while fresh and len(seen) < 20:
        cause = fresh.pop(0)
        if isinstance(cause, BaseException) and not any(cause is other for other in seen):
            seen.append(cause)
            yield cause
            fresh += [cause.__cause__, cause.__context__, getattr(cause, "reason", None)]

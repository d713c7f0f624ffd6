"""What an answer cost: passes through models (the same on every machine), time, memory, and notes.

Methods never carry a counter around. An Objective reports each pass, a method reports what it wants known with
`note(...)`, and whoever is interested opens a `Meter`:

    with Meter() as meter:
        model = SelectiveSynapticDampening().unlearn(model, forget, retain)
    meter.passes, meter.log
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

_open: ContextVar[tuple[Meter, ...]] = ContextVar("open_meters", default=())


class Meter:
    """Adds up passes, seconds, CPU seconds, peak memory and notes while it is open. Meters nest."""

    def __init__(self) -> None:
        self.forward = 0  #: samples sent forward through a model
        self.backward = 0  #: samples a gradient was taken of
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.peak_memory = 0  #: bytes above what the process held on entry (Linux: exact; elsewhere: growth of RSS)
        self.log: dict[str, Any] = {}  #: what methods noted about their own run

    @property
    def passes(self) -> int:
        """Forward plus backward samples: a cost that does not depend on the machine."""
        return self.forward + self.backward

    def __enter__(self) -> Meter:
        self._token: Token[tuple[Meter, ...]] = _open.set((*_open.get(), self))
        _reset_peak()
        self._rss = psutil.Process().memory_info().rss
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu
        self.peak_memory = max(0, _peak() - self._rss)
        _open.reset(self._token)

    def as_dict(self) -> dict[str, float]:
        return {
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_memory": self.peak_memory,
            "forward": self.forward,
            "backward": self.backward,
            "passes": self.passes,
        }


def count_forward(samples: int) -> None:
    for meter in _open.get():
        meter.forward += samples


def count_backward(samples: int) -> None:
    for meter in _open.get():
        meter.backward += samples


def backward_counter(samples: int) -> Callable[[Any], None]:
    """A tensor hook that counts `samples` when the gradient arrives.

    The open meters are bound now: on a GPU the hook runs in autograd's own thread, which has no context of ours.
    """
    meters = _open.get()

    def counted(_: Any) -> None:
        for meter in meters:
            meter.backward += samples

    return counted


@contextmanager
def uncounted() -> Iterator[None]:
    """No meter counts inside: for checks that are no part of the method."""
    token = _open.set(())
    try:
        yield
    finally:
        _open.reset(token)


def note(**values: Any) -> None:
    """Record facts about the running method (chosen strength, share of weights changed, losses, ...)."""
    for meter in _open.get():
        meter.log.update(values)


def _reset_peak() -> None:
    with suppress(OSError):  # not Linux, or not allowed: the peak is then that of the process's whole life
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)

"""Checking what was submitted, one learnware after the other, however often the server is killed meanwhile."""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from didact.reusing.dock.errors import DockError, NotFound
from didact.reusing.dock.storage.work import Item, Outcome

if TYPE_CHECKING:
    from didact.reusing.dock.checking import CheckReport
    from didact.reusing.dock.records import LearnwareInfo
    from didact.reusing.dock.service import Dock

Check = Callable[[Path], "CheckReport"]

_POLL = 1.0  # seconds between two looks at the queue, for what other processes put there
_RECOVER = 10.0  # seconds between two looks for checkers that died
_SWEEP = 3600.0


class Checker:
    """Takes learnwares from a dock's queue, has them checked in a child process and writes down what was found.

    Any number of checkers, in threads and processes, may share a dock: each learnware is handed to one of them. A
    checker gives signs of life while it checks. What was handed to one that died goes back to the queue: at once when
    it ran on this machine, else when its lease is over. Its result, should it only have been slow, is then dropped.
    """

    def __init__(self, dock: Dock, check: Check | None = None) -> None:
        """`check` reads a package and reports on it; default `check_package` in the dock's sandbox."""
        self.dock = dock
        self._check = check or _in_sandbox(dock)
        self._recovered = self._swept = 0.0

    def run_forever(self, stop: threading.Event) -> None:
        """Check whatever comes until `stop` is set, with as many checks at once as the dock's settings say.

        What is being checked when `stop` is set goes back to the queue.
        """
        others = [
            threading.Thread(target=self._loop, args=(stop,), name=f"dock-checker-{i}", daemon=True)
            for i in range(1, self.dock.settings.check_workers)
        ]
        for thread in others:
            thread.start()
        self._loop(stop)
        for thread in others:
            thread.join()

    def run_once(self) -> bool:
        """Check the learnware whose turn it is. False when there is none."""
        self._maintain()
        return self._step(threading.Event())

    def check_until(self, id: str, timeout: float) -> LearnwareInfo:
        """Check what is in the queue until this learnware's turn was, or wait while another checker has it.

        Errors: `NotFound`; `DockError` "timeout".
        """
        deadline = time.monotonic() + timeout
        while True:
            info = self.dock.learnwares.get(id)
            if info is None:
                raise NotFound("no-learnware", f"There is no learnware {id[:40]!r}.")
            if info.status in ("SUCCESS", "FAIL"):
                return info
            if time.monotonic() > deadline:
                raise DockError("timeout", f"The check of {id} has not ended after {timeout:g} s; it is {info.status}.")
            if not self.run_once():
                time.sleep(0.1)

    def _loop(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self._maintain()
                if not self._step(stop):
                    self.dock.across.refresh()
                    self.dock.submitted.wait(_POLL)
                    self.dock.submitted.clear()
            except Exception:  # a database that is away for a moment must not end the queue
                traceback.print_exc()
                stop.wait(_POLL)

    def _step(self, stop: threading.Event) -> bool:
        holder = f"{_this_process()}:{secrets.token_hex(4)}"
        item = self.dock.work.take(holder, self.dock.settings.lease)
        if item is None:
            return False
        outcome = self._checked_with_signs_of_life(item, holder, stop)
        if outcome is None:
            self.dock.work.give_back(item.id, holder)
        elif self.dock.work.finish(item.id, holder, outcome) and outcome.usable == 1:
            self.dock.relate(item.id)
        return True

    def _checked_with_signs_of_life(self, item: Item, holder: str, stop: threading.Event) -> Outcome | None:
        """What was found; None when told to stop first. The check itself is left to end by itself then."""
        found: list[Outcome] = []
        thread = threading.Thread(target=lambda: found.append(self._outcome(item)), name="dock-check", daemon=True)
        thread.start()
        lease = self.dock.settings.lease
        beaten = time.monotonic()
        while thread.is_alive() and not stop.is_set():
            thread.join(min(0.2, lease / 4))
            if time.monotonic() - beaten > lease / 4:
                beaten = time.monotonic()
                self.dock.work.beat(item.id, holder, lease)
        return found[0] if found else None

    def _outcome(self, item: Item) -> Outcome:
        try:
            report = self._check(self.dock.blobs.path(item.sha256))
        except NotFound:
            return Outcome(None, "package-gone", "The package was removed before it could be checked.")
        except Exception as error:  # a fault of the checker, not of the package: say so and go on
            return Outcome(None, "check-failed", f"The check itself failed: {type(error).__name__}: {error}")
        return Outcome(report.usable, report.reason, report.log, report.input_shape, report.output_shape)

    def _maintain(self) -> None:
        moment = time.monotonic()
        if moment - self._recovered > _RECOVER or not self._recovered:
            self._recovered = moment
            self.dock.work.recover(_is_dead, self.dock.settings.max_attempts)
        if moment - self._swept > _SWEEP:
            if self._swept:  # a dock sweeps when it opens
                self.dock.sweep()
            self._swept = moment


def _in_sandbox(dock: Dock) -> Check:
    def check(path: Path) -> CheckReport:
        from didact.reusing.dock.checking import check_package
        from didact.reusing.dock.package import PackageLimits
        from didact.reusing.dock.sandbox import Sandbox

        limits = PackageLimits(archive=dock.settings.max_upload)
        return check_package(path, sandbox=dock.settings.sandbox or Sandbox(), limits=limits)

    return check


def _this_process() -> str:
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def _is_dead(holder: str) -> bool:
    """Whether a checker's process on this machine has ended. Of other machines' nothing is known: False."""
    host, _, rest = holder.rpartition(":")[0].partition(":")
    pid, _, created = rest.partition(":")
    if host != socket.gethostname()[:64] or not pid.isdigit():
        return False
    try:
        return bool(abs(psutil.Process(int(pid)).create_time() - float(created)) > 5.0)  # clocks are set at times
    except psutil.NoSuchProcess:
        return True
    except (psutil.AccessDenied, ValueError):
        return False

"""Running tasks in processes of their own, forked from a server that has the heavy imports loaded."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import psutil

from didact.core.errors import DidactError
from didact.engine.cells import Task
from didact.engine.ledger import Row, Status

#: a worker that something outside killed is run again this often before its row says so
ATTEMPTS = 3
#: how long building a problem or scoring an answer may take, when that is more than the method's own limit
PATIENCE = 1800.0
#: signals that come from outside; crashes of the method itself (SIGSEGV, SIGABRT, ...) are its result
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Queue(Protocol):
    """Where an executor gets its tasks."""

    def take(self) -> Task | None:
        """The next task that is ready to run; None when there is none (yet)."""

    def built(self, task: Task) -> None:
        """The task's problem is built: its workpieces are in the cache now."""


@dataclass
class Job:
    """A task in flight."""

    task: Task
    process: BaseProcess
    pipe: Connection
    output: Path
    deadline: float
    started: float
    phase: str = "building"
    row: Row | None = None
    killed: Status | None = None
    peak: int = 0
    base: int = 0
    reason: str = ""


@dataclass
class LocalExecutor:
    """Up to `jobs` tasks at a time, each isolated: a crash, a hang or a leak is a row, never the end of the run."""

    jobs: int = 2
    running: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = _server()
        self.folder = Path(tempfile.mkdtemp(prefix="didact-"))

    def run(self, queue: Queue) -> Iterator[tuple[Task, Row]]:
        """(task, row) as they finish. Tasks are drawn when a worker is free."""
        again: deque[Task] = deque()
        attempts: Counter[Task] = Counter()
        try:
            while True:
                while len(self.running) < self.jobs:
                    task = again.popleft() if again else queue.take()
                    if task is None:
                        break
                    self.running.append(self._start(task))
                if not self.running:
                    return
                for job in self._finished(queue):
                    row = self._conclude(job)
                    attempts[job.task] += 1
                    if row is None and attempts[job.task] < ATTEMPTS:
                        again.append(job.task)
                    else:
                        yield job.task, row or self._given_up(job)
        finally:
            self.close()

    def close(self) -> None:
        for job in self.running:
            _kill(job.process)
            job.process.join(5)
        self.running.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, task: Task) -> Job:
        ours, theirs = self.context.Pipe(duplex=False)
        output = self.folder / f"{time.monotonic_ns()}.txt"
        process = self.context.Process(target=_work, args=(task, theirs, str(output)), daemon=False)
        with _without_main():
            process.start()
        theirs.close()
        now = time.monotonic()
        return Job(task, process, ours, output, now + max(PATIENCE, task.timeout or 0), now)

    def _finished(self, queue: Queue) -> list[Job]:
        """Wait for news, look after the limits, and hand back the jobs that ended."""
        handles: list[Any] = [h for job in self.running for h in (job.process.sentinel, job.pipe) if h is not None]
        pause = min([0.25, *(max(0.0, job.deadline - time.monotonic()) for job in self.running)])
        wait(handles, timeout=pause)
        ended = []
        for job in self.running:
            self._listen(job, queue)
            self._watch(job)
            # A worker that sent its row is done for us; it exits on its own.
            if job.row is not None or not job.process.is_alive():
                self._listen(job, queue)
                ended.append(job)
        self.running = [job for job in self.running if job not in ended]
        return ended

    def _listen(self, job: Job, queue: Queue) -> None:
        with suppress(EOFError, OSError):
            while job.row is None and job.pipe.poll():
                kind, value = job.pipe.recv()
                if kind == "row":
                    job.row = value
                    return
                job.phase = value
                if value == "built":
                    queue.built(job.task)
                limit = job.task.timeout if value == "solving" else max(PATIENCE, job.task.timeout or 0)
                job.deadline = time.monotonic() + limit if limit else float("inf")
                if value == "solving":
                    job.base = _resident(job.process.pid)

    def _watch(self, job: Job) -> None:
        if job.row is not None or job.killed:
            return
        if time.monotonic() > job.deadline:
            job.killed = "timed-out"
            job.reason = f"{job.phase} took longer than {job.task.timeout if job.phase == 'solving' else PATIENCE:g} s"
            _kill(job.process)
        elif job.task.memory and job.phase != "building":
            job.peak = max(job.peak, _resident(job.process.pid) - job.base)
            if job.peak > job.task.memory:
                job.killed = "out-of-memory"
                job.reason = f"{job.phase} held more than {job.task.memory / 1e9:g} GB"
                _kill(job.process)

    def _conclude(self, job: Job) -> Row | None:
        """The job's row; None when something outside killed the worker, so that it should be run again."""
        job.process.join(5)
        if job.process.is_alive():
            _kill(job.process)
            job.process.join(5)
        code = job.process.exitcode
        job.pipe.close()
        if job.row is not None:
            return job.row if job.row.status == "done" else replace(job.row, error=job.row.error + _tail(job.output))
        blank = Row(job.task.cell, "failed", cost={"seconds": time.monotonic() - job.started})
        limits = {k: float(v) for k, v in (("timeout", job.task.timeout), ("memory", job.task.memory)) if v}
        if job.killed:
            return replace(blank, status=job.killed, error=f"Stopped: {job.reason}." + _tail(job.output), limits=limits)
        if code is not None and code < 0:
            if -code in {int(s) for s in OUTSIDE}:
                return None
            name = signal.Signals(-code).name
            # A C++ allocation that fails aborts the process instead of raising.
            near = job.task.memory and job.peak > 0.8 * job.task.memory
            status: Status = "out-of-memory" if near and -code == signal.SIGABRT else "failed"
            return replace(blank, status=status, error=f"The process crashed with {name}." + _tail(job.output))
        return replace(blank, error=f"The process ended with exit code {code} and no result." + _tail(job.output))

    def _given_up(self, job: Job) -> Row:
        # Killed again and again with nobody asking for it: on Linux that is the kernel's out-of-memory killer.
        name = signal.Signals(-(job.process.exitcode or -9)).name
        return Row(job.task.cell, "out-of-memory", error=f"The process was killed ({name}) {ATTEMPTS} times.")


def _work(task: Task, pipe: Connection, output: str) -> None:
    from didact.engine import worker

    worker.main(task, pipe, output)


def _server() -> Any:
    """The fork server, started once a process, with one thread a worker and everything heavy imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["didact.engine.preload"])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    except OSError as error:
        raise DidactError(f"The server that starts the workers could not be started: {error}") from error
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return context


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the caller's script from multiprocessing, which would import it in every worker.

    No cell needs it; a script without a main guard would start its bench again, and the import would cost each cell
    time.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _kill(process: BaseProcess) -> None:
    if process.pid is None:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, signal.SIGKILL)


def _resident(pid: int | None) -> int:
    """Resident bytes of a process and its children."""
    try:
        process = psutil.Process(pid)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def _tail(output: Path, size: int = 4000) -> str:
    with suppress(OSError):
        text = output.read_text(errors="replace")[-size:].strip()
        output.unlink()
        if text:
            return f"\n\nWhat it printed last:\n{text}"
    return ""

"""One worker process and the conversation with it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from didact.reusing.dock.sandbox.failures import REASONS, NoSandbox, SandboxFailure, out_of_memory
from didact.reusing.dock.sandbox.frames import HEAD, Arrays, pack, unpack

_CHUNK = 1 << 16
_PIECES = 64  # read at once from what a worker writes
_LAST_WORDS = 2.0  # seconds for the report on a worker that ended
_PATIENCE = 10.0  # seconds for the watcher to end what it started, before it is ended itself


class Session:
    """A worker that stays until `close`, so that a model is loaded once and may be trained.

    Made by `Sandbox.session`. Safe to use from several threads; calls take turns.
    """

    def __init__(self, plan: Mapping[str, Any], command: Sequence[str], *, timeout: float, answer: int, log: int):
        self._timeout, self._most, self._log_size = timeout, answer, log
        self._log = bytearray()
        self._lock = threading.Lock()
        self._failure: SandboxFailure | None = None
        self.about: dict[str, Any] = {}  #: what the worker said when it had loaded its package
        self._scratch = _scratch(plan)
        self._open: list[int] = []
        inside, outside = [], []
        for ours_writes in (True, False, True, False, False):  # requests, answers, control, status, log
            read, write = os.pipe()
            outside.append(write if ours_writes else read)
            inside.append(read if ours_writes else write)
        requests, answers, control, status, log_fd = inside
        self._requests, self._answers, self._control, self._status, self._errors = self._open = outside
        ways = {"requests": requests, "answers": answers, "control": control, "status": status}
        told = json.dumps({**plan, **ways, "scratch": self._scratch})
        try:
            self._watcher = subprocess.Popen(
                [*command, told],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=[requests, answers, control, status],
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            raise NoSandbox(f"No process could be started for the sandbox: {error}.") from None
        finally:
            for fd in inside:
                os.close(fd)
        for fd in (self._requests, self._answers, self._errors):
            os.set_blocking(fd, False)

    @property
    def ended(self) -> bool:
        """Whether there is no worker any more."""
        return not self._open

    @property
    def log(self) -> str:
        """The last that the worker wrote to its standard output and error, without control characters."""
        text = self._log.decode("utf-8", errors="replace")
        return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)

    def call(
        self,
        command: str,
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], Arrays]:
        """Ask the worker; its message and its arrays.

        Errors: SandboxFailure with a code of REASONS. After a failure that ended the worker every call repeats it.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
            try:
                message, made = unpack(self._exchange(pack({"command": command, **options}, arrays), deadline))
            except SandboxFailure as failure:
                self._failure = failure
                self.close()
                failure.log = self.log
                raise
        self._drain()
        if message.get("ok") is True:
            return message, made
        # A code comes from inside and ends up in databases and pages: only a word is taken over.
        code = str(message.get("code"))
        code = code if code in REASONS or (code.replace("-", "").isalpha() and len(code) < 40) else "crashed"
        sentence = f"{REASONS.get(code, 'The package was refused.')} {str(message.get('message'))[:2000]}"
        raise SandboxFailure(code, sentence, self.log)

    def close(self) -> None:
        """End the worker and everything it started."""
        if self._open:
            self._end()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _exchange(self, request: bytes, deadline: float) -> bytes:
        unsent, received, length = memoryview(request), bytearray(), None
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        poll.register(self._errors, select.POLLIN)
        poll.register(self._requests, select.POLLOUT)
        while length is None or len(received) < length:
            left = deadline - time.monotonic()
            if left <= 0:
                raise SandboxFailure("timeout", REASONS["timeout"])
            for fd, _ in poll.poll(min(left, 1.0) * 1000):
                if fd == self._errors:
                    if not self._keep_log():
                        poll.unregister(fd)
                elif fd == self._requests:
                    unsent = self._send(unsent)
                    if not unsent:
                        poll.unregister(fd)
                else:
                    piece = _read(fd)
                    if piece == b"":
                        raise self._post_mortem()
                    received += piece or b""
            if length is None and len(received) >= HEAD.size:
                (length,) = HEAD.unpack_from(received)
                del received[: HEAD.size]
                if length > self._most:
                    raise SandboxFailure("answer-too-large", f"{REASONS['answer-too-large']} It has {length} bytes.")
        if len(received) > length:
            raise SandboxFailure("bad-answer", "The worker answered more than it was asked.")
        return bytes(received)

    def _send(self, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(self._requests, unsent[:_CHUNK]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return unsent[:0]  # the worker has ended: the answers' end tells why

    def _keep_log(self) -> bool:
        piece = _read(self._errors)
        if piece == b"":
            return False
        self._log += piece or b""
        del self._log[: max(0, len(self._log) - self._log_size)]
        return piece is not None

    def _drain(self) -> None:
        for _ in range(_PIECES):  # and no more: a model may write faster than this reads
            if not (self._open and self._keep_log()):
                break

    def _post_mortem(self) -> SandboxFailure:
        """Why there is no worker any more, from what its keeper and its watcher say."""
        status = select.poll()
        status.register(self._status, select.POLLIN)
        status.poll(_LAST_WORDS * 1000)  # asking them to end at once would cut the answer short
        said = self._end()
        if "setup" in said:
            return SandboxFailure("no-sandbox", f"The sandbox could not be set up: {said['setup']}")
        if "why" in said and said["why"] != "closed":
            return SandboxFailure(said["why"], REASONS.get(said["why"], ""))
        code = said.get("exit", 0)
        if code == -signal.SIGXCPU:
            return SandboxFailure("cpu-limit", REASONS["cpu-limit"])
        if code == -signal.SIGKILL or out_of_memory(self.log):
            return SandboxFailure("out-of-memory", f"{REASONS['out-of-memory']} The system ended it.")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        return SandboxFailure("crashed", f"{REASONS['crashed']} It ended with {how}.")

    def _end(self) -> dict[str, Any]:
        """Close the control pipe, which makes the watcher end everything; what the watcher said."""
        for fd in (self._control, self._requests):
            self._open.remove(fd)
            os.close(fd)
        # The worker may be blocked on writing: its pipes are emptied until all are gone.
        deadline = time.monotonic() + _PATIENCE
        while self._watcher.poll() is None and time.monotonic() < deadline:
            self._drain()
            _read(self._answers)
            time.sleep(0.005)
        if self._watcher.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._watcher.pid, signal.SIGKILL)
            self._watcher.wait()
        self._drain()
        said: dict[str, Any] = {}
        os.set_blocking(self._status, False)
        for line in (_read(self._status) or b"").splitlines():
            with contextlib.suppress(ValueError):
                said = {**json.loads(line), **said}
        self._release()
        return said

    def _release(self) -> None:
        for fd in self._open:
            os.close(fd)
        self._open = []
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _scratch(plan: Mapping[str, Any]) -> str:
    """A folder of the worker's own; with namespaces it is made inside and never seen here."""
    if plan["isolation"] != "limits":
        return ""
    folder = tempfile.mkdtemp(prefix="didact-sandbox-")
    if plan["drop"]:
        os.chown(folder, plan["drop"], plan["drop"])
    return str(Path(folder).resolve())


def _read(fd: int) -> bytes | None:
    """What there is; nothing at the end, None when there is nothing yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None

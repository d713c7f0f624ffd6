"""Starts a worker in the sandbox. Run as a program of its own, before any library is imported.

Three processes: the *watcher* stays outside, ends everything when its control pipe closes (also when the server is
killed), and keeps an eye on memory and processes; the *keeper* is the first process of the new namespaces, builds
the file system and gives up every privilege; the *worker* runs Python on the package.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from didact.reusing.dock.sandbox import kernel, rootfs

NOBODY = 65534
REQUESTS, ANSWERS, PACKAGE = 0, 1, 4  # the worker's file descriptors; 2 is its log
_EVERY = 0.1  # seconds between two looks at the worker


def main() -> None:
    plan: dict[str, Any] = json.loads(sys.argv[1])
    try:
        _watch(plan)
    except BaseException as error:
        _report(plan, setup=f"{type(error).__name__}: {error}")
        raise


def _watch(plan: dict[str, Any]) -> None:
    kernel.adopt_orphans()
    if plan["isolation"] == "user-namespaces":
        _become_root_of_a_user_namespace()
    if plan["isolation"] != "limits":
        kernel.unshare(kernel.NEW_PIDS)
    keeper = os.fork()
    if keeper == 0:
        _keep(plan)
    for fd in (plan["requests"], plan["answers"]):
        os.close(fd)
    why = None
    while os.waitpid(keeper, os.WNOHANG) == (0, 0):
        readable, _, _ = select.select([plan["control"]], [], [], _EVERY)
        why = "closed" if readable else _excess(plan)
        if why:
            os.kill(keeper, signal.SIGKILL)
            os.waitpid(keeper, 0)
            break
    _end_descendants()
    if plan["scratch"]:  # here, because the server that made it may be no more
        shutil.rmtree(plan["scratch"], ignore_errors=True)
    _report(plan, why=why)


def _become_root_of_a_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.NEW_USER)
    kernel.map_user(0, uid, gid)


def _keep(plan: dict[str, Any]) -> None:
    """Shut the doors, start the worker and wait for it. Never returns."""
    try:
        kernel.die_with_parent()
        os.close(plan["control"])
        os.setsid()
        package = _package(plan)
        if plan["drop"]:
            _become_nobody(separate=plan["isolation"] != "limits")
        elif plan["isolation"] == "user-namespaces":
            kernel.forbid_user_namespaces()
        kernel.drop_bounding_set()
        kernel.drop_capabilities()
        kernel.forbid_new_privileges()
        worker = os.fork()
        if worker == 0:
            _work(plan, package)
        kernel.set_dumpable(False)
        os.close(plan["requests"])
        os.close(plan["answers"])
        while True:
            ended, status = os.wait()
            if ended == worker:
                code = os.waitstatus_to_exitcode(status)
                _report(plan, exit=code)
                os._exit(0)
    except BaseException as error:
        _report(plan, setup=f"{type(error).__name__}: {error}")
        os._exit(1)


def _package(plan: dict[str, Any]) -> int | None:
    """Build the worker's view of the files and open the package in it, on a mount that cannot be written to."""
    if plan["isolation"] == "limits":
        os.chdir(plan["scratch"])
        return os.open(plan["package"], os.O_RDONLY) if plan["package"] else None
    kernel.unshare(kernel.NEW_MOUNTS | kernel.NEW_NETWORK | kernel.NEW_IPC | kernel.NEW_HOSTNAME)
    return rootfs.build(plan["libraries"], plan["package"], plan["files"], NOBODY if plan["drop"] else 0)


def _become_nobody(*, separate: bool) -> None:
    kernel.drop_bounding_set()
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    kernel.set_dumpable(True)
    if not separate:
        return
    # A user namespace of its own, so that the limit on processes is not shared with other sandboxes.
    with contextlib.suppress(OSError):
        kernel.unshare(kernel.NEW_USER)
        kernel.map_user(NOBODY, NOBODY, NOBODY)
        kernel.forbid_user_namespaces()


def _work(plan: dict[str, Any], package: int | None) -> None:
    given = {REQUESTS: plan["requests"], ANSWERS: plan["answers"], **({} if package is None else {PACKAGE: package})}
    # Out of the way first: one of them may have the number that another is to get.
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for number, fd in given.items()}
    os.closerange(3, 64)
    for number, fd in moved.items():
        os.dup2(fd, number)
    os.closerange(64, 4096)
    _limit(plan)
    kernel.filter_system_calls()
    kernel.die_with_parent()
    home = str(Path.cwd())
    environment = {**plan["environment"], "HOME": home, "TMPDIR": home}
    os.execve(plan["python"], [plan["python"], "-I", "-B", "-c", plan["worker"]], environment)


def _limit(plan: dict[str, Any]) -> None:
    """Memory is limited by the worker itself, once the libraries are loaded: only then is their share known."""
    limits = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_CPU: (plan["cpu"], plan["cpu"] + 1),
        resource.RLIMIT_FSIZE: (plan["files"], plan["files"]),
        resource.RLIMIT_NOFILE: (256, 256),
    }
    if plan["isolation"] != "limits" or plan["drop"]:
        limits[resource.RLIMIT_NPROC] = (plan["processes"], plan["processes"])
    for kind, (soft, hard) in limits.items():
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:  # a limit can be lowered, not raised
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(kind, (soft, hard))


def _excess(plan: dict[str, Any]) -> str | None:
    """Which limit the worker and its descendants exceed together."""
    running = _descendants(os.getpid())
    if len(running) - 2 > plan["processes"]:
        return "too-many-processes"
    page = os.sysconf("SC_PAGE_SIZE")
    resident = 0
    for pid in running:
        try:
            resident += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        except (OSError, IndexError):
            continue
    if resident > plan["resident"]:
        return "out-of-memory"
    if plan["isolation"] == "limits" and _stored(plan["scratch"]) > plan["files"]:
        return "file-too-large"
    return None


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    fresh = [pid]
    while fresh:
        parent = fresh.pop()
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
        except OSError:
            continue
        for task in tasks:
            try:
                children = (task / "children").read_text().split()
            except OSError:
                continue
            found += map(int, children)
            fresh += map(int, children)
    return found


def _stored(folder: str) -> int:
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total


def _end_descendants() -> None:
    """Orphans are adopted, so that they are found here however they were started."""
    deadline = time.monotonic() + 5
    while (running := _descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in running:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass
        time.sleep(0.01)


def _report(plan: dict[str, Any], **said: Any) -> None:
    said = {name: value for name, value in said.items() if value is not None}
    if said:
        os.write(plan["status"], json.dumps(said).encode()[:2000] + b"\n")

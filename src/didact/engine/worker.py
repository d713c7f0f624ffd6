"""What happens inside a cell's own process: build the problem, run the method under a meter, score, send the row."""

from __future__ import annotations

import importlib
import os
import platform
import random
import resource
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any

import accelerate  # the fork server loads what every cell needs, once
import numpy as np
import psutil
import torch
from torch import nn
from tqdm import tqdm

import didact
from didact.core import registry
from didact.core.cost import Meter
from didact.core.errors import DidactError, NotApplicable, UnknownName
from didact.core.method import Method
from didact.core.problem import Problem
from didact.core.recipe import seed_torch
from didact.core.references import import_file
from didact.engine.cells import Cell, Task, display
from didact.engine.ledger import Row, Status
from didact.models.artifacts import save, stored_bytes

torch.set_num_threads(1)


def main(task: Task, pipe: Connection, output: str) -> None:
    """Entry point of a worker process."""
    os.setsid()  # the runner kills the whole group: a method's own subprocesses go too
    _redirect(output)
    tqdm.set_lock(threading.RLock())  # its own would be a semaphore that outlives this process
    _die_with_parent()
    _limit_cpu(task)
    row = run(task, pipe)
    pipe.send(("row", row))
    pipe.close()
    # Straight out: a method's stray threads or exit handlers must not hold the worker.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def run(task: Task, pipe: Connection | None = None) -> Row:
    """Compute a cell in this process. Never raises: whatever goes wrong is in the row."""
    cell = task.cell
    blank = Row(cell, "failed", environment=environment(), limits=_limits(task))
    release = _limit_memory(task.memory)
    try:
        return replace(blank, **_compute(task, pipe))
    except NotApplicable as error:
        return replace(blank, status="not-applicable", error=str(error))
    except BaseException as error:
        release()
        return replace(blank, status=_status_of(error), error=explain(error))
    finally:
        release()


def _compute(task: Task, pipe: Connection | None) -> dict[str, Any]:
    cell = task.cell
    seed_everything(cell.seed)
    problem = registry.make_problem(cell.problem, cell.seed, cell.scale)
    _tell(pipe, "built")
    method = find_method(cell)
    reason = problem.lacks(method.card.needs, method.card.tasks)
    if reason:
        raise NotApplicable(f"{cell.method} {reason}.")
    seed_everything(cell.seed)
    _tell(pipe, "solving")
    with Meter() as meter:
        answer = method.solve(problem.given)
    _tell(pipe, "scoring")
    metrics = problem.score(answer) if cell.role == "score" else problem.validate(answer)
    cost = meter.as_dict()
    if isinstance(answer, nn.Module):
        cost["stored_bytes"] = stored_bytes(answer)
    if task.keep:
        keep_answer(problem, answer, Path(task.keep), cell, metrics)
    return {"status": "done", "metrics": metrics, "cost": cost, "log": meter.log}


def find_method(cell: Cell) -> Method:
    """The cell's method, also when its class is a user's own: then its module or file is imported first."""
    try:
        cls = registry.get_method(cell.method)
    except UnknownName:
        try:
            importlib.import_module(cell.module)
        except ImportError:
            import_file(Path(cell.file))
        cls = registry.get_method(cell.method)
    return cls(**cell.settings)


def keep_answer(problem: Problem[Any, Any], answer: Any, folder: Path, cell: Cell, metrics: dict[str, float]) -> None:
    about = {"method": cell.method, "settings": cell.settings, "problem": display(cell.problem), "seed": cell.seed}
    about |= {"metrics": metrics, "didact": didact.__version__}
    if isinstance(answer, nn.Module):
        save(answer, folder, about)
    else:
        problem.keep(answer, folder)


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)
    if torch.cuda.is_available():  # on one CPU thread everything is deterministic, and the switch costs seconds
        torch.use_deterministic_algorithms(True, warn_only=True)


def environment() -> dict[str, Any]:
    return {
        "didact": didact.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def explain(error: BaseException) -> str:
    """Our own errors speak for themselves; of any other the traceback is needed."""
    if isinstance(error, DidactError):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.format_exception(error))[-20_000:]


def _status_of(error: BaseException) -> Status:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out-of-memory"
    if isinstance(error, RuntimeError) and "memory" in str(error) and "alloc" in str(error):
        return "out-of-memory"  # torch's CPU allocator has no exception class of its own
    return "failed"


def _limits(task: Task) -> dict[str, float]:
    return {k: float(v) for k, v in (("timeout", task.timeout), ("memory", task.memory)) if v}


def _limit_memory(limit: int | None) -> Any:
    """Refuse allocations beyond the limit, so that the method gets a MemoryError that can be reported.

    Only the soft limit is set: the returned function lifts it again to leave room for writing the row. On a machine
    with CUDA the address space says nothing about memory; there the runner's watch on resident memory serves alone.
    """
    if limit is None or torch.cuda.is_available():
        return lambda: None
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    held = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (held + limit, hard))
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _limit_cpu(task: Task) -> None:
    """A last resort for a worker whose runner died and whose interpreter is stuck: the kernel ends it."""
    if task.timeout:
        bound = int((os.cpu_count() or 1) * (task.timeout + 3600))
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (bound, bound))


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.killpg(0, 9)

    threading.Thread(target=watch, daemon=True).start()


def _redirect(output: str) -> None:
    """What a method prints goes to a file: the bench's own output must stay readable (and, with --json, JSON)."""
    sys.stdout.flush()
    sys.stderr.flush()
    fd = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _tell(pipe: Connection | None, phase: str) -> None:
    if pipe is not None:
        pipe.send(("phase", phase))

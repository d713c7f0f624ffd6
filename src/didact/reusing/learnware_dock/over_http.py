"""The dock as it is meant: a server in a process of its own, models submitted, users searching over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from didact.core.errors import DidactError, NotApplicable
from didact.core.method import Card
from didact.core.registry import register
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.crowd import Crowd
from didact.reusing.learnware_dock.dock import How
from didact.reusing.learnware_dock.identification import specifications_of
from didact.reusing.learnware_dock.reuse import reuse_from
from didact.reusing.problem import Reuser
from didact.reusing.request import ModelRecord, Request
from didact.reusing.result import ReuseResult

if TYPE_CHECKING:
    from didact.reusing.dock.records import LearnwareInfo

RAW = 1e-6  # a reduced point nearer than this to a row would give the row away


@register
class DockOverHTTP(Reuser):
    """Everything that learnware-dock does in memory, through a real dock: server, packages, checks, client.

    Use it to see that a dock gives over the wire what the method gives in memory, and to count what leaves a user.
    `didact dock serve` runs in a process of its own and a scratch folder; every model is packed and submitted with an
    account and checked in the sandbox; then each user, without an account, searches with a specification, downloads
    what was found and reuses it. The models are frozen.

    Errors: NotApplicable when a model cannot be packed; DidactError when the server does not start.

    Cost: starting the server and checking each model, some seconds each; otherwise that of learnware-dock.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427).
    """

    card = Card("dock-over-http", "Beimingwu: A Learnware Dock System", PAPER, kind="system", part_of="learnware-dock",
                needs=("users", "models", "data"))  # fmt: skip

    identify: str = "mixture"  #: single: the nearest; mixture: greedy, up to five; auto: one programme over all
    how: How = "auto"  #: which reuser makes the predictor of what was identified

    def solve(self, given: Request) -> ReuseResult:
        return self.apply(given)

    def apply(self, request: Request) -> ReuseResult:
        users = request.users if isinstance(request, Crowd) else (request,)
        gamma = specifications_of(request.need_models()[0])[0].gamma
        with tempfile.TemporaryDirectory(prefix="didact-dock-") as scratch:
            folder = Path(scratch)
            with served(folder / "dock", gamma) as url:
                packages = [packed(record, folder / f"{record.id}.zip", gamma) for record in request.models]
                infos = submitted(url, packages)
                names = {info.id: info.semantic.name for info in infos}
                answers, raw = [], 0
                for user in users:
                    case = Case.of(user)
                    answer, near = self.reuse_over(url, case)
                    answers.append(_named(answer, names))
                    raw += near
        usable = sum(info.status == "SUCCESS" and info.usable == 1 for info in infos)
        cost = {name: float(np.mean([one.cost[name] for one in answers])) for name in answers[0].cost}
        numbers = {"submitted": float(usable), "raw_rows_sent": float(raw)}
        return ReuseResult(cost=cost, extras={"users": tuple(answers), "numbers": numbers})

    def reuse_over(self, url: str, case: Case) -> tuple[ReuseResult, int]:
        """A user's answer, and how many of the reduced points that were sent lie on a row."""
        from didact.reusing.dock import DockClient

        labelled = None if case.targets is None else (case.labelled, case.targets)
        with DockClient(url) as client:
            answer = reuse_from(
                client,
                case.inputs,
                labelled,
                how=self.how,
                identify=self.identify,
                classes=case.classes,
                seed=case.seed,
            )
            sent = client.specify(case.inputs, seed=case.seed)
        apart = np.linalg.norm(sent.z[:, None] - case.inputs.reshape(len(case.inputs), -1)[None], axis=-1)
        return answer, int((apart.min(axis=1) < RAW).sum())


@contextmanager
def served(folder: Path, gamma: float | None = None, *options: str) -> Iterator[str]:
    """A dock's server in a process of its own, on a free port of this machine; yields its address."""
    command = [sys.executable, "-m", "didact.cli", "dock", "serve", "--folder", str(folder), "--port", "0", "--json"]
    command += ["--requests", "100000", *options] + ([] if gamma is None else ["--gamma", repr(gamma)])
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = folder.parent / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env={**os.environ})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            raise DidactError(f"The dock's server did not start: {log.read_text(errors='replace')[-2000:]}")
        yield str(json.loads(line)["url"])
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def submitted(url: str, packages: Sequence[Path], name: str = "developer") -> list[LearnwareInfo]:
    """Submit packages with a new account, and wait until all have been checked."""
    from didact.reusing.dock import DockClient

    with DockClient(url) as client:
        password = "a long enough password"
        client.register(name, f"{name}@example.org", password)
        client.login(name, password)
        taken = [client.submit(package) for package in packages]
        return [client.wait(info.id) for info in taken]


def packed(record: ModelRecord, path: Path, gamma: float | None = None) -> Path:
    """A model of a hub as a package, with its specification at the dock's kernel width."""
    from didact.reusing.dock import write_package

    found = [s for s in specifications_of(record) if gamma in (None, s.gamma)]
    if not found or record.semantic is None:
        raise NotApplicable(f"{record.id} needs a semantic and a statistical specification to be submitted to a dock.")
    written: Path = write_package(
        path, record.load(), semantic=record.semantic, specification=found[0], input_shape=record.input_shape
    )
    return written


def _named(answer: ReuseResult, names: dict[str, str]) -> ReuseResult:
    """An answer that speaks of the hub's ids in place of the dock's."""

    def renamed(scores: Any) -> dict[str, float]:
        return {names.get(id, id): value for id, value in scores.items()}

    return replace(answer, ranking=renamed(answer.ranking), weights=renamed(answer.weights))

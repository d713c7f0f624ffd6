"""What the bench costs beyond the methods: cells that do nothing, and how fast the command answers.

    python benchmarks/overhead.py            # 500 no-op cells; prints JSON

The problem and the method do nothing, so the wall time divided by the number of cells is the bench's own work:
forking a worker, building, metering, scoring, sending the row, writing it to the ledger.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import didact
from didact.core.method import Card, Method
from didact.core.metric import Metric, Primary
from didact.core.problem import Family, Problem
from didact.core.registry import register, register_family
from didact.engine.bench import bench

register_family(
    Family(
        name="nothing",
        title="Nothing",
        verb="do_nothing",
        metrics=(Metric("value", "always 1"), Metric("other", "always 0", "lower")),
        primary=Primary("value"),
        tuning=Primary("value"),
        default_problem="",
        trade_off=("value", "other"),
    )
)


@register
class DoNothing(Method):
    """Answers 1 at once."""

    family: ClassVar[str] = "nothing"
    card = Card("do-nothing", "Nothing")

    def solve(self, given: Any) -> float:
        return 1.0


@dataclass
class Nothing(Problem[None, None]):
    def score(self, answer: Any) -> dict[str, float]:
        return {"value": answer, "other": 0.0}

    def validate(self, answer: Any) -> dict[str, float]:
        return {"value": answer}


def make(seed: int = 0) -> Nothing:
    return Nothing(None, lambda: None)


def seconds_per_cell(cells: int, jobs: int) -> float:
    """Wall seconds a cell of one bench, after the fork server is up (a first small bench starts it)."""
    here = Path(__file__).resolve()
    with tempfile.TemporaryDirectory() as folder:
        options = {"problem": f"{here}:make", "methods": [f"{here}:DoNothing"], "jobs": jobs, "quiet": True}
        bench("nothing", seeds=2, ledger=f"{folder}/warm.sqlite", **options)
        start = time.perf_counter()
        found = bench("nothing", seeds=cells, ledger=f"{folder}/ledger.sqlite", **options)
        spent = time.perf_counter() - start
    assert all(row.status == "done" for row in found.rows)
    assert len(found.rows) == cells
    return spent / cells


def help_seconds(runs: int = 7) -> float:
    """Median wall seconds of `didact --help`."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "didact.cli", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return sorted(times)[runs // 2]


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    measured = {
        "didact": didact.__version__,
        "cells": count,
        "ms_per_cell_one_job": 1000 * seconds_per_cell(count, jobs=1),
        "ms_per_cell_two_jobs": 1000 * seconds_per_cell(count, jobs=2),
        "help_ms": 1000 * help_seconds(),
    }
    print(json.dumps(measured, indent=2))

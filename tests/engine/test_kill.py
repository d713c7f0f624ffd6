"""Kill the bench and its workers at random moments: after resuming, the ledger is that of an undisturbed run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from didact.engine.ledger import Ledger

HERE = Path(__file__).parent
FILE = HERE / "hostile.py"
METHODS = ",".join([f"{FILE}:Sleeps:seconds={s}" for s in (0.05, 0.1)] + ["fine-tune", "gradient-ascent"])


def command(ledger: str, out: Path) -> list[str]:
    options = ["--problem", f"{FILE}:make", "--methods", METHODS, "--seeds", "3", "--jobs", "2"]
    places = ["--ledger", ledger, "--out", str(out)]
    return [sys.executable, "-m", "didact.cli", "bench", "forgetting", *options, *places]


def snapshot(ledger: str) -> dict[str, str]:
    return {row.key: json.dumps([row.status, row.metrics, row.cost["passes"]]) for row in Ledger(ledger).rows()}


def start(ledger: str, out: Path) -> subprocess.Popen:
    return subprocess.Popen(command(ledger, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def workers(bench: subprocess.Popen) -> list[psutil.Process]:
    """Grandchildren: the fork server is the bench's child, the cells are the server's."""
    try:
        found = psutil.Process(bench.pid).children(recursive=True)
        return [p for p in found if p.ppid() != bench.pid]
    except psutil.Error:
        return []


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(tmp_path):
    kill_and_resume(tmp_path, kills=20, seed=1)


def test_two_kills_lose_nothing_and_repeat_nothing(tmp_path):
    kill_and_resume(tmp_path, kills=2, seed=2)


def kill_and_resume(tmp_path: Path, kills: int, seed: int) -> None:
    calm, wild = str(tmp_path / "calm.sqlite"), str(tmp_path / "wild.sqlite")
    assert start(calm, tmp_path / "calm").wait(120) == 0
    expected = snapshot(calm)
    assert len(expected) == 12
    rng = random.Random(seed)
    done = 0
    while done < kills:
        bench = start(wild, tmp_path / "wild")
        if rng.random() < 0.5:
            done += kill_a_worker(bench, rng)
            if rng.random() < 0.5 and bench.poll() is None:
                bench.wait(120)
                Path(wild).unlink(missing_ok=True)  # begin anew, so that there is something left to kill
                continue
        time.sleep(rng.uniform(0.0, 4.0))
        if bench.poll() is None:
            os.kill(bench.pid, signal.SIGKILL)
            done += 1
        bench.wait(60)
        if len(snapshot(wild)) == len(expected):
            assert snapshot(wild) == expected
            for file in tmp_path.glob("wild.sqlite*"):
                file.unlink()
    assert start(wild, tmp_path / "wild").wait(120) == 0
    assert snapshot(wild) == expected
    assert not [p for p in psutil.process_iter(["cmdline"]) if wild in " ".join(p.info["cmdline"] or [])]


def kill_a_worker(bench: subprocess.Popen, rng: random.Random) -> int:
    end = time.monotonic() + 30
    while time.monotonic() < end and bench.poll() is None:
        found = workers(bench)
        if found:
            time.sleep(rng.uniform(0, 0.3))
            try:
                rng.choice(found).kill()
                return 1
            except psutil.Error:
                continue
        time.sleep(0.005)
    return 0

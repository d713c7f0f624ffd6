"""50 clients who search a dock and download from it for a minute, over real HTTP on loopback.

python benchmarks/dock_load.py [--clients 50] [--seconds 60] [--learnwares 200] [--pause 0]

The server is a process of its own (`didact dock serve`). Every client, a thread with a connection of its own, asks in
turn: search with a specification of 200 rows (every second time with words too), look at the best, download it and
check its hash. With `--pause` a client rests that many seconds between requests, as people do; without it the server
is always busy, and the times are those of 50 requests waiting at once. Printed are the requests, the errors, and the
median and the 99th percentile of the time from a request to the last byte of its answer.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sklearn.linear_model import LogisticRegression

from didact.reusing.dock import Dock, DockSettings, SemanticSpecification, specify, write_package
from didact.reusing.dock.storage.work import Outcome

COLUMNS, ROWS, POINTS = 20, 200, 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--learnwares", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fill(folder, options.learnwares)
        command = [sys.executable, "-m", "didact.cli", "dock", "serve", "--folder", str(folder / "dock"), "--json"]
        command += ["--port", "0", "--requests", "1e9", "--no-checker"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            report(*load(url, options.clients, options.seconds, options.pause), options.seconds)
        finally:
            server.terminate()
            server.wait()


def fill(folder: Path, learnwares: int) -> None:
    """Learnwares of about 50 kB, judged usable without a check: serving is what is measured."""
    dock = Dock(DockSettings(folder=folder / "dock"))
    rng = np.random.default_rng(0)
    for number in range(learnwares):
        x = rng.normal(rng.normal(0.0, 1.0, COLUMNS), 1.0, (2 * POINTS, COLUMNS))
        words = SemanticSpecification(
            name=f"learnware {number}",
            data="Table",
            task="Classification",
            library="scikit-learn",
            input={"dimension": COLUMNS},
            output={"dimension": 2},
        )
        path = write_package(
            folder / "package.zip",
            LogisticRegression().fit(x, x[:, 0] > x[:, 0].mean()),
            semantic=words,
            specification=specify(x, "Table", k=POINTS),
            input_shape=(COLUMNS,),
            output_shape=(2,),
        )
        id = dock.submit(path).id
        item = dock.work.take("benchmark", 60.0)
        assert item is not None
        assert item.id == id
        dock.work.finish(id, "benchmark", Outcome(1, "", ""))
    dock.close()


def load(url: str, clients: int, seconds: float, pause: float) -> tuple[dict[str, list[float]], Counter[str]]:
    """Seconds of every request by kind, and errors by what they said."""
    rng = np.random.default_rng(1)
    asked = [
        json.dumps(specify(rng.normal(rng.normal(0.0, 1.0, COLUMNS), 1.0, (ROWS, COLUMNS)), "Table").to_json())
        for _ in range(10)
    ]
    end = time.perf_counter() + seconds
    people = [Person(url, asked, end, pause, number) for number in range(clients)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    times: dict[str, list[float]] = defaultdict(list)
    errors: Counter[str] = Counter()
    for person in people:
        for kind, taken in person.times.items():
            times[kind] += taken
        errors += person.errors
    return times, errors


class Person(threading.Thread):
    def __init__(self, url: str, asked: list[str], end: float, pause: float, number: int) -> None:
        super().__init__(daemon=True)
        self.http = httpx.Client(base_url=url, timeout=60.0)
        self.asked, self.end, self.pause = asked, end, pause
        self.random = random.Random(number)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.errors: Counter[str] = Counter()

    def run(self) -> None:
        while time.perf_counter() < self.end:
            try:
                self.visit()
            except Exception as error:
                self.errors[f"{type(error).__name__}: {error}"] += 1

    def visit(self) -> None:
        files: dict[str, Any] = {"specification": ("stat.json", self.random.choice(self.asked)), "limit": (None, "20")}
        if self.random.random() < 0.5:
            files["semantic"] = (None, '{"task": "Classification", "text": "learnware"}')
        found = self.timed("search", "POST", "/v1/search", files=files).json()
        best = self.random.choice(found["single"][:5])["learnware"]
        self.timed("look", "GET", f"/v1/learnwares/{best['id']}")
        content = self.timed("download", "GET", f"/v1/learnwares/{best['id']}/download").content
        if hashlib.sha256(content).hexdigest() != best["sha256"]:
            raise ValueError("the download's hash is wrong")

    def timed(self, kind: str, method: str, path: str, **content: Any) -> httpx.Response:
        began = time.perf_counter()
        response = self.http.request(method, path, **content)
        self.times[kind].append(time.perf_counter() - began)
        response.raise_for_status()
        if self.pause:
            time.sleep(self.random.uniform(0.5, 1.5) * self.pause)
        return response


def report(times: dict[str, list[float]], errors: Counter[str], seconds: float) -> None:
    everything = [taken for kind in times.values() for taken in kind]
    print(f"{'request':<10}{'count':>8}{'per second':>12}{'median ms':>12}{'99 % ms':>12}")
    for kind, taken in [*times.items(), ("all", everything)]:
        median, tail = statistics.median(taken), float(np.quantile(taken, 0.99))
        print(f"{kind:<10}{len(taken):>8}{len(taken) / seconds:>12.1f}{1e3 * median:>12.1f}{1e3 * tail:>12.1f}")
    print(f"errors: {sum(errors.values())}")
    for error, count in errors.most_common(5):
        print(f"  {count} x {error}")


if __name__ == "__main__":
    main()

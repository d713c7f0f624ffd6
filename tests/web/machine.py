"""One machine of test_two_machines: a process that knows the dock by its address alone.

python machine.py submit URL NAME FOLDER DIGITS   trains a model on some digits and submits it
python machine.py use URL FOLDER DIGITS           has unlabelled digits, searches, reuses, writes what it predicts
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from didact.reusing.dock import DockClient, SemanticSpecification, write_package


def rows(digits: str, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Every second of the samples of some digits, shape (n, 64), values 0 to 1."""
    x, y = load_digits(return_X_y=True)
    mine = np.isin(y, [int(digit) for digit in digits]) & (np.arange(len(y)) % 2 == part)
    return x[mine] / 16.0, y[mine]


def submit(url: str, name: str, folder: Path, digits: str) -> dict:
    dock = DockClient(url)
    dock.register(name, f"{name}@example.org", "correct horse battery")
    dock.login(name, "correct horse battery")
    x, y = rows(digits, 0)
    semantic = SemanticSpecification(
        name=f"digits {digits}",
        data="Table",
        task="Classification",
        library="scikit-learn",
        input={"dimension": 64},
        output={"dimension": len(digits), "description": dict(enumerate(digits))},
    )
    package = write_package(
        folder / f"{name}.zip",
        LogisticRegression(max_iter=2000).fit(x, y),
        semantic=semantic,
        specification=dock.specify(x),
        input_shape=(64,),
        output_shape=(len(digits),),
    )
    info = dock.wait(dock.submit(package).id, timeout=300)
    return {"id": info.id, "status": info.status, "log": dock.log(info.id), "bytes_sent": dock.bytes_sent}


def use(url: str, folder: Path, digits: str) -> dict:
    dock = DockClient(url)
    x, y = rows(digits, 1)
    found = dock.search(x)
    answer = dock.reuse(x, classes=tuple("0123456789"), how="auto")
    guessed = np.asarray(answer.predict(x.astype(np.float32))).argmax(1)
    return {
        "best": found.single[0].info.id,
        "mixture": [info.id for info in found.mixture.learnwares] if found.mixture else [],
        "accuracy": float((guessed == y).mean()),
        "bytes_sent": dock.bytes_sent,
        "told": dict(answer.cost),
    }


if __name__ == "__main__":
    what, url, *rest = sys.argv[1:]
    if what == "submit":
        done = submit(url, rest[0], Path(rest[1]), rest[2])
    else:
        done = use(url, Path(rest[0]), rest[1])
    print(json.dumps(done))

"""Packages for the tests of the dock: they can be opened, but what they hold as weights is none."""

import json
import zipfile
from pathlib import Path

import numpy as np

from didact.reusing.dock.specification import Specification


def words(name: str = "a model", **changes) -> dict:
    """A semantic specification of a classifier of tables."""
    plain = {
        "name": name,
        "data": "Table",
        "task": "Classification",
        "library": "PyTorch",
        "scenario": ["Education"],
        "licence": "MIT",
        "input": {"dimension": 4},
        "output": {"dimension": 3, "description": {"0": "red", "1": "green", "2": "blue"}},
    }
    return {**plain, **changes}


def statistics(centre: float = 0.0, gamma: float = 0.1, seed: int = 0) -> Specification:
    z = np.random.default_rng(seed).normal(centre, 0.3, (5, 4))
    return Specification("rkme-table", gamma, "", z, np.full(5, 0.2))


def write(
    name: str = "a model", centre: float = 0.0, gamma: float = 0.1, weights: bytes = b"", *, folder: Path, **changes
) -> Path:
    """A package called `name` with statistics around `centre`. Only a real check tells that it cannot be loaded."""
    # ZipInfo leaves out the time of day: the same package has the same bytes.
    path = Path(folder) / f"{name}.zip"
    model = {"runtime": "torch", "file": "model.safetensors", "architecture": "mlp", "options": {}}
    manifest = {
        "format": 1,
        "tier": "safe",
        "model": model,
        "stat_specifications": [{"type": "rkme-table", "file_name": "stat.json"}],
        "input_shape": [4],
        "output_shape": [3],
    }
    seed = sum(name.encode())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("learnware.yaml"), json.dumps(manifest))
        archive.writestr(zipfile.ZipInfo("semantic.json"), json.dumps(words(name, **changes)))
        archive.writestr(zipfile.ZipInfo("stat.json"), json.dumps(statistics(centre, gamma, seed).to_json()))
        archive.writestr(zipfile.ZipInfo("model.safetensors"), weights or name.encode())
    return path

"""Workpieces: models trained once by a recipe and cached by everything that decides them."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.batches import as_tensors
from didact.core.cache import cache_folder
from didact.core.recipe import Recipe


def trained(recipe: Recipe, dataset: Dataset[Any], seed: int, **fit_options: Any) -> nn.Module:
    """`recipe.fit(dataset, seed)`, from the cache when the same recipe met the same data and seed before.

    Two processes that want the same workpiece train it once: the second waits.
    """
    key = {"recipe": recipe.key, "data": digest(dataset), "seed": seed, "options": fit_options}
    return cached(key, lambda: recipe.fit(dataset, seed, **fit_options), lambda: recipe.fresh(seed))


def cached(key: dict[str, Any], train: Callable[[], nn.Module], blank: Callable[[], nn.Module]) -> nn.Module:
    """A trained model from the cache, or trained now. `blank` makes the untrained model to load weights into."""
    model = blank()
    # Sums over several threads round differently: a library call and a bench cell must not share a workpiece.
    decides = {**key, "model": _architecture(model), "loop": _loop_version(), "threads": torch.get_num_threads()}
    text = json.dumps(decides, sort_keys=True, default=str)
    folder = cache_folder() / "workpieces"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (hashlib.sha256(text.encode()).hexdigest()[:24] + ".safetensors")
    if not file.exists():
        with FileLock(f"{file}.lock"):
            if not file.exists():
                scratch = file.with_name(f"{file.name}.{os.getpid()}.tmp")
                save_model(train(), str(scratch))
                scratch.replace(file)  # a reader sees the whole file or none
    # Also the process that trained it reads it back, so that the first and the hundredth user hold the same model.
    load_model(model, str(file))
    return model.eval()


def digest(dataset: Dataset[Any]) -> str:
    """Hash of a dataset's contents. Cost: one pass over it."""
    sha = hashlib.sha256()
    tensors = as_tensors(dataset)
    for part in tensors if tensors is not None else (dataset[i] for i in range(len(dataset))):  # type: ignore[arg-type]
        _update(sha, part)
    return sha.hexdigest()[:24]


def _update(sha: Any, part: Any) -> None:
    if isinstance(part, Tensor):
        part = part.detach().cpu().contiguous()
        sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
        sha.update(part.flatten().view(torch.uint8).numpy().tobytes() if part.numel() else b"")
    elif isinstance(part, dict):
        for key in sorted(part):
            sha.update(str(key).encode())
            _update(sha, part[key])
    elif isinstance(part, (tuple, list)):
        for item in part:
            _update(sha, item)
    else:
        sha.update(repr(part).encode())


def _architecture(model: nn.Module) -> list[str]:
    """What a model is built of: its printed form and the source of its class, so that an edited class is a new key."""
    source = inspect.getsourcefile(type(model))
    return [repr(model), hashlib.sha256(Path(source).read_bytes() if source else b"").hexdigest()[:16]]


def _loop_version() -> str:
    """Hash of the code that trains, and torch's version: a changed loop makes new workpieces."""
    from didact.core import batches, fit, recipe

    sha = hashlib.sha256(torch.__version__.encode())
    for module in (batches, fit, recipe):
        sha.update(Path(module.__file__ or "").read_bytes())
    return sha.hexdigest()[:16]

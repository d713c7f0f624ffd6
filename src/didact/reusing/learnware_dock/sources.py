"""A model that is reused as it is: what it puts out, in the order of the user's classes, and how it is stored."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from didact.core.errors import BadInput, NotApplicable
from didact.models.artifacts import load, save, stored_bytes
from didact.reusing.ensemble import align
from didact.reusing.request import ModelRecord
from didact.reusing.result import NetworkPredictor

Array = NDArray[np.float64]

ABOUT, PACKAGE, MODEL, MAPPER = "source.json", "learnware.zip", "model", "mapper"


@dataclass(frozen=True, eq=False)
class Source:
    """A learnware in use: a network, or anything with `predict`.

    `mapper` brings the user's inputs (n, columns) into the model's own input space when that is another one.
    """

    id: str
    model: Any
    classes: tuple[str, ...] = ()  #: what its outputs mean, in order; empty for a regressor
    mapper: nn.Module | None = None
    shape: tuple[int, ...] = ()  #: of one input of the model; needed with a mapper

    @classmethod
    def of(cls, record: ModelRecord) -> Source:
        return cls(record.id, record.load(), tuple(record.classes), shape=tuple(record.input_shape))

    def outputs(self, inputs: Any) -> Array:
        """What the model puts out, (n, outputs). A classifier's labels become rows of zeros and a one."""
        if self.mapper is not None:
            inputs = NetworkPredictor(self.mapper).predict(_rows(inputs)).reshape(len(inputs), *self.shape)
        if isinstance(self.model, nn.Module):
            found = NetworkPredictor(self.model).predict(_tensor(inputs))
        else:
            found = np.asarray(self.model.predict(_plain(inputs)))
        return self._table(found, len(inputs))

    def probabilities(self, inputs: Any) -> Array:
        """(n, outputs): the outputs when their rows are probabilities already, else their softmax."""
        found = self.outputs(inputs)
        are = found.min(initial=0.0) >= 0.0 and bool(np.allclose(found.sum(1), 1.0, atol=1e-4))
        return found if are else np.asarray(softmax(found, axis=1))

    def aligned(self, scores: Array, classes: tuple[str, ...]) -> tuple[Array, NDArray[np.bool_]]:
        """Columns in the order of the user's classes, and which of them the model knows."""
        known = self.classes or classes  # a model that does not name its outputs is taken at their number
        return align(scores, known, classes)

    def save(self, folder: Path) -> None:
        """A network as weights, a learnware from a dock as its package."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {"id": self.id, "classes": self.classes, "shape": self.shape}
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        if self.mapper is not None:
            save(self.mapper, folder / MAPPER)
        if isinstance(self.model, nn.Module):
            save(self.model, folder / MODEL)
        else:
            shutil.copyfile(_package_of(self), folder / PACKAGE)

    @classmethod
    def open(cls, folder: Path) -> Source:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        mapper = load(folder / MAPPER) if (folder / MAPPER).is_dir() else None
        model = load(folder / MODEL) if (folder / MODEL).is_dir() else opened(folder / PACKAGE)
        return cls(about["id"], model, tuple(about["classes"]), mapper, tuple(about["shape"]))

    @property
    def parameters(self) -> int:
        """Numbers of the model; where they cannot be counted, those that its file could hold in single precision."""
        network = self.model if isinstance(self.model, nn.Module) else getattr(self.model, "module", None)
        if isinstance(network, nn.Module):
            return sum(p.numel() for p in network.parameters())
        path = getattr(self.model, "path", None)
        return path.stat().st_size // 4 if isinstance(path, Path) and path.is_file() else 0

    @property
    def stored_bytes(self) -> int:
        mapper = stored_bytes(self.mapper) if self.mapper is not None else 0
        own = stored_bytes(self.model) if isinstance(self.model, nn.Module) else _package_of(self).stat().st_size
        return mapper + own

    def _table(self, found: NDArray[Any], samples: int) -> Array:
        outputs = len(self.classes)
        labels = found.size == samples and outputs > 1
        if labels and np.issubdtype(found.dtype, np.floating) and not np.all(found == np.round(found)):
            second = np.clip(found.reshape(samples), 0.0, 1.0)  # one number for two classes: of the second
            return np.stack([1.0 - second, second], axis=1)
        if labels:
            return np.asarray(np.eye(outputs)[found.reshape(samples).astype(int).clip(0, outputs - 1)])
        if found.shape[:1] != (samples,):
            raise BadInput(
                f"The model {self.id} answered an array of {found.shape} for {samples} samples; expected one row each."
            )
        return np.asarray(found, dtype=np.float64).reshape(samples, -1)


def opened(package: Path) -> Any:
    """The learnware of a package; one with code of its own runs in a sandbox only."""
    from didact.reusing.dock import Sandbox, load_package, open_package

    read = open_package(package)
    code = read.tier == "code"
    learnware = load_package(read, allow_code=code, sandbox=Sandbox() if code else None)
    return Packaged(learnware, package)


class Packaged:
    """A learnware together with the file it came in, so that it can be stored again."""

    def __init__(self, learnware: Any, path: Path) -> None:
        self.learnware, self.path = learnware, path

    @property
    def module(self) -> nn.Module | None:
        found: nn.Module | None = self.learnware.module
        return found

    def predict(self, inputs: Any) -> NDArray[Any]:
        return np.asarray(self.learnware.predict(inputs))


def _package_of(source: Source) -> Path:
    path = getattr(source.model, "path", None)
    if not isinstance(path, Path) or not path.is_file():
        raise NotApplicable(
            f"The model {source.id} is neither a network nor did it come in a package, so it cannot be stored. "
            "Give it a `path` to its learnware package."
        )
    return path


def _tensor(inputs: Any) -> Any:
    x = inputs if isinstance(inputs, torch.Tensor) else torch.as_tensor(np.asarray(inputs))
    return x.float() if x.is_floating_point() else x


def _plain(inputs: Any) -> Any:
    """As a learnware takes them: float32 arrays, or texts as they are."""
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.detach().cpu().numpy()
    if isinstance(inputs, np.ndarray):
        return inputs.astype(np.float32) if inputs.dtype == np.float64 else inputs
    return list(inputs)


def _rows(inputs: Any) -> torch.Tensor:
    x = torch.as_tensor(np.asarray(inputs))
    return x.reshape(len(x), -1).float()

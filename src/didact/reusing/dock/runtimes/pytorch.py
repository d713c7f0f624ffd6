"""Networks: weights in safetensors for an architecture that didact builds by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from didact.core.errors import BadInput, DidactError
from didact.core.recipe import seeded
from didact.models.small import build
from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.package.manifest import Registered
from didact.reusing.dock.package.opening import Package
from didact.reusing.dock.runtimes.base import Learnware

WEIGHTS = "model.safetensors"
_BATCH = 32
_LONGEST_OPTION = 2000  # letters of the options: they are a few numbers


class TorchLearnware(Learnware):
    """A network in evaluation mode. `finetune` trains all its parameters in place, `fit` starts from a fresh one.

    Trained with Adam on cross-entropy (classification; labels are numbers of classes) or the squared error.
    """

    def __init__(self, package: Package) -> None:
        assert package.input_shape is not None
        assert package.output_shape is not None
        super().__init__(package, package.input_shape, package.output_shape)
        self._model = _load(package)

    @property
    def module(self) -> nn.Module:
        return self._model

    def fit(self, x: Any, y: np.ndarray) -> None:
        with seeded(0):
            self._model = build(**_settings(self.package))
        self.finetune(x, y, epochs=20)

    def finetune(self, x: Any, y: np.ndarray, epochs: int = 10, lr: float = 1e-3) -> None:
        inputs, targets, loss_of = *self._pairs(x, y), self._loss()
        order = torch.Generator().manual_seed(0)
        optimizer = torch.optim.Adam(self._model.parameters(), lr)
        self._model.train()
        try:
            with seeded(0):
                for _ in range(epochs):
                    for batch in torch.split(torch.randperm(len(inputs), generator=order), _BATCH):
                        optimizer.zero_grad()
                        loss: Any = loss_of(self._model(inputs[batch]), targets[batch])
                        loss.backward()
                        optimizer.step()
        finally:
            self._model.eval()

    def _predict(self, inputs: np.ndarray) -> np.ndarray:
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            outputs = self._model(torch.as_tensor(np.ascontiguousarray(inputs), dtype=torch.float32, device=device))
        if not isinstance(outputs, Tensor):
            raise BadInput(f"The network returns a {type(outputs).__name__}; a learnware's returns one tensor.")
        made: np.ndarray = outputs.float().cpu().numpy()
        return made

    def _pairs(self, x: Any, y: np.ndarray) -> tuple[Tensor, Tensor]:
        inputs, labels = torch.as_tensor(self._checked(x), dtype=torch.float32), np.asarray(y)
        if len(inputs) == 0 or len(inputs) != len(labels):
            raise BadInput(f"Each input needs a label; {len(inputs)} inputs and {len(labels)} labels came.")
        if self.package.semantic.task != "Classification":
            return inputs, torch.as_tensor(labels, dtype=torch.float32).reshape(len(labels), *self.output_shape)
        classes = self.output_shape[0] if self.output_shape else 0
        if labels.dtype.kind not in "iu" or labels.ndim != 1 or labels.min() < 0 or labels.max() >= classes:
            raise BadInput(f"Labels are numbers of classes from 0 to {classes - 1}, one for each input.")
        return inputs, torch.as_tensor(labels, dtype=torch.long)

    def _loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        return F.cross_entropy if self.package.semantic.task == "Classification" else F.mse_loss


def weights_of(model: nn.Module) -> bytes:
    """A network's state in safetensors; tensors that share memory are written out for each name."""
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()})


def _load(package: Package) -> nn.Module:
    data = package.read(package.manifest.model.file)
    shapes = _header(data)
    # First without memory: options are checked against the file before anything of their size is allocated.
    with torch.device("meta"):
        blank = _build(package)
    wanted = {name: tuple(tensor.shape) for name, tensor in blank.state_dict().items()}
    if wanted != shapes:
        odd = sorted(set(wanted.items()) ^ set(shapes.items()))[0][0]
        raise BadPackage(
            "bad-weights",
            f"The weights do not fit the architecture at {odd[:100]!r}: the file has "
            f"{shapes.get(odd, 'nothing')}, the architecture {wanted.get(odd, 'nothing')}.",
        )
    model = _build(package)
    try:
        model.load_state_dict(load(data))
    except (RuntimeError, SafetensorError, ValueError) as error:
        raise BadPackage("bad-weights", f"The weights cannot be loaded: {str(error)[:300]}") from None
    return model.eval()


def _build(package: Package) -> nn.Module:
    settings = _settings(package)
    if len(json.dumps(settings)) > _LONGEST_OPTION:
        raise BadPackage("bad-architecture", "The options of the architecture are longer than any network needs.")
    try:
        return build(**settings)
    except (DidactError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        raise BadPackage(
            "bad-architecture", f"{settings['name']!r} cannot be built with these options: {str(error)[:300]}"
        ) from None


def _settings(package: Package) -> dict[str, Any]:
    model = package.manifest.model
    assert isinstance(model, Registered)
    if "name" in model.options:
        raise BadPackage("bad-architecture", "An architecture has no option `name`.")
    return {"name": model.architecture, **model.options}


def _header(data: bytes) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor, from a safetensors file's header; sizes are checked by its own reader later."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        shapes = {name: tuple(int(n) for n in entry["shape"]) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BadPackage("bad-weights", "The weights are not a safetensors file.") from None
    if sum(math.prod(shape) for shape in shapes.values()) > len(data):
        raise BadPackage("bad-weights", "The weights file is shorter than the tensors that it lists.")
    return shapes

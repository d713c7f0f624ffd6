"""What every learnware can do once it is loaded, whatever it was made with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from didact.core.errors import BadInput, NotApplicable

if TYPE_CHECKING:
    from torch import nn

    from didact.reusing.dock.package import Package

_BATCH = 256  # inputs that are predicted at once


class Learnware(ABC):
    """A loaded model: arrays in, arrays out.

    `predict` takes (N, *input_shape) numbers, or a list of N texts when `input_shape` is (), and returns
    (N, *output_shape): scores, probabilities or values as the model makes them; numbers of classes when the task is
    classification and `output_shape` is (). Nothing it is given is changed.
    """

    def __init__(self, package: Package, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> None:
        self.package = package
        self.input_shape = input_shape
        self.output_shape = output_shape

    @property
    def module(self) -> nn.Module | None:
        """The network itself, when it is one."""
        return None

    @property
    def takes_text(self) -> bool:
        return self.package.semantic.data == "Text"

    def predict(self, x: np.ndarray | Sequence[str]) -> np.ndarray:
        """The outputs for N inputs.

        Errors: BadInput when inputs have another shape or are no numbers (no texts).
        """
        inputs = self._checked(x)
        if not len(inputs):
            return np.zeros((0, *self.output_shape), dtype=np.float32)
        parts = [self._predict(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)]
        return self._shaped(np.concatenate(parts), len(inputs))

    def fit(self, x: np.ndarray | Sequence[str], y: np.ndarray) -> None:
        """Train anew, from nothing. Errors: NotApplicable where the runtime cannot train."""
        raise self._cannot("be trained")

    def finetune(self, x: np.ndarray | Sequence[str], y: np.ndarray, epochs: int = 10, lr: float = 1e-3) -> None:
        """Train on from where it is. Errors: NotApplicable where the runtime cannot train on."""
        raise self._cannot("be trained on")

    def close(self) -> None:
        """Let go of what it holds. Only a learnware in a sandbox holds anything."""

    @abstractmethod
    def _predict(self, inputs: Any) -> np.ndarray:
        """Outputs for one batch of checked inputs."""

    def _checked(self, x: np.ndarray | Sequence[str]) -> Any:
        if self.takes_text:
            texts = list(x)
            if isinstance(x, str) or not all(isinstance(text, str) for text in texts):
                raise BadInput("This learnware reads texts: pass a list of them.")
            return texts
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise BadInput(f"This learnware takes numbers, but an array of {array.dtype} was given.")
        if array.shape[1:] != self.input_shape or array.ndim == 0:
            raise BadInput(
                f"This learnware takes inputs of shape (N, {', '.join(map(str, self.input_shape))}), but "
                f"{array.shape} was given. Reshape the data, or search for a learnware of its shape."
            )
        return array

    def _shaped(self, outputs: np.ndarray, count: int) -> np.ndarray:
        """(N, 1) and (N,) are the same to many libraries; here they are what was declared."""
        wanted = (count, *self.output_shape)
        alike = outputs.shape[:1] == (count,) and outputs.size == count and np.prod(self.output_shape, dtype=int) == 1
        return outputs.reshape(wanted) if alike else outputs

    def _cannot(self, do: str) -> NotApplicable:
        return NotApplicable(f"A learnware of the runtime {self.package.manifest.runtime!r} cannot {do}.")

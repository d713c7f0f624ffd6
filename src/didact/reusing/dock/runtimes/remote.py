"""A learnware that runs in the sandbox: each call goes to a worker and comes back as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from didact.core.errors import BadInput
from didact.reusing.dock.runtimes.base import Learnware
from didact.reusing.dock.sandbox.failures import SandboxFailure

if TYPE_CHECKING:
    from didact.reusing.dock.package import Package
    from didact.reusing.dock.sandbox import Sandbox, Session


class SandboxedLearnware(Learnware):
    """A package in a worker of its own, which is started at once and ended by `close` or with the program.

    A worker that failed is started anew on the next call; what was learned by `fit` or `finetune` is lost with it.
    """

    def __init__(self, package: Package, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._session: Session | None = None
        self._trained = False
        super().__init__(package, package.input_shape or (), package.output_shape or ())
        said = self._worker().about
        self.input_shape, self.output_shape = tuple(said["input_shape"]), tuple(said["output_shape"])

    def fit(self, x: Any, y: np.ndarray) -> None:
        self._train("fit", x, y)

    def finetune(self, x: Any, y: np.ndarray, epochs: int = 10, lr: float = 1e-3) -> None:
        self._train("finetune", x, y, epochs=epochs, lr=lr)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _predict(self, inputs: Any) -> np.ndarray:
        outputs = self._ask("predict", inputs).get("outputs")
        if outputs is None or outputs.shape[:1] != (len(inputs),):
            raise SandboxFailure("bad-answer", f"{len(inputs)} inputs were sent; the answer has another number.")
        return outputs

    def _train(self, command: str, x: Any, y: np.ndarray, **options: Any) -> None:
        labels = np.asarray(y)
        if labels.dtype.kind not in "biuf":
            raise BadInput(f"Labels are numbers, but an array of {labels.dtype} was given.")
        self._ask(command, self._checked(x), {"y": labels}, **options)
        self._trained = True

    def _ask(
        self, command: str, inputs: Any, arrays: dict[str, np.ndarray] | None = None, **options: Any
    ) -> dict[str, np.ndarray]:
        worker = self._worker()
        if self.takes_text:
            return worker.call(command, arrays or {}, texts=list(inputs), **options)[1]
        return worker.call(command, {"x": inputs, **(arrays or {})}, **options)[1]

    def _worker(self) -> Session:
        if self._session is None or self._session.ended:
            if self._trained:
                raise SandboxFailure("crashed", "The worker has ended, and with it what was learned. Load it anew.")
            self._session = self._sandbox.session(self.package)
        return self._session

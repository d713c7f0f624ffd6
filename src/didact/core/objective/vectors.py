"""Objectives of models with one output vector a sample: classifiers and regressors."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from didact.core.errors import BadInput
from didact.core.objective.base import Objective, Resampling


class Classification(Objective):
    """Cross-entropy; output (B, C) logits, targets (B,) class indices."""

    task = "classification"

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        if output.ndim != 2 or targets.shape != output.shape[:1]:
            raise BadInput(
                f"A classifier's output must be (batch, classes) and its targets (batch,), but they are "
                f"{tuple(output.shape)} and {tuple(targets.shape)}."
            )
        return F.cross_entropy(output, targets.long(), reduction="none")

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.argmax(-1)

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        return (output.argmax(-1) == targets).float()

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return F.kl_div(output.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean")

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        classes = pool.unique()
        if how == "gaussian" or len(classes) < 2:
            raise BadInput("Class labels can be resampled as 'other' or 'uniform', among at least two classes.")
        if how == "uniform":
            return classes[torch.randint(len(classes), targets.shape, generator=generator)]
        # Draw among the classes without the true one: an index at or above the true one's moves up by one.
        places = torch.searchsorted(classes, targets)
        known = (places < len(classes)) & (classes[places.clamp(max=len(classes) - 1)] == targets)
        others = torch.randint(len(classes) - 1, targets.shape, generator=generator)
        any_class = torch.randint(len(classes), targets.shape, generator=generator)
        return classes[torch.where(known, others + (others >= places).long(), any_class)]


class Regression(Objective):
    """Squared (default) or absolute error; output (B,), (B, 1) or (B, K), targets of the same number of values."""

    task = "regression"

    def __init__(self, loss: Literal["l1", "l2"] = "l2") -> None:
        self.kind = loss

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        output, targets = self._match(output, targets)
        error = output - targets
        return error.abs().mean(-1) if self.kind == "l1" else error.square().mean(-1)

    def predictions_of(self, output: Tensor) -> Tensor:
        return output.squeeze(-1) if output.ndim == 2 and output.shape[1] == 1 else output

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        output, targets = self._match(output, targets)
        return -(output - targets).abs().mean(-1)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return (output - reference).abs().mean() if self.kind == "l1" else (output - reference).square().mean()

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        if how == "uniform":
            return pool[torch.randint(len(pool), targets.shape[:1], generator=generator)]
        # A number has no "other class": the Gaussian of all training targets serves for both.
        mean, spread = pool.float().mean(0), pool.float().std(0)
        return mean + spread * torch.randn(targets.shape, generator=generator)

    def _match(self, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not targets.is_floating_point():
            raise BadInput(
                f"Regression targets must be floating-point numbers, but they are {targets.dtype}. "
                "Convert them with .float(), or use a classification objective."
            )
        if len(output) != len(targets) or output.numel() != targets.numel():
            raise BadInput(
                f"A regressor's output {tuple(output.shape)} and its targets {tuple(targets.shape)} must hold "
                "the same number of values."
            )
        return output.reshape(len(output), -1), targets.reshape(len(targets), -1)

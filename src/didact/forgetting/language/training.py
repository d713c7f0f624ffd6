"""The training loop that forgetting methods on language models share: a forget term and a retain term a step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.fit import Hooks, fit
from didact.core.objective import Batch, evaluating
from didact.forgetting.request import Request
from didact.parts.language import kl_to
from didact.parts.paired import paired_batches

RetainTerm = Literal["nll", "kl"] | None

#: learning rate where no recipe says what is usual for the model: that of the papers, for 7B models
RATE_OF_PAPERS = 1e-5


def train_to_forget(
    model: nn.Module,
    request: Request,
    forget: Dataset[Any],
    forget_loss: Callable[[nn.Module, Batch], Tensor],
    *,
    retain: RetainTerm = "nll",
    retain_weight: float = 1.0,
    reference: nn.Module | None = None,
    lr: float | None = None,
    epochs: int = 10,
    batch_size: int = 16,
    warmup_epochs: float = 0.0,
    weight_decay: float = 0.01,
    clip: float | None = None,
    parameters: Iterable[nn.Parameter] | None = None,
    after_epoch: Callable[[nn.Module, int], bool] | None = None,
) -> int:
    """Minimise `forget_loss` + `retain_weight` * retain term in `model`; returns the number of steps.

    Every step takes a batch of `forget` and, with a retain term, as many retained samples. "kl" looks at `reference`
    (the request's model by default), which is not copied.

    Args:
        lr: default: a twentieth of the recipe's rate, 1e-5 without a recipe.
        after_epoch: (model, epoch) -> True to end.
    """
    objective = request.objective
    held = retain is not None and retain_weight > 0
    kept = request.need_retain() if held else None
    before = reference if reference is not None else request.model
    rounds = -(-len(forget) // batch_size)  # type: ignore[arg-type]

    def loss(m: nn.Module, batch: Any, step: int) -> Tensor:
        if not held:
            return forget_loss(m, batch)
        gone, stays = batch
        return forget_loss(m, gone) + retain_weight * retain_loss(m, stays)

    def retain_loss(m: nn.Module, batch: Batch) -> Tensor:
        if retain == "nll":
            return objective.loss(m, batch)
        with torch.no_grad(), evaluating(before):
            old = objective.forward(before, batch)
        new = objective.forward(m, batch)
        return kl_to(old, new, objective.targets(batch).to(new.device))

    def pairs(epoch: int) -> Iterable[Any]:
        return paired_batches(
            forget, kept, objective, batch_size=batch_size, steps=rounds, seed=request.seed + 1000 * epoch  # type: ignore[arg-type]
        )  # fmt: skip

    log = fit(
        model,
        forget,
        objective,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr or usual_rate(request),
        optimizer="adamw",
        weight_decay=weight_decay,
        warmup=min(1.0, warmup_epochs / epochs),
        clip=clip,
        parameters=parameters,
        seed=request.seed,
        hooks=Hooks(loss=loss, batches=pairs if held else None, stop=after_epoch),
    )
    return log.steps


def usual_rate(request: Request) -> float:
    return request.recipe.lr / 20 if request.recipe is not None else RATE_OF_PAPERS

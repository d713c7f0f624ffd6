"""The one training loop, on Hugging Face accelerate: device, mixed precision, several GPUs, accumulation.

No method writes its own loop unless the loop is the method: it passes hooks instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import Batch, Objective

OptimizerName = Literal["adam", "adamw", "sgd"]
Schedule = Literal["constant", "cosine", "linear"]


class Diverged(ArithmeticError):
    """The loss is no longer a finite number."""


@dataclass
class FitLog:
    """What a training run did: mean loss of each epoch, optimiser steps."""

    losses: list[float] = field(default_factory=list)
    steps: int = 0


@dataclass
class Hooks:
    """Where a method reaches into the loop. Each is optional.

    loss:       (model, batch, step) -> scalar, in place of the objective's mean loss
    extra_loss: (model, batch, step) -> scalar, added to the loss
    weights:    (batch) -> (B,) weights of the per-sample losses
    batches:    (epoch) -> batches of any make that `loss` understands, in place of the shuffled dataset
    gradients:  (model, step), after the backward pass and before clipping
    after_step: (model, step); returning True ends the training
    stop:       (model, epoch) -> True to end, asked after each epoch
    """

    loss: Callable[[nn.Module, Batch, int], Tensor] | None = None
    extra_loss: Callable[[nn.Module, Batch, int], Tensor] | None = None
    weights: Callable[[Batch], Tensor] | None = None
    batches: Callable[[int], Iterable[Batch]] | None = None
    gradients: Callable[[nn.Module, int], None] | None = None
    after_step: Callable[[nn.Module, int], bool | None] | None = None
    stop: Callable[[nn.Module, int], bool] | None = None


def fit(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    *,
    epochs: int = 1,
    steps: int | None = None,
    batch_size: int = 32,
    lr: float = 1e-3,
    optimizer: OptimizerName = "adam",
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    schedule: Schedule = "constant",
    warmup: float = 0.0,
    clip: float | None = None,
    accumulate: int = 1,
    mixed_precision: Literal["no", "bf16", "fp16"] = "no",
    parameters: Iterable[nn.Parameter] | None = None,
    seed: int = 0,
    hooks: Hooks | None = None,
) -> FitLog:
    """Train `model` in place (this is the one function that does) and leave it in training mode.

    Args:
        epochs: passes over the dataset; `steps`, when given, is the number of optimiser steps instead.
        warmup: share of all steps with a linearly growing rate.
        clip: largest norm of the gradient.
        parameters: what is trained; all that require a gradient by default.
        seed: of the order of the samples.

    Raises:
        Diverged: when the loss is no longer finite.
    """
    hooks = hooks or Hooks()
    trained = [p for p in (parameters or model.parameters()) if p.requires_grad]
    if not trained:
        raise BadInput("No parameter of the model requires a gradient, so nothing can be trained.")
    accelerator = Accelerator(
        mixed_precision=mixed_precision, gradient_accumulation_steps=accumulate, device_placement=True
    )
    loader = objective.loader(dataset, batch_size, shuffle=True, seed=seed)
    # Batch normalisation cannot be trained on a single sample: a last batch of one is left out of the epoch.
    lonely = hooks.batches is None and len(dataset) % batch_size == 1 and _normalises_batches(model)  # type: ignore[arg-type]
    per_epoch = max(1, -(-(len(loader) - lonely) // accumulate))
    total = steps if steps is not None else epochs * per_epoch
    optim = accelerator.prepare_optimizer(make_optimizer(trained, optimizer, lr, momentum, weight_decay))
    scheduler = LambdaLR(optim.optimizer, lambda step: _rate(step, total, schedule, warmup))
    # Torch loaders are sharded over processes by accelerate; in-memory batches stay as they are on one process.
    if isinstance(loader, torch.utils.data.DataLoader):
        loader = accelerator.prepare_data_loader(loader)
    prepared = accelerator.prepare_model(model) if accelerator.num_processes > 1 else model.to(accelerator.device)
    prepared.train()
    log, step, epoch = FitLog(), 0, 0
    while step < total:
        losses: list[Tensor] = []
        for index, batch in enumerate(hooks.batches(epoch) if hooks.batches else loader):
            if lonely and objective.size(batch) == 1:
                continue
            batch = send_to_device(batch, accelerator.device)
            with accelerator.autocast():
                loss = _loss(prepared, objective, batch, hooks, step)
            accelerator.backward(loss)  # divides by the number of accumulated batches
            losses.append(loss.detach())
            if (index + 1) % accumulate and index + 1 < len(loader):
                continue
            if hooks.gradients:
                hooks.gradients(model, step)
            if clip is not None:
                accelerator.clip_grad_norm_(trained, clip)
            optim.step()
            optim.zero_grad()
            scheduler.step()
            step += 1
            if hooks.after_step and hooks.after_step(model, step - 1):
                total = step
            if step >= total:
                break
        if not losses:
            raise BadInput("An epoch without a single batch: the dataset or the batches hook is empty.")
        mean = float(torch.stack(losses).mean())
        if mean != mean or mean in (float("inf"), float("-inf")):
            raise Diverged(f"The loss is {mean} after {step} steps. Try a smaller learning rate or clip gradients.")
        log.losses.append(mean)
        if hooks.stop and hooks.stop(model, epoch):
            break
        epoch += 1
    log.steps = step
    return log


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    name: OptimizerName,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        return kind(parameters, lr, weight_decay=weight_decay)
    raise BadInput(f"The optimiser {name!r} is not known; use adam, adamw or sgd.")


def _normalises_batches(model: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _loss(model: nn.Module, objective: Objective, batch: Batch, hooks: Hooks, step: int) -> Tensor:
    if hooks.loss:
        loss = hooks.loss(model, batch, step)
    elif hooks.weights:
        weights = hooks.weights(batch)
        loss = (weights * objective.per_sample_loss(model, batch)).sum() / weights.sum().clamp(min=1e-12)
    else:
        loss = objective.loss(model, batch)
    return loss + hooks.extra_loss(model, batch, step) if hooks.extra_loss else loss


def _rate(step: int, total: int, schedule: Schedule, warmup: float) -> float:
    """Factor of the learning rate at a step."""
    ramp = int(warmup * total)
    if step < ramp:
        return (step + 1) / ramp
    progress = (step - ramp) / max(1, total - ramp)
    if schedule == "cosine":
        return 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return 1.0 - progress if schedule == "linear" else 1.0

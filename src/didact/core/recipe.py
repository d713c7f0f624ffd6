"""Recipe: how a model was, or would be, trained from scratch. It defines what "retraining" means."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.fit import Hooks, OptimizerName, Schedule, fit
from didact.core.objective import Objective


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator set to `seed` inside, as it was before outside (dropout and initialisation use it)."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        seed_torch(seed)
        yield


def seed_torch(seed: int) -> None:
    """Seed torch's generators. Without an accelerator only the CPU's: seeding the others takes milliseconds."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


@dataclass(frozen=True)
class Recipe:
    """A fresh model and the settings of its training.

    `build` returns an untrained model; it is called with torch's generator seeded. `name` tells what it builds and
    is part of the key under which trained models are cached.
    """

    build: Callable[[], nn.Module]
    objective: Objective
    name: str = ""
    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    optimizer: OptimizerName = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Schedule = "constant"
    warmup: float = 0.0
    clip: float | None = None

    @classmethod
    def like(cls, model: nn.Module, objective: Objective, **settings: Any) -> Recipe:
        """A recipe for a model whose own recipe is not known: the same architecture, freshly initialised."""
        blank = copy.deepcopy(model)
        return cls(lambda: _reset(copy.deepcopy(blank)), objective, type(model).__name__, **settings)

    def fresh(self, seed: int) -> nn.Module:
        """An untrained model."""
        with seeded(seed):
            return self.build()

    def fit(
        self,
        dataset: Dataset[Any],
        seed: int,
        *,
        init: nn.Module | None = None,
        epochs: int | None = None,
        steps: int | None = None,
        lr: float | None = None,
        hooks: Hooks | None = None,
    ) -> nn.Module:
        """Train a fresh model, or a copy of `init`, on a dataset; returns it in evaluation mode."""
        model = self.fresh(seed) if init is None else copy.deepcopy(init)
        with seeded(seed + 1):
            fit(
                model,
                dataset,
                self.objective,
                epochs=self.epochs if epochs is None else epochs,
                steps=steps,
                batch_size=self.batch_size,
                lr=self.lr if lr is None else lr,
                optimizer=self.optimizer,
                momentum=self.momentum,
                weight_decay=self.weight_decay,
                schedule=self.schedule,
                warmup=self.warmup,
                clip=self.clip,
                seed=seed,
                hooks=hooks,
            )
        return model.eval()

    def but(self, **changes: Any) -> Recipe:
        """The same recipe with some settings changed."""
        return replace(self, **changes)

    def steps_for(self, dataset: Dataset[Any], epochs: int | None = None) -> int:
        """Optimiser steps of a training run on a dataset."""
        batches = -(-len(dataset) // self.batch_size)  # type: ignore[arg-type]
        return batches * (self.epochs if epochs is None else epochs)

    @property
    def key(self) -> dict[str, Any]:
        """What decides the trained model besides data and seed, as JSON values."""
        settings = {k: v for k, v in self.__dict__.items() if k not in ("build", "objective")}
        return {**settings, "objective": self.objective.task, **_plain(vars(self.objective))}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {f"objective_{k}": v for k, v in values.items() if isinstance(v, (str, int, float, bool))}


def _reset(model: nn.Module) -> nn.Module:
    """Initialise a model anew, each module by its own rule."""
    if hasattr(model, "config") and hasattr(model, "init_weights"):
        return type(model)(model.config)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in own:  # a bare parameter has no rule of its own: keep its scale
            with torch.no_grad():
                spread = float(parameter.std()) if parameter.numel() > 1 else 0.0
                parameter.normal_(0.0, spread or 0.02)
    return model

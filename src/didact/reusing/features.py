"""What frozen models make of data: features of several layers in one pass, kept for the next who asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import Batch, Objective, output_tensor, submodule
from didact.core.objective.models import evaluating, head_name, pool
from didact.models.workpieces import digest
from didact.reusing.request import fingerprint

Layer = str | None  #: name of a layer, or None for what enters the model's last linear layer


@dataclass(frozen=True, eq=False)
class Reading:
    """What one pass over a data set showed."""

    features: Mapping[Layer, Tensor]  #: layer -> (N, d), float32 on the CPU
    outputs: Tensor  #: (N, ...) raw outputs of the model


_kept: ContextVar[dict[Any, Reading] | None] = ContextVar("kept_features", default=None)


@contextmanager
def kept_features() -> Iterator[None]:
    """While this is open, a model is read once: who asks for the same features again gets those of the first pass.

    For several methods on one hub. Memory: all features read; passes that are saved are not counted.
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def read(
    model: nn.Module,
    data: Dataset[Any] | Iterable[Batch],
    objective: Objective,
    layers: Sequence[Layer] = (None,),
    batch_size: int = 256,
) -> Reading:
    """Features of every sample at each of the layers, and the outputs, by one pass in evaluation mode.

    Maps are flattened; sequences (B, T, d) are averaged over the positions that the attention mask keeps. `data` is a
    data set or an iterable of batches. Nothing is trained.

    Raises:
        BadInput: no data, a layer that does not exist or is not used, a model without a linear layer (layer None).
    Cost: one forward pass a sample, and memory for all features.
    """
    kept = _kept.get()
    is_dataset = hasattr(data, "__getitem__")
    if kept is None or not is_dataset:
        batches = objective.loader(data, batch_size) if is_dataset else data  # type: ignore[arg-type]
        return _read(model, batches, objective, layers)  # type: ignore[arg-type]
    key = (fingerprint(model), repr(model), digest(data), objective.task, tuple(layers))  # type: ignore[arg-type]
    if key not in kept:
        kept[key] = _read(model, objective.loader(data, batch_size), objective, layers)  # type: ignore[arg-type]
    return kept[key]


def targets(data: Dataset[Any] | Iterable[Batch], objective: Objective) -> Tensor:
    """(N, ...) targets of a data set or of batches, in their order."""
    batches = objective.loader(data, 1024) if hasattr(data, "__getitem__") else data  # type: ignore[arg-type]
    return torch.cat([objective.targets(batch).cpu() for batch in batches])


@torch.no_grad()
def _read(model: nn.Module, batches: Iterable[Batch], objective: Objective, layers: Sequence[Layer]) -> Reading:
    found: dict[Layer, list[Tensor]] = {layer: [] for layer in layers}
    outputs: list[Tensor] = []
    caught: dict[Layer, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for layer in layers:
            stack.callback(_catch(model, layer, caught).remove)
        for batch in batches:
            caught.clear()
            outputs.append(objective.forward(model, batch).float().cpu())
            mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
            for layer in layers:
                if layer not in caught:
                    raise BadInput(f"The layer {layer!r} was not used in the forward pass, so it has no features.")
                found[layer].append(pool(caught[layer], objective.size(batch), mask).float().cpu())
    if not outputs:
        raise BadInput("There is no batch to read features from. Give at least one sample.")
    return Reading({layer: torch.cat(parts) for layer, parts in found.items()}, torch.cat(outputs))


def _catch(model: nn.Module, layer: Layer, caught: dict[Layer, Tensor]) -> Any:
    if layer is None:
        head = model.get_submodule(head_name(model))
        return head.register_forward_pre_hook(lambda _, inputs: caught.__setitem__(None, inputs[0]))
    return submodule(model, layer).register_forward_hook(
        lambda _, __, output: caught.__setitem__(layer, output_tensor(output))
    )

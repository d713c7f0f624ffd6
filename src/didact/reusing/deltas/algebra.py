"""Differences of weights: theta - base for the parameters that patterns choose, in float32, and back."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import Objective

#: parameters by name: a state dict, or a checkpoint that reads each tensor when it is asked for
Weights = Mapping[str, Tensor]
#: (name, delta in float32, base in float32) -> delta
Change = Callable[[str, Tensor, Tensor], Tensor]
#: running statistics of normalisation layers: no deltas, they are measured anew
STATISTICS = (r".*running_mean", r".*running_var", r".*num_batches_tracked")


class Deltas(Mapping[str, Tensor]):
    """theta - base by name, in float32. A tensor is computed when it is asked for, so only one is in memory at a time.

    Differences of 1e-3 vanish in the 8 bits of a bfloat16 mantissa, so both sides are converted before the
    subtraction. Weights that share memory (tied embeddings) occur once. Running statistics never occur.

    Args:
        base: weights of the common ancestor.
        theta: weights of the fine-tuned model.
        include: a parameter takes part when its whole name matches one of these regular expressions ...
        exclude: ... and none of these.
        change: (name, delta, base in float32) -> delta, applied whenever a tensor is asked for; it must give the
            same answer each time. None of the tensors it is given may be kept.

    Raises:
        BadInput: the two disagree in the names or shapes that take part, or a chosen tensor holds whole numbers.
    """

    def __init__(
        self,
        base: Weights,
        theta: Weights,
        *,
        include: Sequence[str] = (".*",),
        exclude: Sequence[str] = (),
        change: Change | None = None,
    ) -> None:
        self.base, self.theta, self.change = base, theta, change
        patterns = {"include": include, "exclude": (*exclude, *STATISTICS)}
        skipped = dropped_aliases(base)
        self.names: dict[str, None] = {name: None for name in chosen(base, **patterns) if name not in skipped}
        others = set(chosen(theta, **patterns)) - set(skipped)
        _check_names(set(self.names), others)
        for name in self.names:
            _check_pair(name, base, theta)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.names:
            raise KeyError(name)
        below = self.base[name].float()
        found = self.theta[name].float() - below
        return found if self.change is None else self.change(name, found, below)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """How many numbers all tensors hold together; reads no tensor."""
        return sum(math.prod(shape_of(self.base, name)) for name in self.names)


def subtract(
    theta: Weights, base: Weights, *, include: Sequence[str] = (".*",), exclude: Sequence[str] = ()
) -> dict[str, Tensor]:
    """theta - base in float32 for the chosen parameters, all in memory. See `Deltas`."""
    return dict(Deltas(base, theta, include=include, exclude=exclude))


def add(base: Weights, delta: Weights) -> dict[str, Tensor]:
    """base + delta in the base's precision; what has no delta stays as it is in the base.

    Names that share memory in the base share it in the answer.
    """
    unknown = sorted(set(delta) - set(base))
    if unknown:
        raise BadInput(f"The delta has parameters that the base lacks: {', '.join(unknown[:5])}.")
    aliases = dropped_aliases(base)
    made: dict[str, Tensor] = {}
    for name, value in base.items():
        if name in aliases:
            made[name] = made[aliases[name]]
        elif name in delta:
            made[name] = (value.float() + delta[name]).to(value.dtype)
        else:
            made[name] = value.clone()
    return made


def norm(delta: Weights) -> float:
    """Euclidean length of a delta taken as one vector. Reads one tensor at a time."""
    return math.sqrt(sum(float(value.double().square().sum()) for value in delta.values()))


def chosen(names: Iterable[str], include: Sequence[str] = (".*",), exclude: Sequence[str] = ()) -> list[str]:
    """The names that match a whole pattern of `include` and none of `exclude`, in their order."""
    try:
        wanted, unwanted = ([re.compile(pattern) for pattern in patterns] for patterns in (include, exclude))
    except re.error as error:
        raise BadInput(f"A pattern for parameter names is no regular expression: {error}.") from None
    return [
        name
        for name in names
        if any(p.fullmatch(name) for p in wanted) and not any(p.fullmatch(name) for p in unwanted)
    ]


def dropped_aliases(weights: Weights) -> dict[str, str]:
    """Name -> the earlier name of the same memory, for tied weights in a state dict. A file never holds both."""
    if not isinstance(weights, dict):
        return {}
    first: dict[Any, str] = {}
    aliases = {}
    for name, value in weights.items():
        place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype)
        if value.numel() and value.data_ptr() and place in first:
            aliases[name] = first[place]
        else:
            first[place] = name
    return aliases


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a model by name, tied ones once; no buffers. The tensors are the model's own."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def with_weights(model: nn.Module, weights: Weights) -> nn.Module:
    """A copy of the model with some parameters replaced, in the copy's precision."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name in weights:
                parameter.copy_(weights[name])
    return made


@torch.no_grad()
def recompute_statistics(
    model: nn.Module, dataset: Dataset[Any], objective: Objective, batch_size: int = 256
) -> nn.Module:
    """Measure the running means and variances of all batch normalisations anew, in place. Cost: a forward pass.

    Merged weights send other activations through the network, so the statistics of the parts do not fit them.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not layers:
        return model
    modes, momenta = [(m, m.training) for m in model.modules()], [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
    seen = 0
    try:
        for batch in objective.loader(dataset, batch_size):
            seen += objective.size(batch)
            for layer in layers:  # a running mean over samples, whatever the size of the last batch
                layer.momentum = objective.size(batch) / seen
            objective.forward(model, batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
    return model


def shape_of(weights: Weights, name: str) -> tuple[int, ...]:
    """Shape of a tensor, without reading it when it lies in a file."""
    shapes = getattr(weights, "shapes", None)
    return tuple(shapes[name]) if shapes is not None else tuple(weights[name].shape)


def is_floating(weights: Weights, name: str) -> bool:
    floating = getattr(weights, "floating", None)
    return name in floating if floating is not None else weights[name].is_floating_point()


def _check_names(mine: set[str], theirs: set[str]) -> None:
    if not mine:
        raise BadInput("No parameter takes part: the patterns of include and exclude leave nothing of the base.")
    missing, extra = sorted(mine - theirs), sorted(theirs - mine)
    if missing or extra:
        parts = [f"the model lacks {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"the base lacks {', '.join(extra[:3])}"] * bool(extra)
        raise BadInput(
            f"The model and its base must have the same parameters, but {' and '.join(parts)}. "
            "Exclude what only one of them has, or pass the right base."
        )


def _check_pair(name: str, base: Weights, theta: Weights) -> None:
    if shape_of(base, name) != shape_of(theta, name):
        raise BadInput(
            f"{name} has the shape {shape_of(base, name)} in the base but {shape_of(theta, name)} in the model. "
            "Exclude it (a head of its own, say) or pass the right base."
        )
    if not (is_floating(base, name) and is_floating(theta, name)):
        raise BadInput(f"{name} holds whole numbers, of which a delta makes no sense. Exclude it.")

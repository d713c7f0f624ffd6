"""Merges: several models' deltas become one. Each is written on deltas, so that it runs on networks and on files.

A merger first sees the deltas of all models as mappings that compute a tensor when asked, and returns the merge:
(name, deltas) -> delta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from didact.core.errors import BadInput
from didact.reusing.deltas import Merge, Merger, norm

Sources = Sequence[Mapping[str, Tensor]]
SMALLEST_IMPORTANCE = 1e-6  #: added to every Fisher weight and to their norm


def plain(name: str, trim: float = 0.8, scaling: float = 1.0) -> Merger:
    """A merge that needs no examples, by its name."""
    if name == "average":
        return average()
    return ties(trim, scaling) if name == "ties" else task_arithmetic(scaling)


def average() -> Merger:
    """The mean of the models' weights."""

    def merge(name: str, deltas: Sequence[Tensor]) -> Tensor:
        return total(deltas).div_(len(deltas))

    return lambda sources: merge


def task_arithmetic(scaling: float = 1.0) -> Merger:
    """base + scaling * sum of the deltas."""

    def merge(name: str, deltas: Sequence[Tensor]) -> Tensor:
        return total(deltas).mul_(scaling)

    return lambda sources: merge


def ties(trim: float = 0.8, scaling: float = 1.0) -> Merger:
    """Trim, elect a sign, merge what agrees with it (Yadav et al., 2023, arXiv 2306.01708).

    Of each model the floor(trim * n) numbers of smallest magnitude over all tensors go (equal magnitudes go
    together). Each position takes the sign of the sum; where that is 0, the sign of most positions of its tensor (of
    its tensor, not of the model, which would cost a further pass over all files). The merged delta is `scaling` times
    the mean over the models whose delta is not 0 and has that sign.

    Cost: two more passes over each model's deltas when anything is trimmed.
    """
    if not 0 <= trim < 1:
        raise BadInput(f"The share that TIES trims lies between 0 and below 1, but {trim} was given.")

    def merger(sources: Sources) -> Merge:
        limits = [trim_limit(source, trim) for source in sources]

        def merge(name: str, deltas: Sequence[Tensor]) -> Tensor:
            pairs = zip(deltas, limits, strict=True)
            kept = [d if limit < 0 else d.masked_fill(d.abs() <= limit, 0.0) for d, limit in pairs]
            sign = total(kept).sign_()
            sign.masked_fill_(sign == 0, 1.0 if float(sign.sum()) >= 0 else -1.0)
            merged, count = torch.zeros_like(sign), torch.zeros_like(sign)
            for delta in kept:
                agrees = delta * sign > 0
                merged += delta * agrees
                count += agrees
            return merged.mul_(scaling).div_(count.clamp_(min=1))

        return merge

    return merger


def fisher_weighted(importances: Sources) -> Merger:
    """The mean of the models' weights, each number weighted by its Fisher information in that model.

    With F_k + 1e-6 as weights, scaled by 1 / ||F_k|| so that no model wins by the size of its gradients alone (Matena
    and Raffel, 2022, arXiv 2111.09832).

    Args:
        importances: for each model, parameter name -> diagonal Fisher information of the parameter's shape.
    """
    scales = [1 / (norm(importance) + SMALLEST_IMPORTANCE) for importance in importances]
    shares = [scale / sum(scales) for scale in scales]

    def merge(name: str, deltas: Sequence[Tensor]) -> Tensor:
        weights = [
            share * (importance[name].float() + SMALLEST_IMPORTANCE)
            for share, importance in zip(shares, importances, strict=True)
        ]
        return total([w * d for w, d in zip(weights, deltas, strict=True)]) / total(weights)

    return lambda sources: merge


def regmean(grams: Sources, off_diagonal: float = 0.9, transposed: Iterable[str] = ()) -> Merger:
    """The linear layers whose outputs are closest to all models' outputs in least squares; means of all else.

    W^T = (sum_k G_k)^-1 sum_k G_k W_k^T with G_k = X_k^T X_k / n over the inputs of the layer in model k, the
    elements off the diagonal multiplied by `off_diagonal` (Jin et al., 2023, arXiv 2212.09849).

    Args:
        grams: for each model, weight name -> G of shape (inputs, inputs).
        transposed: names of the weights stored as (inputs, outputs), as GPT-2 does.

    Cost: the solution of a linear system of the input width a layer.
    """
    stored_turned = set(transposed)

    def merge(name: str, deltas: Sequence[Tensor]) -> Tensor:
        if any(name not in gram for gram in grams):
            return total(deltas).div_(len(deltas))
        parts = [shrunk(gram[name].double(), off_diagonal) for gram in grams]
        upright = [d.double() if name in stored_turned else d.double().T for d in deltas]  # (inputs, outputs)
        products = total([g @ d for g, d in zip(parts, upright, strict=True)])
        # Inputs that are always 0 make the sum singular; any weight serves them, lstsq gives the smallest.
        solved: Tensor = torch.linalg.lstsq(total(parts), products, driver="gelsd").solution
        return (solved if name in stored_turned else solved.T).float()

    return lambda sources: merge


def total(tensors: Sequence[Tensor]) -> Tensor:
    """The sum, in new memory."""
    found = tensors[0].clone()
    for tensor in tensors[1:]:
        found += tensor
    return found


def shrunk(gram: Tensor, off_diagonal: float) -> Tensor:
    return gram * off_diagonal + torch.diag(gram.diagonal()) * (1 - off_diagonal)


def trim_limit(source: Mapping[str, Tensor], trim: float) -> float:
    """The magnitude up to which numbers go: the floor(trim * n)-th smallest over all tensors; below 0 when none go.

    Exact, in two passes that hold one tensor each: the bits of a float that is not negative order as the float does,
    so a count of the upper halves finds the upper half of the answer, and a count of the lower ones the rest.
    """
    size = sum(value.numel() for value in source.values()) if trim > 0 else 0
    rank = int(trim * size + 1e-6)
    if rank == 0:
        return -1.0
    upper, before = _ranked(lambda: (bits(value) >> 16 for value in source.values()), rank)
    inside = lambda: ((b & 0xFFFF)[(b >> 16) == upper] for b in map(bits, source.values()))  # noqa: E731
    lower, _ = _ranked(inside, rank - before)
    found = torch.tensor((upper << 16) | lower, dtype=torch.int32)
    return float(found.view(torch.float32))


def bits(value: Tensor) -> Tensor:
    return value.float().abs().flatten().contiguous().view(torch.int32)


def _ranked(parts: Callable[[], Iterable[Tensor]], rank: int) -> tuple[int, int]:
    """The rank-th smallest of whole numbers below 65,536, and how many are smaller."""
    counts = torch.zeros(1 << 16, dtype=torch.long)
    for part in parts():
        counts += torch.bincount(part.long().cpu(), minlength=1 << 16)
    running = counts.cumsum(0)
    place = int(torch.searchsorted(running, rank))
    return place, int(running[place] - counts[place])

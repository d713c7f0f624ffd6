"""Influence unlearning: one Newton-like step that takes the forget data's influence out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from didact.core.cost import note
from didact.core.method import Card, Paper, Range
from didact.core.objective import Objective, evaluating
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.sparse_unlearning.l1 import CODE, LICENCE
from didact.parts.fisher import accumulate


@register
class InfluenceUnlearn(Unlearner):
    """Take the forget data's influence on the weights out, in one step along an approximate inverse Hessian.

    Training gave each of N samples the weight 1/N; without the forget data the retained ones weigh
    1/|retain|. The influence function turns this change into theta <- theta + alpha * H^-1 v with

        v = (1/N) sum_forget grad - (|forget| / (N |retain|)) sum_retain grad

    and H^-1 v by the WoodFisher recursion over `n` single-sample gradients of retained data. As in the
    authors' code the recursion keeps the direction of the first gradient, so it corrects v along that
    direction only: the step is nearly alpha * v, gradient ascent on the forget data in one stride. `alpha` =
    1 is the theory; confident networks have tiny gradients and need far more. One shot; use it where a single
    step should do and `alpha` can be tuned.

    All parameters that require a gradient move, buffers do not.

    Errors: an alpha or n that is not positive, no retained data, a frozen model.
    Cost: one forward and one backward pass over all data, plus `n` single-sample gradients in batches of
    `batch_size`; memory for a batch of gradients.
    Reference: Koh and Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017, arXiv
    1703.04730; Izzo et al., "Approximate Data Deletion from Machine Learning Models", AISTATS 2021, arXiv
    2002.10077; WoodFisher: Singh and Alistarh, NeurIPS 2020, arXiv 2004.14340; together in Jia et al.,
    NeurIPS 2023, arXiv 2304.04934.
    """

    card = Card(
        "influence-unlearning",
        "Influence unlearning with the WoodFisher inverse Hessian",
        paper=Paper("Koh and Liang", 2017, arxiv="1703.04730", venue="ICML"),
        needs=("retain", "labels"),
        part_of="sparse-unlearning",
        code=CODE,
        licence=LICENCE,
        tunes={"alpha": Range(1.0, 1e4, log=True)},
    )
    alpha: PositiveFloat = 30.0  #: length of the step; 1 in theory
    n: PositiveInt = 1000  #: single-sample gradients in the recursion, at most those there are
    batch_size: PositiveInt = 32  #: samples whose gradients are in memory together; changes no result

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        retain, forget, objective = request.need_retain(), request.forget, request.objective
        kept, gone = len(retain), len(forget)  # type: ignore[arg-type]
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        influence = gradient_sum(model, forget, objective, names, self.batch_size) / (kept + gone)
        balance = gradient_sum(model, retain, objective, names, self.batch_size) * gone / ((kept + gone) * kept)
        used = min(self.n, kept)
        # A random order: data sorted by class would give the recursion one class only.
        order = torch.randperm(kept, generator=torch.Generator().manual_seed(request.seed))[:used].tolist()
        gradients = single_gradients(model, Subset(retain, order), objective, names, self.batch_size)
        step = self.alpha * woodfisher(influence - balance, gradients, used)
        add_flat(model, names, step)
        note(step_norm=float(step.norm()))
        return model


@torch.no_grad()
def woodfisher(vector: Tensor, gradients: Iterable[Tensor], n: int) -> Tensor:
    """Approximate H^-1 `vector`, (P,), by the recursion over single-sample gradients, each (P,).

    k <- v, o <- g_1; then for each further g: k -= (k.g / (n + o.g)) o and o -= (o.g / (n + o.g)) o.
    """
    result, direction = vector.clone(), None
    for gradient in gradients:
        if direction is None:
            direction = gradient.clone()
            continue
        overlap = torch.dot(direction, gradient)
        result -= torch.dot(result, gradient) / (n + overlap) * direction
        direction -= overlap / (n + overlap) * direction
    return result


@torch.no_grad()
def add_flat(model: nn.Module, names: list[str], step: Tensor) -> None:
    """Add a flat vector, (P,), to the named parameters in place."""
    parameters = [model.get_parameter(name) for name in names]
    parts = torch.split(step, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.add_(part.view_as(parameter))


def gradient_sum(
    model: nn.Module, dataset: Dataset[Any], objective: Objective, names: list[str], batch_size: int
) -> Tensor:
    """(P,) sum over the samples of the gradient of their loss, in evaluation mode."""
    batches = -(-len(dataset) // batch_size)  # type: ignore[arg-type]
    means = accumulate(
        model,
        dataset,
        objective,
        lambda m, batch: objective.per_sample_loss(m, batch).sum(),
        lambda gradient: gradient,
        batch_size,
    )
    return torch.cat([means[name].flatten() for name in names]) * batches


def single_gradients(
    model: nn.Module, dataset: Dataset[Any], objective: Objective, names: list[str], batch_size: int
) -> Iterator[Tensor]:
    """(P,) gradient of each sample's loss, in evaluation mode and the dataset's order."""
    with evaluating(model):
        for batch in objective.loader(dataset, batch_size):
            found = objective.per_sample_gradients(model, batch)
            yield from torch.cat([found[name].flatten(1) for name in names], dim=1)

"""Fisher forgetting: noise where the retained data does not care (Golatkar, Achille and Soatto, 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.method import Card, Choice, Paper, Range
from didact.core.registry import register
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.sparse_unlearning.l1 import CODE, LICENCE
from didact.parts.fisher import fisher_diagonal


@register
class FisherForgetting(Unlearner):
    """Add Gaussian noise to every weight, large where the retained data's Fisher information is small.

    theta <- theta + N(0, alpha / F) with F the diagonal Fisher information of the retained data: a weight
    that the retained data does not pin down loses what it knew. The inverse Fisher is clamped at 1e3 (1e2 in
    the last layer), averaged over a weight's input channels (dimension 1), and multiplied by 10 in the last
    layer and for one-dimensional parameters, as in the authors' code. One shot, no training. Use it as a
    cheap baseline: what it forgets it pays for in accuracy, as the noise knows nothing of the forget data.

    All parameters that require a gradient get noise, buffers do not; the last layer is the last `nn.Linear`.
    `alpha` does not carry over between models: the more confident a model, the smaller its Fisher information
    and the sooner every weight is at the clamp. The paper also sets the head's row of a forgotten class to
    zero; this is not done here, because it knows what the forget data is.

    Errors: an alpha that is not positive, no retained data, a frozen model.
    Cost: one forward and one backward pass over the retained data; memory for a batch of gradients ("sample")
    or one gradient ("batch").
    Reference: Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv
    1911.04933; in the form of Jia et al., NeurIPS 2023, arXiv 2304.04934.
    """

    card = Card(
        "fisher-forgetting",
        "Eternal Sunshine of the Spotless Net: Selective Forgetting in Deep Networks",
        paper=Paper("Golatkar, Achille and Soatto", 2020, arxiv="1911.04933", venue="CVPR"),
        needs=("retain", "labels"),
        part_of="sparse-unlearning",
        code=CODE,
        licence=LICENCE,
        tunes={"alpha": Range(1e-8, 1e-4, log=True), "form": Choice(("sample", "batch"))},
    )
    alpha: PositiveFloat = 1e-6  #: variance of the noise times the Fisher information
    form: Literal["batch", "sample"] = "sample"  #: squares of batch-mean gradients, or of each sample's
    clamp: PositiveFloat = 1e3  #: largest inverse Fisher information
    head_clamp: PositiveFloat = 1e2  #: the same in the last layer
    batch_size: PositiveInt = 32  #: of the pass that measures the Fisher information

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        fisher = fisher_diagonal(
            model, request.need_retain(), request.objective, form=self.form, batch_size=self.batch_size
        )
        head = head_parameters(model)
        generator = torch.Generator().manual_seed(request.seed)
        spread: dict[str, float] = {}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name not in fisher:
                    continue  # frozen
                last = id(parameter) in head
                clamp = min(self.clamp, self.head_clamp) if last else self.clamp
                variance = noise_variance(fisher[name], self.alpha, clamp, last)
                # Drawn on the CPU: the same noise on every device.
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.add_(variance.sqrt() * noise)
                spread[name] = float(variance.mean().sqrt())
        note(noise_per_tensor=spread)
        return model


def noise_variance(fisher: Tensor, alpha: float, clamp: float = 1e3, last: bool = False) -> Tensor:
    """Variance of the noise, of the parameter's shape: clamped, averaged over dimension 1, scaled."""
    inverse = (fisher + 1e-8).reciprocal().clamp(max=clamp)
    if inverse.ndim > 1:
        inverse = inverse.mean(dim=1, keepdim=True).expand_as(fisher)
    return alpha * inverse * (10 if last or fisher.ndim == 1 else 1)


def head_parameters(model: nn.Module) -> set[int]:
    """Ids of the last linear layer's parameters; empty when there is none."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return {id(parameter) for parameter in linear[-1].parameters()} if linear else set()

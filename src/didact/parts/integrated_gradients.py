"""Integrated gradients (Sundararajan, Taly and Yan, 2017): how much each input contributed to a function's value."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from didact.core.errors import BadInput


def integrated_gradients(
    function: Callable[[Tensor], Tensor], inputs: Tensor, baseline: Tensor | float = 0.0, *, steps: int = 32
) -> Tensor:
    """Attributions of the inputs' shape: (x - baseline) times the mean gradient on the line between the two.

    `function` maps inputs (B, ...) to one value a sample, (B,), or to a scalar, their sum; each sample's value may
    depend on that sample alone. The mean is taken at the midpoints of `steps` equal pieces of the line. Samples that
    include both ends count the ends too much: five of them put the integral for x^3 from 0 to 1 at 1.125, five
    midpoints at 0.99, and it is 1.

    The attributions of a sample sum to `function(x) - function(baseline)` up to the error of the midpoints, which
    falls with the square of `steps`. What the function does to parameters is left alone: no gradient is accumulated.

    Errors: inputs that are no floating-point numbers (attribute embeddings, not token ids), a baseline that does not
    broadcast to them, a function that does not use them or returns another number of values.
    Cost: `steps` forward and backward passes. Memory: that of one.
    Reference: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365.
    """
    inputs, start = _checked(inputs, baseline, steps)
    difference = inputs - start
    total = torch.zeros_like(inputs)
    for k in range(steps):
        point = (start + (k + 0.5) / steps * difference).requires_grad_(True)
        with torch.enable_grad():
            value = function(point)
            whole = value.sum()
        if value.ndim > 1 or (value.ndim == 1 and len(value) != len(inputs)):
            raise BadInput(
                f"The function must return one value a sample, ({len(inputs)},), or their sum, but it returned "
                f"{tuple(value.shape)}."
            )
        if not value.requires_grad:
            raise BadInput("The function's value does not depend on its input in a differentiable way.")
        gradient = torch.autograd.grad(whole, point, allow_unused=True)[0]
        if gradient is None:
            raise BadInput("The function does not use its input, so nothing can be attributed to it.")
        total += gradient
    return difference * total / steps


def _checked(inputs: Tensor, baseline: Tensor | float, steps: int) -> tuple[Tensor, Tensor]:
    if not inputs.is_floating_point():
        raise BadInput(
            f"Integrated gradients need inputs that can change continuously, but they are {inputs.dtype}. "
            "Attribute the embeddings of tokens instead of their ids."
        )
    if steps < 1:
        raise BadInput(f"Integrated gradients take at least 1 step, but {steps} were given.")
    inputs = inputs.detach()
    start = torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).detach()
    try:
        return inputs, start.expand_as(inputs)
    except RuntimeError:
        raise BadInput(
            f"The baseline {tuple(start.shape)} does not fit the inputs {tuple(inputs.shape)}. "
            "Give one of the same shape, or a number."
        ) from None

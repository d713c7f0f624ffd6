"""The inverted hinge loss: a bounded way of making a token unlikely."""

from __future__ import annotations

from torch import Tensor

from didact.core.errors import BadInput
from didact.core.objective import IGNORED


def inverted_hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """(...,) 1 + p_target - p_runner-up, in [0, 2], of logits (..., V) and token ids (...,).

    With t the target, * the likeliest other token and v any third one, its gradient on the logits is

        p_t (p_* - p_t + 1),    p_* (p_* - p_t - 1),    p_v (p_* - p_t):

    the target's probability goes to the runner-up, and the push ends once it has gone there.
    """
    p = logits.float().softmax(-1)
    index = targets.unsqueeze(-1)
    # One runner-up also among equals: amax would share the gradient out.
    runner_up = p.scatter(-1, index, 0.0).max(-1).values
    return 1 + p.gather(-1, index).squeeze(-1) - runner_up


def inverted_hinge_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the target tokens of logits (B, T, V) and labels (B, T); position t predicts token t + 1.

    Raises:
        BadInput: when no label is a target.
    """
    kept = labels[:, 1:] != IGNORED
    if not kept.any():
        raise BadInput(f"All labels are {IGNORED}: there is no target token to forget. Label the answers' tokens.")
    return inverted_hinge(logits[:, :-1][kept], labels[:, 1:][kept]).mean()

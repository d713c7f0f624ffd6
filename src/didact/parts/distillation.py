"""What a student learns from a teacher: soft targets and matched features."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def soft_target_loss(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, reduction: Literal["batch", "elements"] = "batch"
) -> Tensor:
    """T^2 * KL(teacher || student) of softened logits (..., C).

    `"batch"` divides the sum by the number of distributions, `"elements"` by the number of logits, as DeiT's code does.
    """
    classes = student.shape[-1]
    p = F.log_softmax(student.reshape(-1, classes) / temperature, dim=-1)
    q = F.log_softmax(teacher.detach().reshape(-1, classes) / temperature, dim=-1)
    total = F.kl_div(p, q, reduction="sum", log_target=True) * temperature**2
    return total / (p.numel() if reduction == "elements" else len(p))


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of the student's softened distribution under the teacher's, mean over the batch."""
    classes = student.shape[-1]
    p = F.log_softmax(student.reshape(-1, classes) / temperature, dim=-1)
    q = F.softmax(teacher.detach().reshape(-1, classes) / temperature, dim=-1)
    return -(q * p).sum(-1).mean()

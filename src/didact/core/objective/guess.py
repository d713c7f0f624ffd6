"""Guessing the objective of a model that tells what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective.base import Objective
from didact.core.objective.language import CausalLM, MaskedLM
from didact.core.objective.vectors import Classification, Regression


def guess_objective(model: nn.Module, dataset: Dataset[Any] | None = None) -> Objective:
    """The objective of a plain classifier, regressor or Hugging Face model, read from the model and one sample.

    Raises:
        BadInput: when neither says it; pass `objective=` then.
    """
    name = type(model).__name__
    config = getattr(model, "config", None)
    causal = name.endswith("ForCausalLM") or name.endswith("LMHeadModel") or getattr(model, "task", "") == "causal-lm"
    if causal:
        return CausalLM(pad_id=getattr(config, "pad_token_id", None) or 0)
    if name.endswith("ForMaskedLM"):
        return MaskedLM(pad_id=getattr(config, "pad_token_id", None) or 0)
    if getattr(config, "problem_type", None) == "regression" or getattr(config, "num_labels", None) == 1:
        return Regression()
    if "Classification" in name:
        return Classification()
    if dataset is not None and len(dataset) > 0:  # type: ignore[arg-type]
        sample = dataset[0]
        target = sample.get("labels") if isinstance(sample, Mapping) else sample[1] if len(sample) > 1 else None
        if target is not None:
            target = torch.as_tensor(target)
            if target.is_floating_point():
                return Regression()
            if target.ndim == 0:
                return Classification()
    raise BadInput(
        f"It is not clear what {name} is trained for. Pass objective=Classification(), Regression(), CausalLM() or "
        "MaskedLM(), or one of your own."
    )

"""Objective: what methods need to know about a kind of model, so that one method serves them all.

An objective says how a batch meets a model: loss, predictions, score, features, per-sample gradients. It counts the
passes it makes. Batches are what the dataset yields, collated: a pair (input, target), or a mapping as Hugging Face
models take it (with `labels`; language models mark positions that are no target by -100).
"""

from didact.core.objective.base import IGNORED, Batch, Objective, Resampling
from didact.core.objective.diffusion import Denoising
from didact.core.objective.guess import guess_objective
from didact.core.objective.language import CausalLM, MaskedLM, pad_tokens
from didact.core.objective.models import device_of, evaluating, head_name, output_tensor, pool, submodule
from didact.core.objective.vectors import Classification, Regression

__all__ = [
    "IGNORED",
    "Batch",
    "CausalLM",
    "Classification",
    "Denoising",
    "MaskedLM",
    "Objective",
    "Regression",
    "Resampling",
    "device_of",
    "evaluating",
    "guess_objective",
    "head_name",
    "output_tensor",
    "pad_tokens",
    "pool",
    "submodule",
]

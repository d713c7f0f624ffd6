"""Deletion from a privately trained base: protect all data once, fine-tune on what stays."""

from didact.forgetting.dp2unlearning.mechanisms import DPMaskedLM, RandomisedResponse, clipped_weights, utility_weights
from didact.forgetting.dp2unlearning.method import DP2Unlearning, PrivateBase

__all__ = ["DP2Unlearning", "DPMaskedLM", "PrivateBase", "RandomisedResponse", "clipped_weights", "utility_weights"]

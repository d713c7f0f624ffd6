"""Unlearning from logit difference, and offset unlearning, which decodes in the same way."""

from didact.forgetting.uld.method import LogitDifference
from didact.forgetting.uld.model import LogitDifferenceModel, logit_difference
from didact.forgetting.uld.offset import OffsetUnlearning

__all__ = ["LogitDifference", "LogitDifferenceModel", "OffsetUnlearning", "logit_difference"]

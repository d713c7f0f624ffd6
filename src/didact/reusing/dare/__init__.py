"""DARE: drop most of what fine-tuning changed, rescale the rest, merge; with its rivals, diagnostics and problem."""

from didact.reusing.dare.baselines import (
    TIES,
    DeltaMagnitude,
    DropOnly,
    FisherMerging,
    MultiTask,
    RegMean,
    TaskArithmetic,
)
from didact.reusing.dare.diagnostics import Diagnosis, delta_quantiles, diagnose
from didact.reusing.dare.dropping import drop_and_rescale, drop_smallest
from didact.reusing.dare.merging import average, fisher_weighted, regmean, task_arithmetic, ties
from didact.reusing.dare.method import DARE
from didact.reusing.dare.problem import MERGE_METRICS, MergeProblem, merge_problem, rotated_digits

__all__ = [
    "DARE",
    "DeltaMagnitude",
    "Diagnosis",
    "DropOnly",
    "FisherMerging",
    "MERGE_METRICS",
    "MergeProblem",
    "MultiTask",
    "RegMean",
    "TIES",
    "TaskArithmetic",
    "average",
    "delta_quantiles",
    "diagnose",
    "drop_and_rescale",
    "drop_smallest",
    "fisher_weighted",
    "merge_problem",
    "regmean",
    "rotated_digits",
    "task_arithmetic",
    "ties",
]

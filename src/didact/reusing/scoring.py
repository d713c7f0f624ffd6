"""Scoring an answer: what it predicts, how well it ranks, and what it cost to store, train and send."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch.utils.data import Dataset

from didact.core.batches import materialise
from didact.core.errors import BadInput
from didact.core.metric import Metric, Primary
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult

if TYPE_CHECKING:
    from didact.reusing.problem import Truth

NAN = math.nan

METRICS = (
    Metric(
        "test_score",
        "score on the user's task; of an answer that only ranks, the score of the model it puts first, fine-tuned on "
        "the user's labels",
    ),
    Metric("kendall_tau", "rank correlation of the answer's ranking with what each model is worth when reused"),
    Metric("top1_regret", "score lost by reusing the model ranked first instead of the best one", "lower"),
    Metric("best_single", "score of the best single model, fine-tuned: what a perfect ranking would reach", "neither"),
    Metric("hub_mean", "mean score of the hub's models, each fine-tuned", "neither"),
    Metric("stored_parameters", "numbers to store for the answer", "lower"),
    Metric("training_steps", "optimiser steps on the user's side", "lower", "steps"),
    Metric("evaluations", "models or configurations tried on the user's data", "lower"),
    Metric("bytes_sent", "bytes that left the user", "lower", "B"),
)
PRIMARY = Primary("test_score")
TUNING = Primary("validation_score")


def score(given: Request, truth: Truth, answer: ReuseResult) -> dict[str, float]:
    """All metrics of an answer that predicts or ranks."""
    ranked = ranking_metrics(answer.ranking, truth.quality)
    if answer.predictor is not None and truth.test is not None:
        reached = prediction_score(given, answer, truth.test)
    else:
        reached = truth.quality.get(answer.top, NAN) if answer.ranking else NAN
    worth = list(truth.quality.values())
    hub = {"best_single": max(worth, default=NAN), "hub_mean": float(np.mean(worth)) if worth else NAN}
    costs = {name: float(answer.cost.get(name, NAN)) for name in ("training_steps", "evaluations", "bytes_sent")}
    return {"test_score": reached, **ranked, **hub, "stored_parameters": stored_parameters(given, answer), **costs}


def prediction_score(given: Request, answer: ReuseResult, test: Dataset[Any]) -> float:
    """Mean score of the answer's predictions on labelled samples."""
    inputs, targets = materialise(test)[:2]
    found = torch.as_tensor(np.asarray(answer.predict(inputs)))
    wanted = len(given.task.classes)
    if len(found) != len(targets) or (wanted and found.shape[1:] != (wanted,)):
        raise BadInput(
            f"The answer predicts an array of {tuple(found.shape)} for {len(targets)} samples; expected one row a "
            f"sample with {wanted} scores, in the order of the task's classes."
        )
    return float(given.task.objective.score_of(found, targets).float().mean())


def ranking_metrics(ranking: Mapping[str, float], quality: Mapping[str, float]) -> dict[str, float]:
    """Agreement of a ranking with the true quality over the models that both know."""
    common = sorted(set(ranking) & set(quality))
    if len(common) < 2:
        return {"kendall_tau": NAN, "top1_regret": NAN}
    mine, true = [ranking[i] for i in common], [quality[i] for i in common]
    top = min(common, key=lambda i: (-ranking[i], i))
    return {"kendall_tau": float(kendalltau(mine, true).statistic), "top1_regret": max(true) - quality[top]}


def stored_parameters(given: Request, answer: ReuseResult) -> float:
    """Numbers to store: of the network, of what the method counted, or of every model with a share in the answer."""
    if "stored_parameters" in answer.cost:
        return float(answer.cost["stored_parameters"])
    if answer.module is not None:
        return float(sum(p.numel() for p in answer.module.parameters()))
    used = set(answer.weights) or ({answer.top} if answer.ranking else set())
    sizes = [record.parameters for record in given.models if record.id in used]
    return float(sum(sizes)) if sizes else NAN

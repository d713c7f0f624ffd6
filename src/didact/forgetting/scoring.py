"""Scoring an unlearned model: every method gets the same rows, measured against a retrained reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.metric import Constraint, Metric, Primary
from didact.core.objective import Classification, Objective, Regression
from didact.forgetting.relearning import relearning_steps
from didact.forgetting.request import STOP_MARGIN, Request, Truth
from didact.models.artifacts import stored_bytes
from didact.parts.membership import judged_unseen, membership_auc

NAN = math.nan

METRICS = (
    Metric("test_score", "utility: score on test data of the retained distribution"),
    Metric(
        "forget_gap",
        "distance from a retrained model on the forget data: the larger of score and attack gap; of language models "
        "how much more they still answer, on the worse of seen and unseen wording",
        "lower",
    ),
    Metric("forget_score", "score on the forget data", "neither"),
    Metric("forget_unseen", "score on unseen items of the forgotten kind", "neither"),
    Metric("retain_score", "score on the retained training data"),
    Metric(
        "avg_gap",
        "mean distance from the retrained model over forget, unseen, retain and test score",
        "lower",
    ),
    Metric("gap_forget", "|forget score - the retrained model's|", "lower"),
    Metric("gap_unseen", "|score on unseen items - the retrained model's|", "lower"),
    Metric("gap_retain", "|retain score - the retrained model's|", "lower"),
    Metric("gap_test", "|test score - the retrained model's|", "lower"),
    Metric(
        "mia_auc",
        "membership attack by loss, forget against unseen items (target: the retrained model's)",
        "neither",
    ),
    Metric("mia_gap", "|membership AUC - the retrained model's|", "lower"),
    Metric("mia_efficacy", "share of the forget data that a support-vector attack judges never seen", "neither"),
    Metric(
        "act_dist",
        "mean L2 distance of the output probabilities from the retrained model's, on forget",
        "lower",
    ),
    Metric("logit_dist", "mean L2 distance of the outputs from the retrained model's, on forget", "lower"),
    Metric("js", "Jensen-Shannon divergence (base 2) from the retrained model, on forget", "lower", "bit"),
    Metric("w1", "Wasserstein-1 distance of the predictions from the retrained model's, on forget", "lower"),
    Metric("zrf", "zero-retrain forgetting: 1 - JS divergence from an untrained model, on forget", "neither"),
    Metric("relearn_steps", "updates until the forget loss is back at the original's", "higher", "steps"),
    Metric("ain", "anamnesis index: relearning steps relative to the retrained model's (target 1)", "neither"),
    Metric("changed", "share of the parameters that changed", "neither"),
    Metric("extra_bytes", "bytes stored beyond those of the original model", "lower", "B"),
    Metric("collapsed", "1 when the test score fell under half of the original's", "lower"),
)

PRIMARY = Primary("test_score", Constraint("forget_gap", at_most=0.1))
TUNING = Primary("validation_score", Constraint("validation_forget_gap", at_most=0.1))


class Scorer:
    """Computes all metrics of an answer to one request."""

    def __init__(self, given: Request, truth: Truth) -> None:
        self.given, self.truth, self.objective = given, truth, given.objective

    def score(self, answer: nn.Module) -> dict[str, float]:
        given, truth = self.given, self.truth
        check_outputs(self.objective, answer, truth.test)
        sets = {"forget": given.forget, "unseen": truth.holdout, "retain": given.retain, "test": truth.test}
        mine, reference = self._scores(answer, sets), self._scores(truth.reference, sets)
        gaps = {name: abs(mine[name] - reference[name]) for name in sets}
        attacks = self._attack(answer), self._attack(truth.reference)
        mia_gap = abs(attacks[0]["mia_auc"] - attacks[1]["mia_auc"])
        distances = self._distances(answer)
        original = self.objective.mean_score(given.model, truth.test)
        lost = distances["relative_w1"] if isinstance(self.objective, Regression) else gaps["forget"]
        return {
            "test_score": mine["test"],
            "forget_gap": float(np.nanmax([lost, mia_gap])) if math.isfinite(lost) else NAN,
            "forget_score": mine["forget"],
            "forget_unseen": mine["unseen"],
            "retain_score": mine["retain"],
            "avg_gap": float(np.nanmean(list(gaps.values()))),
            **{f"gap_{name}": gap for name, gap in gaps.items()},
            **attacks[0],
            "mia_gap": mia_gap,
            **{k: v for k, v in distances.items() if k != "relative_w1"},
            **self._relearning(answer),
            "changed": changed_share(given.model, answer),
            "extra_bytes": float(stored_bytes(answer) - stored_bytes(given.model)),
            "collapsed": float(self._collapsed(mine["test"], original)),
        }

    @staticmethod
    def validate(
        given: Request, validation: Dataset[Any], holdout: Dataset[Any] | None, answer: nn.Module
    ) -> dict[str, float]:
        """What tuning may see: utility on validation data, and how far forgetting is from its stated target."""
        objective = given.objective
        check_outputs(objective, answer, validation)
        forget = objective.mean_score(answer, given.forget)
        gap = abs(forget - (given.stop_score - STOP_MARGIN if given.target is None else given.target))
        if holdout is not None:
            auc = membership_auc(
                -_numpy(objective.losses(answer, given.forget)), -_numpy(objective.losses(answer, holdout))
            )
            if isinstance(objective, Classification):
                gap = max(gap, abs(auc - 0.5))
        return {
            "validation_score": objective.mean_score(answer, validation),
            "validation_forget_score": forget,
            "validation_forget_gap": gap,
        }

    def _scores(self, model: nn.Module, sets: dict[str, Dataset[Any] | None]) -> dict[str, float]:
        return {k: self.objective.mean_score(model, d) if d is not None else NAN for k, d in sets.items()}

    def _attack(self, model: nn.Module) -> dict[str, float]:
        given, truth = self.given, self.truth
        signal = {
            name: self._signal(model, data)
            for name, data in (("forget", given.forget), ("retain", given.retain), ("test", truth.test))
            if data is not None
        }
        losses = -_numpy(self.objective.losses(model, given.forget))
        outside = -_numpy(self.objective.losses(model, truth.holdout)) if truth.holdout is not None else np.empty(0)
        return {
            "mia_auc": membership_auc(losses, outside),
            "mia_efficacy": judged_unseen(signal["forget"], signal["retain"], signal["test"], given.seed)
            if "retain" in signal
            else NAN,
        }

    def _signal(self, model: nn.Module, data: Dataset[Any]) -> np.ndarray[Any, Any]:
        """What the support-vector attack sees: confidence in the true class; absolute error of a regressor."""
        if isinstance(self.objective, Regression):
            return _numpy(-self.objective.scores(model, data))
        return _numpy(torch.exp(-self.objective.losses(model, data)))

    def _distances(self, answer: nn.Module) -> dict[str, float]:
        mine, reference = self._outputs(answer), self._outputs(self.truth.reference)
        logit = float((mine - reference).norm(dim=-1).mean())
        if isinstance(self.objective, Regression):
            original = self._outputs(self.given.model)
            w1 = wasserstein(mine, reference)
            before = wasserstein(original, reference)
            return {
                "act_dist": NAN,
                "logit_dist": logit,
                "js": NAN,
                "zrf": NAN,
                "w1": w1,
                "relative_w1": w1 / max(before, 1e-12),
            }
        p, q = mine.softmax(-1), reference.softmax(-1)
        blank = self._outputs(self.given.need_recipe().fresh(self.given.seed + 104729)).softmax(-1)
        return {
            "act_dist": float((p - q).norm(dim=-1).mean()),
            "logit_dist": logit,
            "js": float(js_divergence(p, q).mean()),
            "zrf": 1.0 - float(js_divergence(p, blank).mean()),
            "w1": NAN,
            "relative_w1": NAN,
        }

    def _outputs(self, model: nn.Module) -> Tensor:
        """(n, C) outputs on the forget data, one row for each decision."""
        found = self.objective.outputs(model, self.given.forget)
        return torch.cat([self.objective.decisions(o, t) for o, t in found]).double()

    def _relearning(self, answer: nn.Module) -> dict[str, float]:
        request = self.given
        bar = max(1.05 * float(self.objective.losses(request.model, request.forget).mean()), 0.05)
        mine = relearning_steps(answer, request.forget, request.need_recipe(), bar, request.seed)
        reference = relearning_steps(self.truth.reference, request.forget, request.need_recipe(), bar, request.seed)
        return {"relearn_steps": float(mine), "ain": mine / reference if reference else NAN}

    def _collapsed(self, test: float, original: float) -> bool:
        if isinstance(self.objective, Regression):  # scores are negative errors: half as good is twice the error
            return test < 2 * original
        return test < 0.5 * original


def check_outputs(objective: Objective, answer: nn.Module, data: Dataset[Any]) -> None:
    """Refuse an answer that computes no numbers: the largest of ten NaN would pass for a prediction."""
    for output, _ in objective.outputs(answer, data):
        if not torch.isfinite(output).all():
            raise BadInput("The method diverged: its model returns values that are not finite numbers.")


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits along the last dimension."""
    middle = (p + q) / 2

    def relative(a: Tensor) -> Tensor:
        return torch.where(a > 0, a * torch.log2(a / middle), torch.zeros_like(a)).sum(-1)

    return (relative(p) + relative(q)) / 2


def changed_share(before: nn.Module, after: nn.Module) -> float:
    """Share of the parameters that differ; not a number when the two do not have the same parameters."""
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
        return NAN
    changed = sum(int((old[name] != new[name]).sum()) for name in old)
    return changed / max(1, sum(p.numel() for p in old.values()))


def _numpy(values: Tensor) -> np.ndarray[Any, Any]:
    return values.detach().cpu().double().numpy()


def wasserstein(a: Tensor, b: Tensor) -> float:
    return float(wasserstein_distance(a.flatten().numpy(), b.flatten().numpy()))

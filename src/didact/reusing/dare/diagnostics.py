"""Before dropping: how large the deltas are, and how much dropping the model bears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.objective import Objective, guess_objective
from didact.reusing.dare.claim import KEPT
from didact.reusing.dare.dropping import Strategy, Target, dropping
from didact.reusing.deltas import Deltas, weights_of, with_weights

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class Diagnosis:
    """How far a model can be thinned. The language models of the paper had deltas within 0.002 in magnitude."""

    quantiles: Mapping[float, float]  #: share -> magnitude of a delta that this share does not exceed
    scores: Mapping[float, float]  #: drop rate -> score
    base_score: float
    tuned_score: float

    def retention(self, rate: float) -> float:
        """Share of what fine-tuning gained that is left at a rate."""
        return (self.scores[rate] - self.base_score) / (self.tuned_score - self.base_score)

    @property
    def tolerance(self) -> float:
        """The largest rate of those tried that keeps 80 % of what fine-tuning gained; 0 when none does."""
        return max((rate for rate in self.scores if self.retention(rate) >= KEPT), default=0.0)


def diagnose(
    base: nn.Module,
    model: nn.Module,
    data: Dataset[Any],
    *,
    objective: Objective | None = None,
    rates: Sequence[float] = RATES,
    strategy: Strategy = "random",
    rescale: bool = True,
    target: Target = "delta",
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> Diagnosis:
    """Score a fine-tuned model on labelled data with more and more of its deltas dropped.

    Cost: one pass over the data for each rate, and two more. Neither model is changed.
    """
    objective = objective or guess_objective(model, data)
    below, above = weights_of(base), weights_of(model)
    scores = {}
    for rate in rates:
        how = dropping(rate, strategy=strategy, rescale=rescale, target=target, seed=seed, key="")
        thin = Deltas(below, above, exclude=exclude, change=how)
        scores[rate] = objective.mean_score(
            with_weights(model, {name: below[name].float() + delta for name, delta in thin.items()}), data
        )
    quantiles = delta_quantiles(Deltas(below, above, exclude=exclude))
    return Diagnosis(quantiles, scores, objective.mean_score(base, data), objective.mean_score(model, data))


def delta_quantiles(delta: Mapping[str, Tensor], shares: Sequence[float] = SHARES) -> dict[float, float]:
    """Share -> the magnitude that this share of all numbers does not exceed. Memory: all magnitudes."""
    magnitudes = torch.cat([value.abs().flatten() for value in delta.values()]).sort().values
    last = len(magnitudes) - 1
    return {share: float(magnitudes[round(share * last)]) for share in shares}

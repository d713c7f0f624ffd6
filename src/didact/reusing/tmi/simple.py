"""Rankings anyone would try first: the accuracy of a simple classifier, the number of parameters, chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from didact.core.errors import BadInput
from didact.core.method import Card, Range
from didact.core.registry import register
from didact.reusing.request import ModelRecord, Request
from didact.reusing.tmi.ranker import FeatureRanker, Floats, Ints, Ranker


@register
class NearestNeighbours(FeatureRanker):
    """Rank by the share of samples whose nearest neighbours vote for their label, each left out of its own vote.

    Cost: one forward pass over the target set a model, and O(N^2 d). Ties of the vote go to the nearest.
    """

    card = Card("knn-accuracy", "Nearest-neighbour accuracy", kind="baseline", needs=("models", "labelled"),
                part_of="tmi", tunes={"neighbours": Range(1, 15, integer=True)})  # fmt: skip
    neighbours: PositiveInt = 5  #: how many vote

    def score(self, features: Floats, labels: Ints) -> float:
        k = min(self.neighbours, len(labels) - 1)
        near = NearestNeighbors(n_neighbors=k).fit(features).kneighbors(return_distance=False)
        # A nearer neighbour's vote weighs a little more: enough to settle ties, too little to change a majority.
        weights = 1 + np.arange(k, 0, -1) / (k * (k + 1))
        votes = np.zeros((len(labels), labels.max() + 1))
        for column, weight in zip(near.T, weights, strict=True):
            votes[np.arange(len(labels)), labels[column]] += weight
        return float((votes.argmax(1) == labels).mean())


@register
class LinearProbe(FeatureRanker):
    """Rank by the cross-validated accuracy of logistic regression on the features, standardised.

    Folds are stratified; as many as the smallest class has samples, at most `folds`, at least two.
    Cost: one forward pass over the target set a model and `folds` small fits.
    """

    card = Card("linear-probe", "Linear probe", kind="baseline", needs=("models", "labelled"), part_of="tmi",
                tunes={"inverse_penalty": Range(0.01, 100.0, log=True)})  # fmt: skip
    inverse_penalty: PositiveFloat = 1.0  #: inverse strength of the squared penalty
    folds: PositiveInt = 5  #: at most so many folds

    def score(self, features: Floats, labels: Ints) -> float:
        smallest = int(np.bincount(labels).min())
        if len(labels) == labels.max() + 1:
            raise BadInput("A linear probe is judged on held-out samples: give at least two samples of some class.")
        folds = StratifiedKFold(max(2, min(self.folds, smallest)), shuffle=True, random_state=0)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=self.inverse_penalty, max_iter=1000))
        return float(cross_val_score(probe, features, labels, cv=folds).mean())


@register
class ParameterCount(Ranker):
    """Rank by size: the model with the most parameters first. Looks at no data. Cost: none."""

    card = Card("parameter-count", "Number of parameters", kind="baseline", needs=("models",), part_of="tmi")

    def ranked(self, records: Sequence[ModelRecord], request: Request) -> dict[str, float]:
        return {r.id: float(r.parameters) for r in records}


@register
class RandomRanking(Ranker):
    """Rank at random, from the request's seed: what any ranking must beat. Cost: none."""

    card = Card("random-ranking", "A random ranking", kind="baseline", needs=("models",), part_of="tmi")

    def ranked(self, records: Sequence[ModelRecord], request: Request) -> dict[str, float]:
        order = np.random.default_rng((request.seed, 1)).permutation(len(records))
        return {r.id: float(place) for r, place in zip(records, order, strict=True)}

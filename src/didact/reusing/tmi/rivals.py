"""Other published measures of transferability, each a ranking method of its own."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt
from sklearn.covariance import ledoit_wolf_shrinkage

from didact.core.method import Card, Choice, Paper
from didact.core.registry import register
from didact.reusing.tmi.ranker import FeatureRanker, Floats, Ints, ProbabilityRanker

ROUNDS, CONVERGED = 100, 1e-6


@register
class LogME(FeatureRanker):
    """Rank by the log of the maximum evidence: how likely the labels are under the best Bayesian linear model.

    For each class the 0/1 target y is taken for y = F w + noise with w ~ N(0, I/alpha) and noise ~ N(0, I/beta); the
    log marginal likelihood a sample, at the alpha and beta that maximise it (a fixed-point iteration), is averaged over
    the classes. Works for any features, also of models without a classifier. Nothing is trained.

    Errors: labels that are no integers or of a single class, features that are not finite.
    Cost: one forward pass over the target set a model and one singular value decomposition, O(N d min(N, d)).
    Reference: You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
    ICML 2021, arXiv 2102.11005.
    """

    card = Card("logme", "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
                paper=Paper("You, Liu, Wang and Long", 2021, arxiv="2102.11005", venue="ICML"),
                needs=("models", "labelled"), part_of="tmi", code="thuml/LogME", licence="MIT")  # fmt: skip

    def score(self, features: Floats, labels: Ints) -> float:
        u, s, _ = np.linalg.svd(features, full_matrices=False)
        one_hot = np.eye(labels.max() + 1)[labels]
        return float(np.mean([log_evidence(u, s, y, features.shape[1]) for y in one_hot.T])) / len(labels)


def log_evidence(u: Floats, s: Floats, y: Floats, width: int) -> float:
    """Largest log marginal likelihood of y (N,) under a Bayesian linear model on features u diag(s) v^T (N, width)."""
    n, sigma, x2 = len(y), s**2, (u.T @ y) ** 2
    outside = max(0.0, float(y @ y - x2.sum()))  # the part of y that no weights can reach
    alpha = beta = 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        m2, residual = _moments(sigma, x2, outside, ratio)
        gamma = float((sigma / (sigma + ratio)).sum())
        alpha, beta = gamma / (m2 + 1e-12), (n - gamma) / (residual + 1e-12)
        if abs(alpha / beta - ratio) <= CONVERGED * ratio:
            break
    m2, residual = _moments(sigma, x2, outside, alpha / beta)
    log_det = float(np.log(alpha + beta * sigma).sum()) + (width - len(sigma)) * np.log(alpha)
    fit = width * np.log(alpha) + n * np.log(beta) - log_det - beta * residual - alpha * m2
    return float(0.5 * (fit - n * np.log(2 * np.pi)))


def _moments(sigma: Floats, x2: Floats, outside: float, ratio: float) -> tuple[float, float]:
    """Squared norm of the posterior mean of w, and of the residual."""
    m2 = float((sigma * x2 / (sigma + ratio) ** 2).sum())
    return m2, float((x2 * (ratio / (sigma + ratio)) ** 2).sum()) + outside


@register
class LEEP(ProbabilityRanker):
    """Rank by the log expected empirical prediction: how well the source classes' probabilities tell the labels.

    From the model's probabilities over its own classes z and the target labels y, the empirical P(y | z) is formed; the
    score is the mean log of sum_z P(y_i | z) P(z | x_i). Needs a model with a classifier, of any classes. Nothing is
    trained.

    Errors: labels that are no integers or of a single class, rows that are no probabilities.
    Cost: one forward pass over the target set a model.
    Reference: Nguyen, Hassner, Seeger and Archambeau, "LEEP: A New Measure to Evaluate Transferability of Learned
    Representations", ICML 2020, arXiv 2002.12462.
    """

    card = Card("leep", "LEEP: A New Measure to Evaluate Transferability of Learned Representations",
                paper=Paper("Nguyen, Hassner, Seeger and Archambeau", 2020, arxiv="2002.12462", venue="ICML"),
                needs=("models", "labelled"), part_of="tmi")  # fmt: skip

    def score(self, probabilities: Floats, labels: Ints) -> float:
        joint = np.eye(labels.max() + 1)[labels].T @ probabilities / len(labels)  # (classes, source classes)
        source = joint.sum(0)
        given_source = np.divide(joint, source, out=np.zeros_like(joint), where=source > 0)
        expected = (given_source[labels] * probabilities).sum(1)
        return float(np.log(np.maximum(expected, np.finfo(float).tiny)).mean())


@register
class NCE(ProbabilityRanker):
    """Rank by the negative conditional entropy of the target label given the model's own predicted class.

    -H(Y | Z) in nats, with Z the model's most probable class. Needs a model with a classifier, of any classes. Nothing
    is trained.

    Errors: labels that are no integers or of a single class, rows that are no probabilities.
    Cost: one forward pass over the target set a model.
    Reference: Tran, Nguyen and Hassner, "Transferability and Hardness of Supervised Classification Tasks", ICCV 2019,
    arXiv 1908.08142.
    """

    card = Card("nce", "Transferability and Hardness of Supervised Classification Tasks",
                paper=Paper("Tran, Nguyen and Hassner", 2019, arxiv="1908.08142", venue="ICCV"),
                needs=("models", "labelled"), part_of="tmi")  # fmt: skip

    def score(self, probabilities: Floats, labels: Ints) -> float:
        table = np.zeros((labels.max() + 1, probabilities.shape[1]))
        np.add.at(table, (labels, probabilities.argmax(1)), 1 / len(labels))
        there = table > 0
        given = table / np.where(table.sum(0) > 0, table.sum(0), 1)
        return float((table[there] * np.log(given[there])).sum())


@register
class HScore(FeatureRanker):
    """Rank by the share of the features' variance that the classes explain, in the features' own metric.

    tr(cov(f)^+ cov(E[f | y])), at most the number of dimensions. With few samples for the width the covariance is
    poorly known; `shrinkage` estimates it after Ledoit and Wolf. Nothing is trained.

    Errors: labels that are no integers or of a single class, features that are not finite.
    Cost: one forward pass over the target set a model, and O(N d^2 + d^3).
    Reference: Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas, "An Information-Theoretic Approach to Transferability in
    Task Transfer Learning", ICIP 2019; the shrunk form: Ibrahim, Ponomareva and Mazumder 2021, arXiv 2110.06893.
    """

    card = Card("h-score", "An Information-Theoretic Approach to Transferability in Task Transfer Learning",
                paper=Paper("Bao, Li, Huang, Zhang, Zheng, Zamir and Guibas", 2019, venue="ICIP"),
                needs=("models", "labelled"), part_of="tmi", tunes={"shrinkage": Choice((False, True))})  # fmt: skip
    shrinkage: bool = False  #: estimate the covariance with Ledoit and Wolf's shrinkage

    def score(self, features: Floats, labels: Ints) -> float:
        f = features - features.mean(0)
        means = np.stack([f[labels == c].mean(0) for c in range(labels.max() + 1)])[labels]
        covariance, between = f.T @ f / len(f), means.T @ means / len(f)
        if not self.shrinkage:
            return float(np.trace(np.linalg.pinv(covariance, rcond=1e-10, hermitian=True) @ between))
        share = ledoit_wolf_shrinkage(f, assume_centered=True)
        even = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        shrunk = (1 - share) * covariance + share * even
        return float((1 - share) * np.trace(np.linalg.pinv(shrunk, hermitian=True) @ between))


@register
class GBC(FeatureRanker):
    """Rank by how little the classes overlap: minus the sum of Bhattacharyya coefficients over pairs of classes.

    Each class is taken for a Gaussian with spherical or diagonal covariance in the space of the leading principal
    components. 0 is the best score, minus the number of ordered pairs the worst. Nothing is trained.

    Errors: labels that are no integers or of a single class, features that are not finite.
    Cost: one forward pass over the target set a model, and O(N d min(N, d)).
    Reference: Pandy, Agostinelli, Uijlings, Ferrari and Mensink, "Transferability Estimation using Bhattacharyya Class
    Separability", CVPR 2022, arXiv 2111.12780.
    """

    card = Card("gbc", "Transferability Estimation using Bhattacharyya Class Separability",
                paper=Paper("Pandy, Agostinelli, Uijlings, Ferrari and Mensink", 2022, arxiv="2111.12780",
                            venue="CVPR"),
                needs=("models", "labelled"), part_of="tmi",
                tunes={"covariance": Choice(("spherical", "diagonal"))})  # fmt: skip
    covariance: Literal["spherical", "diagonal"] = "spherical"  #: shape of each class's Gaussian
    components: PositiveInt = 64  #: principal components kept at most

    def score(self, features: Floats, labels: Ints) -> float:
        z = features - features.mean(0)
        z = z @ np.linalg.svd(z, full_matrices=False)[2][: self.components].T
        parts = [z[labels == c] for c in range(labels.max() + 1)]
        # Directions of no variance at all would make every coefficient 0: a floor far below the scale of the data.
        floor = 1e-8 * max(float(z.var(0).mean()), np.finfo(float).tiny)
        spread = [np.maximum(p.var(0), floor) for p in parts]
        if self.covariance == "spherical":
            spread = [np.full_like(v, v.mean()) for v in spread]
        means = [p.mean(0) for p in parts]
        total = sum(
            np.exp(-bhattacharyya(means[a], spread[a], means[b], spread[b]))
            for a in range(len(parts))
            for b in range(a + 1, len(parts))
        )
        return -2.0 * float(total)


def bhattacharyya(mean: Floats, variance: Floats, other_mean: Floats, other_variance: Floats) -> float:
    """Bhattacharyya distance of two Gaussians with diagonal covariances."""
    middle = (variance + other_variance) / 2
    apart = ((mean - other_mean) ** 2 / middle).sum() / 8
    return float(apart + 0.5 * (np.log(middle) - 0.5 * (np.log(variance) + np.log(other_variance))).sum())

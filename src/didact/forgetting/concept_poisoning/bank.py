"""Concepts: directions in a network's embedding, and the bottleneck that reads classes from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.linear_model import SGDClassifier
from sklearn.svm import SVC
from torch import Tensor

from didact.core.errors import BadInput

#: examples of each concept: name -> (what shows it, what does not), images or their embeddings
Examples = Mapping[str, tuple[Tensor, Tensor]]

#: a direction fitted to fewer examples than these is mostly noise
FEWEST = 10
#: examples of each side beyond these only slow the support-vector machine down
MOST = 200


@dataclass(frozen=True)
class ConceptBank:
    """Concepts as hyperplanes of an embedding with d numbers: normals (K, d), intercepts (K,), names."""

    names: tuple[str, ...]
    vectors: Tensor
    intercepts: Tensor

    def margins(self, embeddings: Tensor) -> Tensor:
        """(N, K) signed distance of each embedding (N, d) from each concept's hyperplane: (v·e + b) / ‖v‖."""
        length: Tensor = self.vectors.norm(dim=1).clamp(min=1e-12)
        return (embeddings @ self.vectors.T + self.intercepts) / length

    def cosines(self, embeddings: Tensor) -> Tensor:
        """(N, K) cosine of each embedding (N, d) with each concept's normal."""
        return F.normalize(embeddings, dim=-1) @ F.normalize(self.vectors, dim=-1).T


@dataclass(frozen=True)
class ConceptBottleneck:
    """A linear classifier on concept margins: weights (C, K). Row c tells which concepts carry class c."""

    bank: ConceptBank
    weights: Tensor
    accuracy: float  #: on the data it was fitted to: how much of the classes the concepts tell

    def strongest(self, label: int, count: int) -> list[int]:
        """The `count` concepts with the largest weights for a class; those that speak against it are left out."""
        row = self.weights[label]
        order = torch.argsort(row, descending=True, stable=True)[:count].tolist()
        return [k for k in order if row[k] > 0] or order[:1]

    def carrying(self, label: int, count: int) -> list[tuple[str, float]]:
        """Names and weights of the strongest concepts of a class."""
        return [(self.bank.names[k], float(self.weights[label, k])) for k in self.strongest(label, count)]

    def donor(self, label: int, count: int, allowed: Sequence[int]) -> int:
        """The class among `allowed` that is most like `label` in its concepts.

        The first of the label's concepts that is the strongest one of another class names that class; when there is
        none, it is the class with the largest weight on the label's strongest concept.
        """
        others = torch.tensor([c for c in allowed if c != label])
        own = self.strongest(label, count)
        rivals = [int(others[self.weights[others, k].argmax()]) for k in own]
        shared = (rival for k, rival in zip(own, rivals, strict=True) if int(self.weights[rival].argmax()) == k)
        return next(shared, rivals[0])


def learn_bank(examples: Examples, *, seed: int = 0, cost: float = 0.1) -> ConceptBank:
    """One linear support-vector machine a concept, between embeddings (n, d) of what shows it and of what does not."""
    generator = torch.Generator().manual_seed(seed)
    vectors, intercepts = [], []
    for sides in examples.values():
        positive, negative = (some_of(side, generator) for side in sides)
        machine = SVC(kernel="linear", C=cost)
        labels = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
        machine.fit(torch.cat([positive, negative]).double().numpy(), labels)
        vectors.append(torch.tensor(machine.coef_[0], dtype=torch.float32))
        intercepts.append(float(machine.intercept_[0]))
    return ConceptBank(tuple(examples), torch.stack(vectors), torch.tensor(intercepts))


def fit_bottleneck(
    bank: ConceptBank, embeddings: Tensor, labels: Tensor, classes: int, *, seed: int = 0
) -> ConceptBottleneck:
    """Elastic-net logistic regression of the classes on the concept margins, at the settings of the paper.

    Embeddings (N, d) with labels (N,); a class without samples gets no weights.
    """
    model = SGDClassifier(
        loss="log_loss", penalty="elasticnet", alpha=1e-5, l1_ratio=0.99, max_iter=10_000, random_state=seed
    )
    margins = bank.margins(embeddings).double().numpy()
    model.fit(margins, labels.numpy())
    found = torch.tensor(model.coef_, dtype=torch.float32)
    if len(model.classes_) == 2:  # two classes come as one row: that of the second
        found = torch.cat([-found, found])
    weights = torch.zeros(classes, len(bank.names))
    weights[torch.tensor(model.classes_).long()] = found
    return ConceptBottleneck(bank, weights, float(model.score(margins, labels.numpy())))


def looks_alike(embeddings: Tensor, count: int, *, seed: int = 0) -> Examples:
    """Concepts for data that come without any: clusters of pieces of images that the network sees as alike.

    Embeddings (n, d) of pieces of training images. A cluster's members show the concept, the others do not; clusters
    with too few members are dropped.
    """
    clusters = KMeans(max(1, min(count, len(embeddings) // FEWEST)), n_init=4, random_state=seed)
    member = torch.tensor(clusters.fit_predict(embeddings.double().numpy()))
    found = {
        f"look {k}": (embeddings[member == k], embeddings[member != k])
        for k in range(clusters.n_clusters)
        if FEWEST <= int((member == k).sum()) <= len(embeddings) - FEWEST
    }
    if not found:
        raise BadInput(
            f"No concept was found in {len(embeddings)} pieces of training images: each needs {FEWEST} that look alike "
            "to the model. Give more data, or concepts of your own by extras={'concepts': ...}."
        )
    return found


def check_examples(examples: Any) -> None:
    """Reject concepts that are not name -> (positive images, negative images) with enough of both."""
    if not isinstance(examples, Mapping) or not examples:
        raise BadInput("Concepts are a mapping of names to (positive images, negative images), at least one.")
    for name, sides in examples.items():
        if not (isinstance(sides, (tuple, list)) and len(sides) == 2 and all(torch.is_tensor(s) for s in sides)):
            raise BadInput(f"The concept {name!r} must be two tensors of images: those that show it, and others.")
        for side, kind in zip(sides, ("positive", "negative"), strict=True):
            if len(side) < FEWEST:
                raise BadInput(
                    f"The concept {name!r} has {len(side)} {kind} examples, but at least {FEWEST} are needed. Give "
                    "more, or leave the concept out."
                )


def some_of(rows: Tensor, generator: torch.Generator, most: int = MOST) -> Tensor:
    """At most so many of the rows, drawn without replacement."""
    return rows if len(rows) <= most else rows[torch.randperm(len(rows), generator=generator)[:most]]

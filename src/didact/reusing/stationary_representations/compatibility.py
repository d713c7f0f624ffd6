"""Whether queries of a new model find what old models have indexed, without indexing it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.batches import materialise
from didact.core.errors import BadInput
from didact.reusing.stationary_representations.networks import embedded


@dataclass(frozen=True, eq=False)
class Compatibility:
    """M[i, j]: accuracy of queries by model i in the gallery of model j <= i, oldest first; above it, nan."""

    matrix: NDArray[np.float64]
    same: float = float("nan")  #: share of same-class pairs with d(new, old) <= d(old, old)
    different: float = float("nan")  #: share of pairs of two classes with d(new, old) >= d(old, old)

    @property
    def ac(self) -> float:
        """Share of model pairs in which the new queries do better in an old gallery than the old queries did."""
        return average_compatibility(self.matrix)

    @property
    def am(self) -> float:
        """Mean accuracy over all galleries, the models' own included."""
        return average_multimodel(self.matrix)

    def across(self, step: int) -> float:
        """Mean accuracy of the models from `step` on in the galleries of those before it."""
        block = self.matrix[step:, :step]
        return float(block.mean()) if block.size else float("nan")


def average_compatibility(matrix: ArrayLike) -> float:
    """AC: share of pairs i > j with M[i, j] > M[j, j]. With few models it is coarse; 0 for a single one."""
    m = np.asarray(matrix, dtype=float)
    rows, columns = np.tril_indices(len(m), -1)
    return float((m[rows, columns] > m[columns, columns]).mean()) if len(rows) else 0.0


def average_multimodel(matrix: ArrayLike) -> float:
    """AM: mean of the lower triangle with the diagonal."""
    m = np.asarray(matrix, dtype=float)
    return float(m[np.tril_indices(len(m))].mean())


def compatibility(
    models: Sequence[nn.Module], gallery: Dataset[Any], queries: Dataset[Any], *, pairs: int = 200
) -> Compatibility:
    """Index the gallery with every model and query it with that model and all newer ones.

    A class is indexed by the mean of its normalised features, normalised again; a query finds the class at the
    largest cosine. The two inequalities of the definition are measured on the first `pairs` gallery samples.

    Args:
        models: oldest first, all with features of one size.
        gallery, queries: (input, class index) pairs; every class of the queries must be in the gallery.

    Cost: each model sees gallery and queries once; products of (queries x classes) and (pairs x pairs) a model pair.
    """
    (x, y), (q, t) = materialise(gallery)[:2], materialise(queries)[:2]
    missing = sorted(set(t.tolist()) - set(y.tolist()))
    if missing:
        raise BadInput(
            f"The gallery holds no sample of {', '.join(map(str, missing))}, which the queries ask for. Index at "
            "least one sample of each class."
        )
    stored, asked = [embedded(m, x) for m in models], [embedded(m, q) for m in models]
    sizes = sorted({features.shape[1] for features in stored})
    if len(sizes) > 1:
        raise BadInput(f"Features of one size are needed to compare models, but they have {sizes}. Give all models the "
                       "same embedding.")  # fmt: skip
    classes = torch.unique(y)
    templates = [class_templates(features, y, classes) for features in stored]
    matrix = np.full((len(models), len(models)), np.nan)
    for i in range(len(models)):
        for j in range(i + 1):
            found = classes[(asked[i] @ templates[j].T).argmax(1)]
            matrix[i, j] = float((found == t).double().mean())
    return Compatibility(matrix, *_definition([s[:pairs] for s in stored], y[:pairs]))


def class_templates(features: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """(classes, d): the mean of the normalised features of each class, normalised again."""
    return F.normalize(torch.stack([features[labels == c].mean(0) for c in classes]), dim=1)


def _definition(features: Sequence[Tensor], labels: Tensor) -> tuple[float, float]:
    """Shares of sample pairs that meet the definition's inequalities, over all pairs of models."""
    same = labels[:, None] == labels[None, :]
    apart = ~same
    same = same & ~torch.eye(len(labels), dtype=torch.bool)
    met_same, met_apart = [], []
    for i in range(1, len(features)):
        for j in range(i):
            new, old = features[i] @ features[j].T, features[j] @ features[j].T  # cosines: large is near
            met_same.append((new >= old)[same].double())
            met_apart.append((new <= old)[apart].double())
    shares = [float(torch.cat(met).mean()) if met and len(met[0]) else float("nan") for met in (met_same, met_apart)]
    return shares[0], shares[1]

"""The base of methods that only rank: one number a model (or layer), larger is better, and nothing is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.batches import materialise
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Batch, Classification, Objective
from didact.reusing.baselines import provenance, sample_shape
from didact.reusing.features import Layer, read, targets
from didact.reusing.problem import Reuser
from didact.reusing.request import ModelRecord, Request, Task, as_records, same_shape
from didact.reusing.result import ReuseResult

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ranker(Reuser):
    """Base of ranking methods. A subclass says what one record is worth."""

    def apply(self, request: Request) -> ReuseResult:
        records = same_shape(request.need_models(), sample_shape(request))
        if not records:
            raise NotApplicable("No model of the hub takes inputs of the task's shape.")
        return ReuseResult(
            ranking=self.ranked(records, request),
            cost={"training_steps": 0, "evaluations": len(records), "bytes_sent": 0},
            provenance=provenance(records),
        )

    def reorder(
        self, models: Iterable[ModelRecord], task: Task, seed: int = 0
    ) -> Callable[[Sequence[str]], Mapping[str, float]]:
        """For the `reorder` of a learnware dock's search: ids found -> their scores, computed where the labels are.

        Only the models found are loaded. Ids that are not among `models` and models of another input get no score.
        """
        known = {record.id: record for record in models}

        def scores(ids: Sequence[str]) -> Mapping[str, float]:
            found = [known[id] for id in ids if id in known]
            shape = sample_shape(Request(tuple(found), task))
            return self.reuse(found, task, seed=seed).ranking if same_shape(found, shape) else {}

        return scores

    @abstractmethod
    def ranked(self, records: Sequence[ModelRecord], request: Request) -> dict[str, float]:
        """Model id -> score, larger is better."""


class FeatureRanker(Ranker):
    """Base of rankings by features: `score(features, labels)` is the method, everything else is here.

    A model that can only predict (no network to look into) is judged by its predictions in place of features.
    """

    layer: str | None = None  #: layer whose features are used; default: what enters the last linear layer

    def __call__(self, features: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
        """How transferable features (N, ...) are to integer labels (N,); larger is better.

        Raises:
            BadInput: labels that are no integers or of a single class, features that are not finite, lengths that
                differ.
        """
        return self.score(*checked(features, labels))

    @abstractmethod
    def score(self, features: Floats, labels: Ints) -> float:
        """The same for checked arrays: (N, d) finite numbers, (N,) integers of at least two classes."""

    def rank(
        self,
        models: Iterable[ModelRecord | nn.Module],
        data: Dataset[Any] | Iterable[Batch],
        layers: Sequence[str] | None = None,
        objective: Objective | None = None,
    ) -> dict[str, float]:
        """Scores of models on labelled data: id -> score or, with `layers`, "id/layer" -> score.

        `data` is a data set or a sequence of batches. Each model makes one pass over it, however many layers.
        """
        objective = objective or Classification()
        wanted: Sequence[Layer] = layers if layers is not None else (self.layer,)
        if not wanted:
            raise BadInput("An empty list of layers was given. Name at least one layer, or leave layers out.")
        labels = targets(data, objective).numpy()
        found = {}
        for record in as_records(models):
            seen = features_of(record, data, objective, wanted)
            for layer in wanted:
                name = record.id if layers is None else f"{record.id}/{layer}"
                found[name] = named(name, self, seen[layer], labels)
        return found

    def ranked(self, records: Sequence[ModelRecord], request: Request) -> dict[str, float]:
        return self.rank(records, request.need_labelled(), objective=request.task.objective)


class ProbabilityRanker(Ranker):
    """Base of rankings by a model's own class probabilities: for models with a classifier of any classes."""

    def __call__(self, probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
        """How well source-class probabilities (N, S) tell integer target labels (N,); larger is better.

        Raises:
            BadInput: rows that are no probabilities, labels that are no integers or of a single class.
        """
        rows, y = checked(probabilities, labels)
        if not is_distribution(rows):
            raise BadInput("Rows of probabilities are expected: not negative, and each with the sum 1.")
        return self.score(rows, y)

    @abstractmethod
    def score(self, probabilities: Floats, labels: Ints) -> float:
        """The same for checked arrays."""

    def ranked(self, records: Sequence[ModelRecord], request: Request) -> dict[str, float]:
        data, objective = request.need_labelled(), request.task.objective
        labels = targets(data, objective).numpy()
        return {r.id: named(r.id, self, probabilities_of(r, data, objective), labels) for r in records}


def features_of(
    record: ModelRecord, data: Dataset[Any] | Iterable[Batch], objective: Objective, layers: Sequence[Layer]
) -> Mapping[Layer, Tensor]:
    """Layer -> (N, d) features of a record's model."""
    network = network_of(record)
    if network is not None:
        return read(network, data, objective, layers).features
    if any(layer is not None for layer in layers):
        raise NotApplicable(f"The model {record.id} can only predict: it has no layers to choose from.")
    return {None: predictions_of(record, data)}


def probabilities_of(record: ModelRecord, data: Dataset[Any], objective: Objective) -> Floats:
    """(N, S) probabilities of the model's own classes."""
    network = network_of(record)
    raw = predictions_of(record, data) if network is None else read(network, data, objective, ()).outputs
    rows = raw.double().flatten(1).numpy()
    return rows if network is None and is_distribution(rows) else raw.double().flatten(1).softmax(1).numpy()


def network_of(record: ModelRecord) -> nn.Module | None:
    model = record.load()
    if isinstance(model, nn.Module):
        return model
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) else None


def predictions_of(record: ModelRecord, data: Dataset[Any] | Iterable[Batch]) -> Tensor:
    """(N, outputs) of a model that can only predict."""
    if not hasattr(data, "__getitem__"):
        raise NotApplicable(f"The model {record.id} can only predict: give it a data set, not batches.")
    inputs = materialise(data)[0]  # type: ignore[arg-type]
    return torch.as_tensor(np.asarray(record.load().predict(inputs.numpy()))).float().reshape(len(inputs), -1)


def named(name: str, score: Any, features: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    """The score of one model; an error says which model it is about."""
    try:
        return float(score(features, labels))
    except BadInput as error:
        raise BadInput(f"The model {name} cannot be ranked. {error}") from None


def is_distribution(rows: Floats) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(1), 1.0, atol=1e-4))


def checked(features: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> tuple[Floats, Ints]:
    """Features as (N, d) float64 and labels as (N,) integers from 0, or an error that says what is wrong."""
    x = np.asarray(features.detach().cpu() if isinstance(features, Tensor) else features, dtype=np.float64)
    y = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise BadInput(f"Labels must be whole numbers, one a sample, but an array {y.shape} of {y.dtype} was given.")
    if x.ndim < 1 or len(x) != len(y) or len(y) == 0:
        raise BadInput(f"One row of features a label is expected, but there are {x.shape} features, {len(y)} labels.")
    x = x.reshape(len(x), -1)
    if not np.isfinite(x).all():
        raise BadInput(f"{int((~np.isfinite(x)).any(1).sum())} rows of features hold NaN or infinite numbers.")
    classes, places = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise BadInput("All labels are of a single class. Give samples of at least two classes.")
    return x, places.astype(np.int64)

"""What the dock's reusers answer with: several models that predict as one. Stored without pickles."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import MissingExtra
from didact.reusing.ensemble import combine
from didact.reusing.learnware_dock.case import vectors_of
from didact.reusing.learnware_dock.linear import Linear
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import Predictor, predictor

Array = NDArray[np.float64]
Mode = Literal["mean", "vote", "probabilities"]

ABOUT, SELECTOR, LINEAR = "dock.json", "selector.skops", "linear.npz"


class Combined(Predictor):
    """Models with weights, the user's classes, and what else a kind of answer needs (its `options`)."""

    options: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, sources: Sequence[Source], classes: Sequence[str], weights: Sequence[float] | None = None
    ) -> None:
        self.sources, self.classes = tuple(sources), tuple(classes)
        self.weights = [1.0 / len(sources)] * len(sources) if weights is None else [float(w) for w in weights]

    @abstractmethod
    def predict(self, inputs: Any) -> Array: ...

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i, source in enumerate(self.sources):
            source.save(folder / f"{i:03}")
        about = {name: getattr(self, name) for name in ("classes", "weights", *self.options)}
        text = json.dumps({**about, "sources": len(self.sources)}, indent=2)
        (folder / ABOUT).write_text(text, encoding="utf-8")
        self.save_parts(folder)

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        sources = [Source.open(folder / f"{i:03}") for i in range(about.pop("sources"))]
        return cls(sources, about.pop("classes"), about.pop("weights"), **about, **cls.open_parts(folder))

    def save_parts(self, folder: Path) -> None:
        """Write what is neither a model nor a number."""

    @classmethod
    def open_parts(cls, folder: Path) -> dict[str, Any]:
        return {}

    @property
    def stored_bytes(self) -> int:
        return sum(source.stored_bytes for source in self.sources)


@predictor("dock-average")
class Averaged(Combined):
    """The weighted mean of the outputs or probabilities, or the label with the most votes.

    A class is averaged over the models that know it; one that nobody knows gets 0.
    """

    options = ("mode",)

    def __init__(
        self,
        sources: Sequence[Source],
        classes: Sequence[str],
        weights: Sequence[float] | None = None,
        mode: Mode = "probabilities",
    ) -> None:
        super().__init__(sources, classes, weights)
        self.mode: Mode = mode

    def predict(self, inputs: Any) -> Array:
        if not self.classes:
            pairs = zip(self.sources, self.weights, strict=True)
            return np.asarray(sum(weight * source.outputs(inputs) for source, weight in pairs) / sum(self.weights))
        if self.mode == "vote":
            return votes(self.sources, self.classes, inputs, self.weights)
        found = [s.outputs(inputs) if self.mode == "mean" else s.probabilities(inputs) for s in self.sources]
        return combine(found, [s.classes or self.classes for s in self.sources], self.classes, self.weights)


@predictor("dock-routed")
class Routed(Combined):
    """Every sample goes to one model: the one that the selector, a boosted classifier of models, names.

    Without a selector all samples go to the first. Scores of classes that the named model does not know are 0.
    """

    options = ("encoder",)

    def __init__(
        self,
        sources: Sequence[Source],
        classes: Sequence[str],
        weights: Sequence[float] | None = None,
        encoder: str = "",
        selector: Any = None,
    ) -> None:
        super().__init__(sources, classes, weights)
        self.encoder, self.selector = encoder, selector

    def route(self, inputs: Any) -> NDArray[np.int64]:
        """The place of the model that each sample goes to, (n,)."""
        if self.selector is None:
            return np.zeros(len(inputs), dtype=np.int64)
        return np.asarray(self.selector.predict(vectors_of(inputs, self.encoder)), dtype=np.int64)

    def predict(self, inputs: Any) -> Array:
        where = self.route(inputs)
        scores: Array | None = None
        for place, source in enumerate(self.sources):
            mine = np.flatnonzero(where == place)
            if not len(mine):
                continue
            part = _taken(inputs, mine)
            found = source.outputs(part)
            if self.classes:
                found = source.aligned(source.probabilities(part), self.classes)[0]
            scores = np.zeros((len(inputs), found.shape[1])) if scores is None else scores
            scores[mine] = found
        return np.zeros((0, len(self.classes))) if scores is None else scores

    def save_parts(self, folder: Path) -> None:
        if self.selector is not None:
            skops_io().dump(self.selector, folder / SELECTOR)

    @classmethod
    def open_parts(cls, folder: Path) -> dict[str, Any]:
        file = folder / SELECTOR
        return {"selector": skops_io().load(file, trusted=list(TRUSTED)) if file.is_file() else None}


@predictor("dock-augmented")
class Augmented(Combined):
    """A linear model on the inputs and the models' outputs, fitted on a few labelled samples."""

    options = ("encoder",)

    def __init__(
        self,
        sources: Sequence[Source],
        classes: Sequence[str],
        weights: Sequence[float] | None = None,
        encoder: str = "",
        linear: Linear | None = None,
    ) -> None:
        super().__init__(sources, classes, weights)
        self.encoder, self.linear = encoder, linear

    def features(self, inputs: Any) -> Array:
        """(n, d + outputs of all models)."""
        return np.concatenate([vectors_of(inputs, self.encoder), *(s.outputs(inputs) for s in self.sources)], axis=1)

    def predict(self, inputs: Any) -> Array:
        assert self.linear is not None
        return self.linear.predict(self.features(inputs))

    def save_parts(self, folder: Path) -> None:
        assert self.linear is not None
        self.linear.save(folder / LINEAR)

    @classmethod
    def open_parts(cls, folder: Path) -> dict[str, Any]:
        return {"linear": Linear.open(folder / LINEAR)}


def votes(
    sources: Sequence[Source], classes: tuple[str, ...], inputs: Any, weights: Sequence[float] | None = None
) -> Array:
    """The weight of all models that vote for a class, (n, classes). A model votes among the classes it knows."""
    total = np.zeros((len(inputs), len(classes)))
    for source, weight in zip(sources, weights or [1.0] * len(sources), strict=True):
        total[np.arange(len(inputs)), labels_of(source, classes, inputs)] += weight
    return total


def labels_of(source: Source, classes: tuple[str, ...], inputs: Any) -> NDArray[np.int64]:
    """The user's class that a model finds most likely among those that both know, (n,)."""
    aligned, known = source.aligned(source.probabilities(inputs), classes)
    return np.asarray(np.where(known, aligned, -1.0).argmax(axis=1), dtype=np.int64)


def _taken(inputs: Any, rows: NDArray[np.int64]) -> Any:
    return [inputs[i] for i in rows] if isinstance(inputs, list) else inputs[rows]


#: what a selector is made of beyond what skops trusts by itself
TRUSTED = (
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)


def skops_io() -> Any:
    try:
        import skops.io
    except ImportError:
        raise MissingExtra("skops", "dock") from None
    return skops.io

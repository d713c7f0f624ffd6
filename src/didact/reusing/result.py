"""What a reuse method answers: a predictor, a ranking, weights, a way to make models, and where it all came from."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from didact.core import registry
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective.models import evaluating, output_tensor
from didact.models.artifacts import load, load_tokenizer, save, stored_bytes

RESULT = "reuse.json"


class Predictor(ABC):
    """Anything that predicts: inputs (N, ...) in, scores (N, outputs) out, in the order of the task's classes.

    One that is not a network implements `save` and is declared with `@predictor("kind")`, so that it can be loaded.
    """

    kind: str = ""

    @abstractmethod
    def predict(self, inputs: Any) -> NDArray[Any]: ...

    def save(self, folder: Path) -> None:
        raise NotApplicable(f"A {type(self).__name__} cannot be saved.")

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        raise NotApplicable(f"A {cls.__name__} cannot be loaded.")

    @property
    def stored_bytes(self) -> int:
        """Bytes of everything needed to predict."""
        return 0


_predictors: dict[str, type[Predictor]] = {}


def predictor(kind: str) -> Callable[[type[Predictor]], type[Predictor]]:
    """Class decorator: make a predictor loadable under a name."""

    def decorate(cls: type[Predictor]) -> type[Predictor]:
        cls.kind = kind
        _predictors[kind] = cls
        return cls

    return decorate


@predictor("network")
class NetworkPredictor(Predictor):
    """A single network."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @torch.no_grad()
    def predict(self, inputs: Any) -> NDArray[Any]:
        x = inputs if isinstance(inputs, torch.Tensor) else torch.as_tensor(np.asarray(inputs))
        with evaluating(self.module):
            return torch.cat([output_tensor(self.module(part)) for part in torch.split(x, 256)]).float().cpu().numpy()

    def save(self, folder: Path) -> None:
        save(self.module, folder / "model")

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        return cls(load(folder / "model"))

    @property
    def stored_bytes(self) -> int:
        return stored_bytes(self.module)


@dataclass(eq=False)
class ReuseResult:
    """The answer to a request. Which fields are filled depends on what the method does."""

    predictor: Predictor | None = None
    module: nn.Module | None = None  #: the answer, when it is a single network
    #: for methods that expand: (depth or configuration) -> an untied network of its own
    produce: Callable[..., nn.Module] | None = None
    ranking: Mapping[str, float] = field(default_factory=dict)  #: model id -> score, larger is better
    weights: Mapping[str, float] = field(default_factory=dict)  #: model id -> mixture or merge coefficient
    #: `stored_parameters`, `training_steps`, `evaluations`, `bytes_sent` and what else the method counts
    cost: Mapping[str, float] = field(default_factory=dict)
    #: ids, coefficients, fingerprints and licences of everything that went in
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)  #: what only this kind of problem scores

    def __post_init__(self) -> None:
        if self.predictor is None and self.module is not None:
            self.predictor = NetworkPredictor(self.module)

    @property
    def top(self) -> str:
        """Id of the highest ranked model; ties go to the first id."""
        if not self.ranking:
            raise NotApplicable("This answer ranks nothing.")
        return min(self.ranking, key=lambda id: (-self.ranking[id], id))

    def predict(self, inputs: Any) -> NDArray[Any]:
        """Scores (N, outputs) in the order of the task's classes."""
        if self.predictor is None:
            raise NotApplicable("This answer is a ranking or a maker of models, it cannot predict.")
        return self.predictor.predict(inputs)

    def explain(self) -> str:
        """What was used, with which share, at which cost; a few lines of text."""
        lines = []
        shown = sorted(self.weights.items(), key=lambda item: -abs(item[1]))[:10]
        if shown:
            lines.append("uses " + ", ".join(f"{id} ({weight:.3g})" for id, weight in shown))
        elif self.ranking:
            best = sorted(self.ranking.items(), key=lambda item: (-item[1], item[0]))[:5]
            lines.append("ranks first " + ", ".join(f"{id} ({score:.4g})" for id, score in best))
        if self.cost:
            lines.append("cost: " + ", ".join(f"{name} {value:,.0f}" for name, value in self.cost.items()))
        licences = self.provenance.get("licences")
        if licences:
            lines.append("licences: " + ", ".join(sorted(set(licences))))
        return "\n".join(lines) or "an answer without a record of how it was made"

    def save(self, folder: str | Path) -> Path:
        """Write the answer to a folder: `reuse.json` and, when it predicts, the predictor."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.predictor is not None:
            self.predictor.save(folder / "predictor")
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder / "tokenizer")
        about: dict[str, Any] = {"predictor": self.predictor.kind if self.predictor else None}
        about |= {name: dict(getattr(self, name)) for name in ("ranking", "weights", "cost", "provenance")}
        (folder / RESULT).write_text(json.dumps(about, indent=2, default=str), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, folder: str | Path) -> ReuseResult:
        """Read an answer that `save` wrote. What can make models (`produce`) is not part of it."""
        folder = Path(folder)
        if not (folder / RESULT).is_file():
            raise BadInput(f"{folder} holds no reuse result: {RESULT} is missing.")
        about = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        kind = about.pop("predictor")
        if kind is not None and kind not in _predictors:
            registry.load()  # predictors are declared beside the methods that make them
        if kind is not None and kind not in _predictors:
            raise BadInput(f"{folder} holds a predictor of the unknown kind {kind!r}.")
        made = _predictors[kind].open(folder / "predictor") if kind else None
        module = made.module if isinstance(made, NetworkPredictor) else None
        tokenizer = load_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
        return cls(predictor=made, module=module, tokenizer=tokenizer, **about)

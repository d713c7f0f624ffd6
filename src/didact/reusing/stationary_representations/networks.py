"""A network for retrieval: a backbone, a linear embedding, and a classifier that is fixed or learnt."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.objective.models import evaluating, head_name
from didact.models.artifacts import load, save, stored_bytes
from didact.models.small import architecture, build
from didact.reusing.result import NetworkPredictor, Predictor, predictor
from didact.reusing.stationary_representations.simplex import SimplexClassifier


@architecture("retrieval")
class RetrievalNet(nn.Module):
    """Inputs (B, ...) -> scores (B, classes); `embed` gives the features (B, features) that galleries store.

    Args:
        backbone: a network whose last linear layer is taken off, or the name and options of a small one.
        classes: how many classes there is room for.
        features: size of the embedding; with the fixed simplex it is classes - 1.
        fixed: classify by the simplex, which is not trained, or by a learnt linear layer without bias.
    """

    def __init__(
        self, backbone: nn.Module | dict[str, Any], classes: int = 1024, features: int | None = None, fixed: bool = True
    ) -> None:
        super().__init__()
        network = build(backbone["name"], **backbone["options"]) if isinstance(backbone, dict) else backbone
        size = features if features is not None else classes - 1
        if fixed and size != classes - 1:
            raise BadInput(f"A simplex of {classes} classes takes {classes - 1} features, but {size} were asked for.")
        self.backbone, width = headless(network)
        self.embedding = nn.Linear(width, size, bias=False)
        self.classifier = SimplexClassifier(classes) if fixed else nn.Linear(size, classes, bias=False)
        self.classes, self.features, self.fixed = classes, size, fixed

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.embed(x))
        return scores

    def embed(self, x: Tensor) -> Tensor:
        features: Tensor = self.embedding(self.backbone(x))
        return features

    @property
    def fingerprint(self) -> str:
        """Of the prototypes; empty when the classifier is learnt."""
        return self.classifier.fingerprint if isinstance(self.classifier, SimplexClassifier) else ""


def retrieval_net(
    backbone: nn.Module, classes: int = 1024, features: int | None = None, fixed: bool = True
) -> RetrievalNet:
    """A retrieval network around a copy of a backbone. It saves and loads when the backbone is buildable by name."""
    made = RetrievalNet(copy.deepcopy(backbone), classes, features, fixed)
    named = getattr(backbone, "architecture", None)
    if isinstance(named, dict):
        options = {"backbone": named, "classes": classes, "features": features, "fixed": fixed}
        made.architecture = {"name": "retrieval", "options": options}  # type: ignore[assignment]
    return made


def headless(network: nn.Module) -> tuple[nn.Module, int]:
    """The network without its last linear layer, and the size of what then comes out."""
    name = head_name(network)
    width = network.get_submodule(name).in_features
    assert isinstance(width, int)
    network.set_submodule(name, nn.Identity())
    return network, width


@torch.no_grad()
def embedded(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """(N, d) normalised features in evaluation mode. Any network serves: one without `embed` gives its output."""
    embed = getattr(model, "embed", model)
    with evaluating(model):
        return F.normalize(torch.cat([embed(part) for part in torch.split(inputs, batch_size)]).float(), dim=1)


@predictor("upgrades")
class Upgrades(Predictor):
    """A model with all the ones it replaced, oldest first. Predicts with the newest."""

    def __init__(self, models: list[nn.Module]) -> None:
        self.models = models

    def predict(self, inputs: Any) -> NDArray[Any]:
        return NetworkPredictor(self.models[-1]).predict(inputs)

    def embed(self, inputs: Any, model: int = -1) -> NDArray[np.float32]:
        """(N, d) normalised features of the newest model, or of an older one."""
        found: NDArray[np.float32] = embedded(self.models[model], torch.as_tensor(inputs)).cpu().numpy()
        return found

    def save(self, folder: Path) -> None:
        for i, model in enumerate(self.models):
            save(model, folder / f"{i:03}")

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        return cls([load(part) for part in sorted(folder.iterdir()) if part.is_dir()])

    @property
    def stored_bytes(self) -> int:
        return stored_bytes(self.models[-1])

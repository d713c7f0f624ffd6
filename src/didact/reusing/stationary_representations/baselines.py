"""What stationary representations are compared with: learnt classifiers, with and without a tie to the past."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from didact.core.batches import materialise
from didact.core.method import Card, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.reusing.request import Request
from didact.reusing.stationary_representations.networks import RetrievalNet, embedded
from didact.reusing.stationary_representations.stream import Memory, Stream
from didact.reusing.stationary_representations.upgrading import (
    Parts,
    Upgrader,
    clone,
    cross_entropy,
    features_and_scores,
)

NEEDS = ("stream", "recipe", "upgrading")


class _Learnt(Upgrader):
    """A classifier that is learnt, over the classes seen so far."""

    def loss(self, model: RetrievalNet, parts: Parts, batch: Batch) -> Tensor:
        _, scores, labels = features_and_scores(model, batch)
        return cross_entropy(model, scores, labels, parts.seen)


@register
class UpgradeReplay(_Learnt):
    """Go on training the old network with a classifier that is learnt and a memory of old classes.

    A replacement starts anew. Cost: as the method, without the frozen model.
    """

    card: ClassVar[Card] = Card("upgrade-replay", "Experience replay with a learnt classifier", kind="baseline",
                                tasks=("classification",), needs=NEEDS)  # fmt: skip


@register
class UpgradeIndependent(_Learnt):
    """Train each step's network anew, on the step's data and the memory. Cost: as replay.

    Nothing ties its features to those of the old networks.
    """

    card: ClassVar[Card] = Card("upgrade-independent", "Independent training of every model", kind="baseline",
                                tasks=("classification",), needs=NEEDS)  # fmt: skip

    def start(
        self, came: RetrievalNet | None, previous: RetrievalNet | None, request: Request, stream: Stream, number: int
    ) -> RetrievalNet:
        return came or self.first(request, stream, number)


@register
class BackwardCompatible(_Learnt):
    """Experience replay with a second loss: the frozen classifier of the model before must read the new features too.

    Each step's loss adds the old classifier's cross-entropy on samples of the classes it knows. Cost: as replay.

    Reference: Shen, Xiong, Xia and Soatto, "Towards Backward-Compatible Representation Learning", CVPR 2020, arXiv
    2003.11942.
    """

    card: ClassVar[Card] = Card(
        "backward-compatible",
        "Backward-compatible training",
        kind="baseline",
        tasks=("classification",),
        needs=NEEDS,
        tunes={"influence": Range(0.1, 10.0, log=True)},
    )
    influence: NonNegativeFloat = 1.0  #: weight of the old classifier's loss

    def parts(self, started: RetrievalNet, previous: RetrievalNet | None, seen: int, known: int) -> Parts:
        old: nn.Module | None = clone(previous).classifier.requires_grad_(False) if previous is not None else None
        return Parts(seen, old_classifier=old, known=known)

    def loss(self, model: RetrievalNet, parts: Parts, batch: Batch) -> Tensor:
        features, scores, labels = features_and_scores(model, batch)
        loss = cross_entropy(model, scores, labels, parts.seen)
        old = labels < parts.known
        if parts.old_classifier is None or not bool(old.any()):
            return loss
        read = parts.old_classifier(features[old])[:, : parts.known]
        return loss + self.influence * F.cross_entropy(read, labels[old])


@register
class ProcrustesAlignment(_Learnt):
    """Experience replay, then the rotation of the new features that brings them closest to the old ones on the memory.

    The rotation becomes part of the embedding. Cost: as replay, and a singular value decomposition a step.
    """

    card: ClassVar[Card] = Card("procrustes-alignment", "Procrustes alignment to the old features", kind="baseline",
                                tasks=("classification",), needs=NEEDS)  # fmt: skip

    def finished(self, model: RetrievalNet, previous: RetrievalNet | None, memory: Memory) -> RetrievalNet:
        if previous is None:
            return model
        x = materialise(memory.data)[0]
        turn = rotation(embedded(model, x), embedded(previous, x))
        turned = clone(model).eval()
        assert isinstance(turned.classifier, nn.Linear)
        with torch.no_grad():
            turned.embedding.weight.copy_(turn.T @ model.embedding.weight)
            turned.classifier.weight.copy_(turned.classifier.weight @ turn)  # scores stay what they were
        return turned


def rotation(new: Tensor, old: Tensor) -> Tensor:
    """The orthogonal R (d, d) for which new @ R is closest to old in least squares."""
    u, _, v = torch.linalg.svd((new.T @ old).double())
    turn: Tensor = u @ v
    return turn.float()

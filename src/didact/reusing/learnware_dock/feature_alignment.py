"""Feature alignment: learnwares of another input space, reached by a map that is trained on specifications alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from didact.core.errors import NotApplicable
from didact.core.method import Card, Range
from didact.core.recipe import seeded
from didact.core.registry import register
from didact.models.small import mlp
from didact.reusing.learnware_dock.card import PAPER
from didact.reusing.learnware_dock.case import Case, kind_of, vectors_of
from didact.reusing.learnware_dock.feature_augmentation import augmented
from didact.reusing.learnware_dock.identification import Found, specifications_of
from didact.reusing.learnware_dock.predictors import Averaged
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.request import ModelRecord
from didact.reusing.result import ReuseResult

if TYPE_CHECKING:
    from didact.reusing.dock import Specification


@register
class DockFeatureAlignment(DockReuser):
    """Reuse learnwares that take other columns than the user has, by mapping the user's values into theirs.

    Use it for tables when nothing in the dock has the same columns. For each learnware a network (one hidden layer of
    1024) is trained so that the user's reduced points, mapped, have the mean embedding of the learnware's: no row is
    needed, and no label. Mapped distributions agree, meanings need not: with labels the learnwares' outputs are only
    features of a linear model beside the user's own values; without, their probabilities are averaged, and all rests
    on the map. Inputs (n, ...), flattened; outputs (n, classes) or (n, targets). The maps are trained, nothing else.

    Errors: NotApplicable when no model of another input space with a specification of raw values is there; or when,
    without labels, none of them knows a class of the task.

    Cost: for each learnware `epochs` passes of K reduced points through the map and a K x K kernel.

    Reference: Tan, Liu, Bi and others 2024, Beimingwu: a learnware dock system (arXiv 2401.14427).
    """

    card = Card("dock-feature-alignment", "Beimingwu: A Learnware Dock System", PAPER, part_of="learnware-dock",
                tasks=("classification", "regression"), needs=("models", "data"),
                tunes={"epochs": Range(20, 200, log=True, integer=True)})  # fmt: skip

    identify: str = "single"  #: not used: learnwares of other input spaces are ranked by what their map leaves over
    hidden: int = Field(default=1024, ge=1)  #: width of the map's hidden layer
    epochs: int = Field(default=50, ge=1)  #: optimiser steps of the map, each on all reduced points
    lr: PositiveFloat = 1e-3  #: of Adam
    most: int = Field(default=3, ge=1)  #: learnwares that are aligned with and used: those with the smallest distance

    def find(self, case: Case, records: Sequence[ModelRecord]) -> Found:
        """All models of other input spaces; what they are worth is known after alignment only."""
        foreign = self.foreign(case, records)
        asked = self.of_user(case, specifications_of(foreign[0])[0].gamma)
        sent = len(json.dumps(asked.to_json(), separators=(",", ":")))
        return Found(tuple(foreign), {}, {r.id: 1.0 for r in foreign}, asked, bytes_sent=sent)

    def combine(self, case: Case, found: Found) -> ReuseResult:
        aligned = [(record, *self.aligned(record, case)) for record in found.records]
        aligned.sort(key=lambda each: (each[2], each[0].id))
        used, sources = [r for r, _, _ in aligned[: self.most]], [s for _, s, _ in aligned[: self.most]]
        made = augmented(sources, case, "") if case.targets is not None else Averaged(sources, case.need_classes())
        found = replace(
            found,
            records=tuple(record for record, _, _ in aligned),
            ranking={record.id: -distance for record, _, distance in aligned},
            shares={record.id: 1.0 / len(used) for record in used},
        )
        maps = sum(p.numel() for source in sources if source.mapper for p in source.mapper.parameters())
        return result_of(made, found, used, extra_parameters=maps, training_steps=self.epochs * len(aligned))

    def foreign(self, case: Case, records: Sequence[ModelRecord]) -> list[ModelRecord]:
        """The models of another input space that can be aligned with, and whose answers mean something."""
        if kind_of(case.inputs) == "Text":
            raise NotApplicable("Texts have no columns to align. Reuse learnwares that are specified by texts.")
        mine = np.shape(case.inputs)[1:]
        found = [
            r
            for r in records
            if r.input_shape
            and tuple(r.input_shape) != mine
            and any(s.encoder == "" and s.dimension == int(np.prod(r.input_shape)) for s in specifications_of(r))
            and (case.targets is not None or case.regression or set(r.classes) & set(case.classes))
        ]
        if not found:
            raise NotApplicable(
                f"No model takes other inputs than the data's {mine}, is specified by raw values and, without labels, "
                "knows a class of the task: there is nothing to align with."
            )
        return found

    def aligned(self, record: ModelRecord, case: Case) -> tuple[Source, float]:
        """The model behind a map that was trained for it, and the distance (MMD^2) that was left."""
        theirs = next(s for s in specifications_of(record) if s.encoder == "")
        mine = self.of_user(case, theirs.gamma)
        z, beta = _tensors(mine.z, mine.beta)
        target, weights = _tensors(theirs.z, theirs.beta)
        with seeded(case.seed):
            mapper = mlp(mine.dimension, theirs.dimension, (self.hidden,))
        distance = self.train(mapper, z, beta, target, weights, theirs.gamma)
        source = Source(record.id, record.load(), tuple(record.classes), mapper.eval(), tuple(record.input_shape))
        return source, distance

    def of_user(self, case: Case, gamma: float) -> Specification:
        """The user's reduced points, of raw values."""
        from didact.reusing.dock import specify

        return specify(vectors_of(case.inputs), gamma=gamma, seed=case.seed)

    def train(self, mapper: nn.Module, z: Tensor, beta: Tensor, target: Tensor, weights: Tensor, gamma: float) -> float:
        """Train the map in place; returns the squared distance of the embeddings that is left."""
        optimiser = torch.optim.Adam(mapper.parameters(), lr=self.lr)
        for _ in range(self.epochs):
            loss = mmd2(mapper(z), beta, target, weights, gamma)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            return float(mmd2(mapper(z), beta, target, weights, gamma))


def mmd2(a: Tensor, of_a: Tensor, b: Tensor, of_b: Tensor, gamma: float) -> Tensor:
    """Squared distance of the embeddings of two weighted point sets (n, d), (n,) and (m, d), (m,)."""

    def inner(x: Tensor, of_x: Tensor, y: Tensor, of_y: Tensor) -> Tensor:
        squares = (x.unsqueeze(1) - y.unsqueeze(0)).square().sum(-1)
        return of_x @ torch.exp(-gamma * squares) @ of_y

    return inner(a, of_a, a, of_a) - 2.0 * inner(a, of_a, b, of_b) + inner(b, of_b, b, of_b)


def _tensors(z: NDArray[np.float64], beta: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    return torch.tensor(z, dtype=torch.float32), torch.tensor(beta, dtype=torch.float32)

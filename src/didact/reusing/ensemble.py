"""Several models of different classes as one predictor: their outputs brought into the order of the task's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from didact.core.errors import BadInput
from didact.models.artifacts import load, save, stored_bytes
from didact.reusing.result import NetworkPredictor, Predictor, predictor

MEMBERS = "members.json"


@dataclass(frozen=True, eq=False)
class Member:
    """A network with the names of its outputs and its weight in the ensemble."""

    id: str
    module: nn.Module
    classes: tuple[str, ...]
    weight: float = 1.0


@predictor("ensemble")
class EnsemblePredictor(Predictor):
    """Weighted mean of the members' probabilities, class by class over those members that know the class.

    A member says nothing about a class it does not know; a class that no member knows gets probability 0.
    """

    def __init__(self, members: Sequence[Member], classes: Sequence[str]) -> None:
        if not members:
            raise BadInput("An ensemble needs at least one member.")
        self.members, self.classes = tuple(members), tuple(classes)

    def predict(self, inputs: Any) -> NDArray[Any]:
        found = [softmax(NetworkPredictor(m.module).predict(inputs), axis=1) for m in self.members]
        return combine(found, [m.classes for m in self.members], self.classes, [m.weight for m in self.members])

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for i, member in enumerate(self.members):
            save(member.module, folder / f"{i:03}")
        about = [{"id": m.id, "classes": m.classes, "weight": m.weight} for m in self.members]
        text = json.dumps({"classes": self.classes, "members": about}, indent=2)
        (folder / MEMBERS).write_text(text, encoding="utf-8")

    @classmethod
    def open(cls, folder: Path) -> Predictor:
        about = json.loads((folder / MEMBERS).read_text(encoding="utf-8"))
        members = [
            Member(m["id"], load(folder / f"{i:03}"), tuple(m["classes"]), m["weight"])
            for i, m in enumerate(about["members"])
        ]
        return cls(members, about["classes"])

    @property
    def stored_bytes(self) -> int:
        return sum(stored_bytes(m.module) for m in self.members)


def combine(
    scores: Sequence[NDArray[Any]],
    known: Sequence[Sequence[str]],
    classes: Sequence[str],
    weights: Sequence[float] | None = None,
) -> NDArray[Any]:
    """(N, len(classes)): weighted mean of aligned scores, each class over the models that know it."""
    total = np.zeros((len(scores[0]), len(classes)))
    mass = np.zeros(len(classes))
    for found, names, weight in zip(scores, known, weights or [1.0] * len(scores), strict=True):
        aligned, there = align(found, names, classes)
        total += weight * aligned
        mass += weight * there
    return total / np.where(mass > 0, mass, 1.0)


def align(
    scores: NDArray[Any], known: Sequence[str], classes: Sequence[str], missing: float = 0.0
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Columns of scores (N, len(known)) in the order of `classes`, and which classes are known at all."""
    if scores.shape[1:] != (len(known),):
        raise BadInput(f"Scores for {len(known)} classes were expected, but they have the shape {scores.shape}.")
    place = {name: i for i, name in enumerate(known)}
    there = np.array([name in place for name in classes])
    aligned = np.full((len(scores), len(classes)), missing)
    aligned[:, there] = scores[:, [place[name] for name in classes if name in place]]
    return aligned, there

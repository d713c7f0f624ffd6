"""Making poison: which class gives pieces to which, where they are put, and what the images are called afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import evaluating
from didact.forgetting.concept_poisoning.bank import (
    ConceptBottleneck,
    Examples,
    check_examples,
    fit_bottleneck,
    learn_bank,
    looks_alike,
    some_of,
)
from didact.forgetting.concept_poisoning.head import features_of
from didact.forgetting.concept_poisoning.locate import (
    View,
    class_activation,
    corners_around,
    crop,
    paste,
    peaks,
    window_scores,
)
from didact.forgetting.concept_poisoning.reader import Reader
from didact.forgetting.request import Request
from didact.parts.datasets import targets_of

Place = Literal["localized", "margin", "gradcam", "center", "random", "full", "none"]
Labels = Literal["targeted", "random", "keep"]

#: side of the pasted piece relative to `patch`: in the paper 64, 96 and 160 of 224 pixels
RELATIVE = {"center": 1.5, "random": 1.5, "full": 2.5}
#: training images in whose windows concepts are looked for
SOURCES = 100


@dataclass(frozen=True)
class Poisoner:
    """A request as concept poisoning sees it: inputs (n, ...) and labels (n,) to forget, labels (m,) that stay."""

    request: Request
    reader: Reader
    inputs: Tensor
    labels: Tensor
    retained: Tensor
    classes: int
    place: Place
    patch: float
    view: View
    top: int
    pieces: int
    looks: int

    @classmethod
    def of(cls, request: Request, **settings: Any) -> Poisoner:
        objective, retain = request.objective, request.need_retain()
        reader = Reader.of(request.model, objective, request.forget)
        inputs = reader.inputs(request.forget)
        with evaluating(request.model), torch.no_grad():
            classes = reader.logits(inputs[:1]).shape[-1]
        labels, retained = (torch.stack(targets_of(data, objective)).long() for data in (request.forget, retain))
        if len({*labels.tolist(), *retained.tolist()}) < 2:
            raise BadInput("concept-poisoning puts one class in place of another, but the data hold fewer than 2.")
        made = cls(request, reader, inputs, labels, retained, classes, **settings)
        made._check()
        return made

    @property
    def forgotten(self) -> list[int]:
        """The classes among the forget samples."""
        return sorted(set(self.labels.tolist()))

    @property
    def size(self) -> tuple[int, int]:
        return self.inputs.shape[2], self.inputs.shape[3]

    @property
    def side(self) -> int:
        """Pixels of the pasted piece."""
        return max(1, round(RELATIVE.get(self.place, 1.0) * self.patch * min(self.size)))

    @property
    def window(self) -> tuple[int, int]:
        """Side and stride, in pixels, of the window that looks for concepts: the paper's are 64 and 16."""
        side = max(1, round(self.patch * min(self.size)))
        return side, max(1, round(side / 4))

    def bottleneck(self) -> ConceptBottleneck:
        """Concepts, those offered or found, and how the classes follow from them in the training data."""
        if self.inputs.ndim != 4:
            raise NotApplicable(
                f"Concepts are looked for in images (B, C, H, W), but the inputs are {tuple(self.inputs.shape)}. Use "
                "locate='none' and name the donor class."
            )
        request = self.request
        offered = request.extras.get("concepts")
        if offered is not None:
            check_examples(offered)
        bank = learn_bank(self._found() if offered is None else self._embedded(offered), seed=request.seed)
        data: Dataset[Any] = ConcatDataset([request.need_retain(), request.forget])
        embeddings, labels = features_of(request.model, data, request.objective)
        return fit_bottleneck(bank, embeddings, labels, self.classes, seed=request.seed)

    def donors(self, bottleneck: ConceptBottleneck | None, named: int | None) -> dict[int, int]:
        """The donor of each class to forget: the one named, or the one that shares most concepts."""
        if named is not None:
            self._check_donor(named)
            return dict.fromkeys(self.forgotten, named)
        if bottleneck is None:
            return {}
        staying = sorted(set(self.retained.tolist()))
        # When samples of every class go, another class's retained samples must do.
        untouched = [c for c in staying if c not in self.forgotten] or staying
        alone = [c for c in self.forgotten if untouched == [c]]
        if alone:
            raise BadInput(
                f"Class {alone[0]} has no donor: no other class has retained samples. Retain some of another."
            )
        return {c: bottleneck.donor(c, self.top, untouched) for c in self.forgotten}

    def images(self, bottleneck: ConceptBottleneck | None, donors: dict[int, int]) -> Tensor:
        """(n, C, H, W) the images to forget with pieces of their donors pasted in."""
        if self.place == "none":
            return self.inputs
        generator = torch.Generator().manual_seed(self.request.seed)
        result = self.inputs.clone()
        for label, donor in donors.items():
            rows = (self.labels == label).nonzero().flatten()
            given = self._drawn(donor, len(rows), generator)
            result[rows] = self._pasted(result[rows], given, label, donor, bottleneck, generator)
        return result

    def new_labels(self, kind: Labels, donors: dict[int, int]) -> Tensor:
        """(n,) what the poisoned images are called."""
        if kind == "keep":
            return self.labels
        if kind == "random":  # over all classes, as in the authors' code: the true one is among them
            generator = torch.Generator().manual_seed(self.request.seed + 29)
            return torch.randint(self.classes, self.labels.shape, generator=generator)
        return torch.tensor([donors[c] for c in self.labels.tolist()])

    def _pasted(
        self,
        images: Tensor,
        given: Tensor,
        label: int,
        donor: int,
        bottleneck: ConceptBottleneck | None,
        generator: torch.Generator,
    ) -> Tensor:
        """Images of one class (n, C, H, W) with pieces of as many donor images."""
        middle = corners_around(torch.tensor(self.size) // 2, self.side, self.size).expand(len(images), 2)
        if self.place == "full":
            shrunk = F.interpolate(given, size=(self.side, self.side), mode="bilinear", align_corners=False)
            return paste(images, shrunk, middle)
        if self.place == "center":
            return paste(images, crop(given, middle, self.side), middle)
        if self.place == "random":
            room = torch.tensor(self.size) - self.side + 1
            anywhere = (torch.rand(len(images), 2, generator=generator) * room).long()
            return paste(images, crop(given, middle, self.side), anywhere)
        assert bottleneck is not None
        targets = self._places(images, label, bottleneck)
        sources = self._peaks(given, bottleneck, bottleneck.strongest(donor, self.pieces))
        for k in range(targets.shape[1]):
            piece = crop(given, sources[:, k % sources.shape[1]], self.side)
            images = paste(images, piece, targets[:, k])
        return images

    def _places(self, images: Tensor, label: int, bottleneck: ConceptBottleneck) -> Tensor:
        """(n, K, 2) corners of what carries the class: one for each concept, or a single one."""
        if self.place == "localized":
            return self._peaks(images, bottleneck, bottleneck.strongest(label, self.pieces))
        if self.place == "margin":
            weights = bottleneck.weights[label].unsqueeze(1)
            return peaks(self._scores(images, bottleneck) @ weights, self.window[1])
        labels = torch.full((len(images),), label)
        maps = [
            class_activation(self.reader.model, *some, self.reader.logits)
            for some in zip(torch.split(images, 64), torch.split(labels, 64), strict=True)
        ]
        best = torch.cat(maps).flatten(1).argmax(1)
        centres = torch.stack([best // self.size[1], best % self.size[1]], -1)
        return corners_around(centres, self.side, self.size).unsqueeze(1)

    def _peaks(self, images: Tensor, bottleneck: ConceptBottleneck, concepts: Sequence[int]) -> Tensor:
        return peaks(self._scores(images, bottleneck)[..., list(concepts)], self.window[1])

    def _scores(self, images: Tensor, bottleneck: ConceptBottleneck) -> Tensor:
        """(n, rows, columns, K) cosine of every window with every concept."""
        return window_scores(
            images, lambda some: bottleneck.bank.cosines(self.reader.embed(some)), *self.window, self.view
        )

    def _drawn(self, donor: int, count: int, generator: torch.Generator) -> Tensor:
        """`count` retained images of the donor class, drawn with replacement."""
        rows = (self.retained == donor).nonzero().flatten()
        chosen = rows[torch.randint(len(rows), (count,), generator=generator)]
        place = {row: k for k, row in enumerate(sorted(set(chosen.tolist())))}
        images = self.reader.inputs(Subset(self.request.need_retain(), list(place)))
        return images[[place[row] for row in chosen.tolist()]]

    def _embedded(self, offered: Examples) -> Examples:
        shape = self.inputs.shape[1:]
        for name, sides in offered.items():
            for side in sides:
                if side.shape[1:] != shape:
                    raise BadInput(
                        f"The examples of the concept {name!r} are {tuple(side.shape[1:])}, but the images are "
                        f"{tuple(shape)}. Prepare them as the training images."
                    )
        generator = torch.Generator().manual_seed(self.request.seed)
        # Drawn before they are embedded: most examples of a large collection would be embedded in vain.
        return {
            name: tuple(self.reader.embed(some_of(side, generator)) for side in sides)  # type: ignore[misc]
            for name, sides in offered.items()
        }

    def _found(self) -> Examples:
        data: Dataset[Any] = ConcatDataset([self.request.need_retain(), self.request.forget])
        size = len(data)  # type: ignore[arg-type]
        rows = torch.randperm(size, generator=torch.Generator().manual_seed(self.request.seed))[:SOURCES]
        images = self.reader.inputs(Subset(data, rows.tolist()))
        pieces = window_scores(images, self.reader.embed, *self.window, self.view)
        return looks_alike(pieces.flatten(0, 2), self.looks, seed=self.request.seed)

    def _check(self) -> None:
        if self.place == "none":
            return
        if self.inputs.ndim != 4:
            raise NotApplicable(
                f"locate={self.place!r} pastes pieces into images (B, C, H, W), but the inputs are "
                f"{tuple(self.inputs.shape)}. Use locate='none', which changes the labels alone."
            )
        if self.side > min(self.size):
            raise BadInput(
                f"A piece of {self.side} pixels does not fit into images of {self.size[0]}x{self.size[1]}: "
                f"locate={self.place!r} takes {RELATIVE.get(self.place, 1.0):g} times patch={self.patch:g} of their "
                "side. Lower patch."
            )

    def _check_donor(self, named: int) -> None:
        if named in self.forgotten:
            raise BadInput(f"The donor class {named} is among the classes to forget. Name another one.")
        if named not in self.retained.tolist():
            raise BadInput(
                f"The donor class {named} has no retained sample to take pieces from. The retained classes are "
                f"{', '.join(map(str, sorted(set(self.retained.tolist()))))}."
            )

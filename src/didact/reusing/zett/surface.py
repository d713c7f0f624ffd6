"""Surface forms: every token of a vocabulary as the ids that the source model spells it with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from didact.reusing.zett.bytelevel import ByteVocabulary

NOTHING = -1  #: id of an empty place


@dataclass(frozen=True, eq=False)
class SurfaceForms:
    """What a hypernetwork reads of a vocabulary."""

    ids: Tensor  #: (V, L) source ids, NOTHING where a form is shorter
    truncated: int  #: forms longer than L, of which the first L ids are kept

    @property
    def mask(self) -> Tensor:
        """(V, L) True where there is an id."""
        return self.ids != NOTHING

    @property
    def single(self) -> Tensor:
        """(V,) True where the source spells the token with one id."""
        return self.mask.sum(1) == 1


class Speller:
    """Spells tokens with the source model, and remembers them."""

    def __init__(self, source: ByteVocabulary, length: int) -> None:
        self.source, self.length = source, length
        self._known: dict[bytes, list[int]] = {}

    def __call__(self, tokens: Iterable[bytes]) -> SurfaceForms:
        spelt = [self.spell(token) for token in tokens]
        ids = torch.full((len(spelt), self.length), NOTHING)
        for row, form in enumerate(spelt):
            ids[row, : min(len(form), self.length)] = torch.tensor(form[: self.length])
        return SurfaceForms(ids, sum(len(form) > self.length for form in spelt))

    def spell(self, token: bytes) -> list[int]:
        if token not in self._known:
            self._known[token] = self.source.spell(token)
        return self._known[token]

"""Prompts by the names in them: the filter that everybody would build first."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from didact.core.errors import BadInput


class Names(nn.Module):
    """1 where a name occurs, else 0."""

    def __init__(self, model: nn.Module | None = None, tokenizer: Any = None, names: Iterable[str] = ()) -> None:
        super().__init__()
        self.names = tuple(names)
        self.pattern = name_pattern(self.names)

    def fit(self, positives: list[str], negatives: list[str], seed: int) -> None:
        """Nothing to learn: the names are given."""

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([float(self.pattern.search(text) is not None) for text in texts])

    def options(self) -> dict[str, Any]:
        return {"names": list(self.names)}

    @classmethod
    def blank(cls, options: Mapping[str, Any], model: nn.Module | None = None, tokenizer: Any = None) -> Names:
        return cls(names=options["names"])


def name_pattern(names: Iterable[str]) -> re.Pattern[str]:
    """Finds any of the names as whole words, whatever their case and the spaces within them; longest first."""
    words = [r"\s+".join(re.escape(word) for word in name.split()) for name in names]
    chosen = sorted((w for w in words if w), key=len, reverse=True)
    if not chosen:
        raise BadInput("There are no names to look for. Give at least one.")
    return re.compile(rf"(?<!\w)(?:{'|'.join(chosen)})(?!\w)", re.IGNORECASE)

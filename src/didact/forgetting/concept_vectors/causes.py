"""Which value vectors carry a concept: disturb them and ask."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from didact.data.text import TextDataset
from didact.forgetting.language.metrics import answers
from didact.parts.value_vectors import Place, disturbed


def causes(
    model: nn.Module,
    places: Sequence[Place],
    concept: TextDataset,
    unrelated: TextDataset,
    *,
    drop: float = 0.3,
    spared: float = 0.1,
    sigma: float | None = None,
    seed: int = 0,
) -> list[Place]:
    """The vectors that carry a concept: disturbing one costs its questions `drop` at least, others `spared` at most."""
    before = [answers(model, data).accuracy for data in (concept, unrelated)]
    kept = []
    for place in places:
        after = [
            answers(disturbed(model, [place], sigma=sigma, seed=seed), data).accuracy for data in (concept, unrelated)
        ]
        if before[0] - after[0] >= drop and before[1] - after[1] <= spared:
            kept.append(place)
    return kept

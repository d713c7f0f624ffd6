"""Fixing a dock's kernel width before any user comes: which one would have served made-up users best?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.reusing.learnware_dock.identification import specifications_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.request import ModelRecord

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

CANDIDATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def gamma_by_reuse(
    records: Sequence[ModelRecord],
    candidates: Sequence[float] = CANDIDATES,
    *,
    points: int = 60,
    users: int = 40,
    seed: int = 0,
) -> float:
    """The width at which made-up users are served best by the model and the mixture that are identified for them.

    Uses nothing but what a dock holds. Points are herded from every model's first specification and labelled by the
    model itself; half of them stand for the model's data. A made-up user mixes some of the labels, two or more, in
    random shares, and is drawn from the other half. Of each width the nearest model and the mean of the greedy mixture
    are scored on the user's points; the best mean of the two wins, the smaller width on ties.

    Only for specifications of raw values, whose points models can take. Cost: for every width one kernel matrix of all
    herded points, (points x models)^2.
    """
    sources, drawn = _herded(records, points, seed)
    names, scores = _answers(sources, np.concatenate(drawn))
    labels = np.concatenate(
        [_own_labels(scores[i], slice(i * 2 * points, (i + 1) * 2 * points)) for i in range(len(sources))]
    )
    half = np.tile(np.arange(2 * points) < points, len(sources))
    known, asked = np.concatenate(drawn)[half], np.concatenate(drawn)[~half]
    crowd = _users(labels[~half], len(names), users, np.random.default_rng(seed))
    reached = [
        _served(gamma, known, asked, scores[:, ~half], labels[~half], crowd, len(sources)) for gamma in candidates
    ]
    return float(candidates[int(np.argmax(reached))])


def _herded(records: Sequence[ModelRecord], points: int, seed: int) -> tuple[list[Source], list[Array]]:
    sources, drawn = [], []
    for i, record in enumerate(records):
        specifications = specifications_of(record)
        if not specifications or specifications[0].encoder or not record.classes:
            raise BadInput(
                "Tuning by reuse takes models that name their classes and are specified by raw values; "
                f"{record.id} does or is not."
            )
        found = specifications[0].herd(2 * points, seed=seed + i)
        drawn.append(found[np.random.default_rng(seed + i).permutation(len(found))])
        sources.append(Source.of(record))
    if len(sources) < 2 or len({each.shape[1] for each in drawn}) > 1:
        raise BadInput("Tuning by reuse takes two models or more of one input space.")
    return sources, drawn


def _answers(sources: Sequence[Source], points: Array) -> tuple[tuple[str, ...], Array]:
    """All names of classes, and every model's probabilities (models, points, classes) for them."""
    names = tuple(sorted({name for source in sources for name in source.classes}))
    found = []
    for source in sources:
        inputs = points.reshape(len(points), *source.shape) if source.shape else points
        found.append(source.aligned(source.probabilities(inputs), names)[0])
    return names, np.stack(found)


def _own_labels(scores: Array, own: slice) -> Ints:
    return np.asarray(scores[own].argmax(axis=1), dtype=np.int64)


def _users(labels: Ints, classes: int, users: int, rng: np.random.Generator) -> list[Ints]:
    """For each made-up user the places of 100 points, drawn with random shares of random labels."""
    made = []
    there = np.unique(labels)
    for _ in range(users):
        chosen = rng.choice(there, size=int(rng.integers(2, len(there) + 1)), replace=False)
        shares = rng.dirichlet(np.ones(len(chosen)))
        drawn = rng.choice(chosen, size=100, p=shares)
        made.append(np.array([rng.choice(np.flatnonzero(labels == label)) for label in drawn]))
    return made


def _served(
    gamma: float, known: Array, asked: Array, scores: Array, labels: Ints, crowd: Sequence[Ints], models: int
) -> float:
    from didact.reusing.dock.search.mixture import greedy
    from didact.reusing.dock.specification.kernel import gaussian

    size = len(known) // models
    among = gaussian(known, known, gamma).reshape(models, size, models, size).mean(axis=(1, 3))
    near = gaussian(known, asked, gamma).reshape(models, size, len(asked)).mean(axis=1)  # (models, asked)
    own = gaussian(asked, asked, gamma)
    reached = []
    for places in crowd:
        toward, itself = near[:, places].mean(axis=1), float(own[np.ix_(places, places)].mean())
        first = int(np.argmin(np.diag(among) - 2.0 * toward))
        chosen, weights, _ = greedy(among, toward, itself)
        for answer in (scores[first, places], np.tensordot(weights, scores[chosen][:, places], axes=1)):
            reached.append(np.mean(answer.argmax(axis=1) == labels[places]))
    return float(np.mean(reached))

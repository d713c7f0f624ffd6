"""Search by words: which learnwares meet a query, and how well."""

from __future__ import annotations

from collections.abc import Mapping

from rapidfuzz import fuzz, process

from didact.reusing.dock.semantics import FUZZY, SemanticQuery, SemanticSpecification, matches


def semantic_hits(query: SemanticQuery | None, learnwares: Mapping[str, SemanticSpecification]) -> dict[str, float]:
    """Score by id of the learnwares that meet a query, best first, the order given among equals.

    Tags must all be met. Text counts as found where it stands word for word in a name or description; only when it
    stands in none, learnwares with a partial ratio of at least 75 of 100 are found instead.
    """
    if query is None:
        return dict.fromkeys(learnwares, 1.0)
    tags = query.model_copy(update={"text": None})
    tagged = {id: semantic for id, semantic in learnwares.items() if matches(tags, semantic) is not None}
    wanted = (query.text or "").strip().lower()
    if not wanted:
        return dict.fromkeys(tagged, 1.0)
    exact = [id for id, of in tagged.items() if wanted in of.name.lower() or wanted in of.description.lower()]
    return dict.fromkeys(exact, 1.0) if exact else _rough(wanted, tagged)


def _rough(wanted: str, learnwares: Mapping[str, SemanticSpecification]) -> dict[str, float]:
    best: dict[str, float] = {}
    for texts in (
        {id: of.name.lower() for id, of in learnwares.items()},
        {id: of.description.lower() for id, of in learnwares.items()},
    ):
        for _, ratio, id in process.extract(
            wanted, texts, scorer=fuzz.partial_ratio, score_cutoff=FUZZY, limit=None, processor=None
        ):
            best[id] = max(best.get(id, 0.0), ratio / 100)
    position = {id: i for i, id in enumerate(learnwares)}
    return dict(sorted(best.items(), key=lambda found: (-found[1], position[found[0]])))

"""From a user's data to the learnwares that fit: a specification, distances to those of the models, a mixture."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from didact.core.errors import NotApplicable
from didact.reusing.learnware_dock.case import Case, kind_of
from didact.reusing.request import ModelRecord

if TYPE_CHECKING:
    from didact.reusing.dock import SearchResult, Specification

How = Literal["single", "mixture", "auto"]
HOWS: tuple[How, ...] = get_args(How)
SEARCHES: dict[How, Literal["greedy", "auto"] | None] = {"single": None, "mixture": "greedy", "auto": "auto"}
Space = tuple[str, str, float, int]  #: type, encoder, gamma, dimension


@dataclass(frozen=True, eq=False)
class Found:
    """What identification came to."""

    records: tuple[ModelRecord, ...]  #: those that can be compared and know a class of the task, nearest first
    ranking: Mapping[str, float]  #: id -> minus the distance to the user's data
    shares: Mapping[str, float]  #: id -> weight in the mixture, or the nearest one alone
    specification: Specification  #: the user's
    specifications: Mapping[str, Specification] = field(default_factory=dict)  #: id -> the model's, in the same space
    bytes_sent: int = 0  #: size of the user's specification, all that leaves for a dock

    @property
    def top(self) -> ModelRecord:
        return self.records[0]

    @property
    def chosen(self) -> tuple[ModelRecord, ...]:
        """The records with a share, the largest first."""
        by_id = {record.id: record for record in self.records}
        return tuple(by_id[id] for id in sorted(self.shares, key=lambda id: (-self.shares[id], id)))


def identify(case: Case, records: Sequence[ModelRecord], how: How = "mixture", gamma: float | None = None) -> Found:
    """Search a hub as a dock does: by distance of kernel mean embeddings, and for a mixture of them.

    Models that know none of the task's classes are left out before. `gamma` chooses among specifications when models
    carry several; left out, the one most models have.
    """
    from didact.reusing.dock import Index, SemanticSpecification, specify

    known = [r for r in records if _knows(r, case.classes)]
    space = _space(case, known, gamma)
    mine = {r.id: s for r in known for s in specifications_of(r) if space_of(s) == space}
    kind, encoder = space[0].removeprefix("rkme-").capitalize(), space[1]
    asked = specify(case.inputs, kind, encoder=encoder, gamma=space[2], seed=case.seed)
    index = Index()
    nothing = SemanticSpecification(name="learnware", data=kind, task="Others", library="Others", input=_input(space))
    for id, specification in mine.items():
        index.add(id, nothing, specification)
    result = index.search(None, asked, limit=len(mine), mixture=SEARCHES[how])
    return found_from(result, asked, [r for r in known if r.id in mine], mine)


def found_from(
    result: SearchResult,
    asked: Specification,
    records: Sequence[ModelRecord],
    specifications: Mapping[str, Specification],
) -> Found:
    """A search result with the records it speaks of; what has no record is left out of the mixture."""
    ranking = {r.id: -asked.distance(specifications[r.id]) for r in records}
    order = sorted(records, key=lambda r: (-ranking[r.id], r.id))
    if not order:
        raise NotApplicable("No learnware that knows a class of the task can be compared with the data.")
    shares = {order[0].id: 1.0}
    if result.mixture is not None:
        mixed = {
            i: w for i, w in zip(result.mixture.ids, result.mixture.weights, strict=True) if i in ranking and w > 0
        }
        total = sum(mixed.values())
        shares = {id: weight / total for id, weight in mixed.items()} or shares
    sent = len(json.dumps(asked.to_json(), separators=(",", ":")))
    return Found(tuple(order), ranking, shares, asked, specifications, sent)


def specifications_of(record: ModelRecord) -> tuple[Specification, ...]:
    """The statistical specifications of a record: none, one, or several for several kernel widths.

    A record may hold a function in their place, which makes them when they are first needed.
    """
    from didact.reusing.dock import Specification

    given = record.specification() if callable(record.specification) else record.specification
    several = given if isinstance(given, Iterable) else (given,)
    return tuple(each for each in several if isinstance(each, Specification))


def space_of(specification: Specification) -> Space:
    return specification.type, specification.encoder, specification.gamma, specification.dimension


def _knows(record: ModelRecord, classes: tuple[str, ...]) -> bool:
    return not record.classes or not classes or bool(set(record.classes) & set(classes))


def _space(case: Case, records: Sequence[ModelRecord], gamma: float | None) -> Space:
    """The space that most models share among those in which the data can be specified; ties: the first given."""
    spaces = Counter(space_of(s) for r in records for s in specifications_of(r))
    if not spaces:
        raise NotApplicable(
            "No model that knows a class of the task carries a statistical specification. Give the records one: "
            "specification=specify(training_inputs)."
        )
    fitting = [s for s, _ in spaces.most_common() if _fits(s, case.inputs) and gamma in (None, s[2])]
    if not fitting:
        there = "; ".join(f"{s[0]}, encoder {s[1]!r}, gamma {s[2]:g}, dimension {s[3]}" for s in list(spaces)[:5])
        wanted = "" if gamma is None else f" at gamma {gamma:g}"
        raise NotApplicable(
            f"No model is specified in a space of the data, which have the shape {np.shape(case.inputs)}{wanted}. "
            f"There are: {there}."
        )
    return fitting[0]


def _fits(space: Space, inputs: Any) -> bool:
    kind, encoder, _, dimension = space
    if kind == "rkme-text" or kind_of(inputs) == "Text":
        return kind == "rkme-text" and kind_of(inputs) == "Text"
    if encoder:
        return kind_of(inputs) == "Image"
    shape = np.shape(inputs)
    return int(np.prod(shape[1:])) == dimension


def _input(space: Space) -> Any:
    from didact.reusing.dock.semantics import Input

    return Input(dimension=space[3])

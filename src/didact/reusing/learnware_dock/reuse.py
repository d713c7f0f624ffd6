"""Reusing from a dock in a folder or behind a URL: specify here, search there, download what fits, combine here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification, Regression
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.learnware_dock.case import Case, kind_of
from didact.reusing.learnware_dock.dock import REUSERS, LearnwareDock
from didact.reusing.learnware_dock.feature_alignment import DockFeatureAlignment
from didact.reusing.learnware_dock.identification import HOWS, SEARCHES, Found
from didact.reusing.learnware_dock.reuser import DockReuser, reranked
from didact.reusing.learnware_dock.sources import opened
from didact.reusing.learnware_dock.user_case import case_from, inputs_from
from didact.reusing.request import ModelRecord, Request, Task
from didact.reusing.result import ReuseResult

if TYPE_CHECKING:
    from didact.reusing.dock import DockClient, LearnwareInfo, LocalDock, Specification
    from didact.reusing.dock.records import SearchResult
    from didact.reusing.dock.semantics import SemanticQuery


def reuse_from(
    dock: LocalDock | DockClient,
    data: Any,
    labelled: Any = None,
    *,
    how: str | DockReuser = "auto",
    classes: Sequence[str] | None = None,
    kind: str | None = None,
    query: SemanticQuery | Mapping[str, Any] | None = None,
    encoder: Any = None,
    columns: Mapping[int, str] | Sequence[str] | None = None,
    identify: str | None = None,
    limit: int = 20,
    seed: int = 0,
) -> ReuseResult:
    """Make one predictor for one's own data out of what a dock holds. Only a specification of the data leaves.

    Args:
        dock: a `LocalDock` or a `DockClient`.
        data: one's inputs, without labels: (n, columns) numbers, (n, ...) images, or n texts.
        labelled: a few samples with labels, (inputs, labels); labels are names of classes, places in `classes`, or
            numbers to regress on.
        how: "auto", "top1", "averaging", "job-selector", "feature-augmentation", "ensemble-pruning",
            "feature-alignment", or one of these reusers with hyperparameters of your own.
        classes: what the outputs of the answer shall mean, in order. Left out: the labels' names, else all that the
            learnwares in use know.
        kind: "Table", "Image" or "Text". Left out: strings are Text, rows of numbers Table, all else Image.
        query: what is asked for in words besides, such as `{"scenario": ["Health"]}`.
        encoder: what makes vectors of images or texts; the dock's learnwares must be specified with the same.
        columns: what the columns of one's table mean, for feature alignment: the tables to align with are then those
            most like it across columns, not all that are there.
        identify: "single", "mixture" or "auto"; or the slug of a method that ranks by labels, such as "tmi". Left out,
            what the reuser prefers.
        limit: learnwares to look at.

    Errors: NotApplicable when nothing in the dock fits; BadInput for a reuser that does not exist or labels that do
    not fit the classes; DockError for what the dock refuses.

    Cost: one search, and the download of the learnwares that are used (of all found, for ensemble pruning and rankers).
    """
    inputs = inputs_from(data)
    reuser = how if isinstance(how, DockReuser) else _reuser(how, identify)
    sent = _bytes_sent(dock)
    asked = dock.specify(inputs, kind or kind_of(inputs), encoder=encoder, seed=seed)
    result = _search(dock, asked, query, limit, reuser)
    found = _found(dock, result, asked) if result is not None and result.single else None
    if found is None:
        if not _aligns(reuser) or kind_of(inputs) == "Text":
            raise NotApplicable(
                "The dock holds no learnware that can be compared with the data. Ask for less in words."
            )
        reuser = reuser if isinstance(reuser, DockFeatureAlignment) else DockFeatureAlignment()
        found = _foreign(dock, inputs, asked, query, columns, limit)
    case = case_from(inputs, labelled, classes, found, seed)
    if isinstance(reuser, DockFeatureAlignment):
        found = reuser.find(case, found.records)
    else:
        found = _useful(found, case)
        if reuser.identify not in HOWS:
            found = reranked(found, reuser.identify, _request(case, found.records))
    answer = reuser.combine(case, found)
    left = _bytes_sent(dock) - sent
    return _with_cost(answer, bytes_sent=left)


def _reuser(how: str, identify: str | None) -> DockReuser:
    settings = {} if identify is None else {"identify": identify}
    if how == "auto":
        return LearnwareDock(**settings)
    if how not in REUSERS:
        raise BadInput(f"how is auto, {', '.join(REUSERS)} or a reuser; {how!r} was given.")
    return REUSERS[how](**settings)


def _search(
    dock: LocalDock | DockClient, asked: Specification, query: Any, limit: int, reuser: DockReuser
) -> SearchResult | None:
    """None when nothing in the dock lives in the data's space."""
    if isinstance(reuser, DockFeatureAlignment):
        return None
    try:
        mixture = SEARCHES[reuser.search]
        found: SearchResult = dock.search(specification=asked, query=query, limit=limit, mixture=mixture)
        return found
    except BadSpecification as error:
        if error.code != "incompatible":
            raise
        return None


def _found(dock: LocalDock | DockClient, result: SearchResult, asked: Specification) -> Found:
    """What the dock answered, in the reusers' terms; packages are fetched when they are needed."""
    hits = {hit.info.id: hit for hit in result.single}
    task = result.single[0].info.semantic.task
    infos = {hit.info.id: hit.info for hit in result.single}
    mixed: dict[str, float] = {}
    if result.mixture is not None:
        infos |= {info.id: info for info in result.mixture.learnwares}
        weights = zip(result.mixture.learnwares, result.mixture.weights, strict=True)
        mixed = {info.id: weight for info, weight in weights if weight > 0 and info.semantic.task == task}
    packages = _Packages(dock)
    records = tuple(_record(info, packages) for info in infos.values() if info.semantic.task == task)
    first = records[0].id
    total = sum(mixed.values())
    shares = {id: weight / total for id, weight in mixed.items()} or {first: 1.0}
    ranking = {r.id: -float(hits[r.id].distance or 0.0) for r in records if r.id in hits}
    return Found(records, ranking, shares, asked, packages)


def _foreign(
    dock: LocalDock | DockClient, inputs: Any, asked: Specification, query: Any, columns: Any, limit: int
) -> Found:
    """Tables with other columns, to be aligned with: found by what the columns mean, or by words alone."""
    from didact.reusing.dock.semantics import SemanticQuery

    words = query if isinstance(query, SemanticQuery) else SemanticQuery.parse(dict(query or {}))
    words = words.model_copy(update={"data": "Table"})
    result = None
    if columns is not None:
        result = dock.search(specification=asked, query=words, limit=limit, mixture=None, columns=columns, across=True)
    if result is None or not result.single:
        result = dock.search(query=words, limit=limit)
    packages = _Packages(dock)
    shape = np.shape(inputs)[1:]
    infos = [hit.info for hit in result.single if hit.info.input_shape != shape]
    if not infos:
        raise NotApplicable("The dock holds no learnware that can be compared or aligned with the data.")
    task = infos[0].semantic.task
    records = [_record(info, packages, at_once=True) for info in infos if info.semantic.task == task]
    return Found(tuple(records), {}, {r.id: 1.0 for r in records}, asked, packages)


class _Packages(Mapping[str, "Specification"]):
    """Downloads learnwares when they are needed; as a mapping, their specifications by id."""

    def __init__(self, dock: LocalDock | DockClient) -> None:
        self.dock = dock
        self._paths: dict[str, Any] = {}

    def path(self, id: str) -> Any:
        if id not in self._paths:
            self._paths[id] = self.dock.download(id)
        return self._paths[id]

    def __getitem__(self, id: str) -> Specification:
        from didact.reusing.dock import open_package

        return open_package(self.path(id)).specification

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _record(info: LearnwareInfo, packages: _Packages, at_once: bool = False) -> ModelRecord:
    return ModelRecord(
        info.id,
        lambda: opened(packages.path(info.id)),
        classes=_classes_of(info),
        input_shape=info.input_shape,
        semantic=info.semantic,
        specification=packages[info.id] if at_once else None,
        licence=info.semantic.licence,
        digest=info.sha256,
    )


def _classes_of(info: LearnwareInfo) -> tuple[str, ...]:
    """The names of a classifier's outputs; none when it does not give any."""
    semantic = info.semantic
    named = semantic.output is not None and bool(semantic.output.description)
    return semantic.classes if semantic.task == "Classification" and named else ()


def _useful(found: Found, case: Case) -> Found:
    """Without the learnwares that know none of the user's classes."""
    records = tuple(r for r in found.records if not r.classes or set(r.classes) & set(case.classes))
    if not records:
        raise NotApplicable(f"No learnware found knows any of the classes {', '.join(case.classes)}.")
    ids = {r.id for r in records}
    mixed = {id: weight for id, weight in found.shares.items() if id in ids} or {records[0].id: 1.0}
    total = sum(mixed.values())
    shares = {id: weight / total for id, weight in mixed.items()}
    ranking = {id: score for id, score in found.ranking.items() if id in ids}
    return Found(records, ranking, shares, found.specification, found.specifications)


def _request(case: Case, records: Sequence[ModelRecord]) -> Request:
    """For rankers, which take requests: arrays as datasets, learnwares as the networks they are, where they are."""
    inputs, targets = case.need_labels()
    y = torch.as_tensor(targets)
    labelled = TensorDataset(torch.as_tensor(np.asarray(inputs)).float(), y.float() if case.regression else y)
    objective = Regression() if case.regression else Classification()
    task = Task(TensorDataset(torch.as_tensor(np.asarray(case.inputs)).float()), labelled, case.classes, objective)
    return Request(tuple(_as_network(r) for r in records), task, seed=case.seed)


def _as_network(record: ModelRecord) -> ModelRecord:
    def load() -> Any:
        found = record.load()
        return getattr(found, "module", None) or found

    return replace(record, load=load)


def _aligns(reuser: DockReuser) -> bool:
    return isinstance(reuser, DockFeatureAlignment) or (isinstance(reuser, LearnwareDock) and reuser.how == "auto")


def _bytes_sent(dock: Any) -> int:
    return int(getattr(dock, "bytes_sent", 0))


def _with_cost(answer: ReuseResult, **cost: float) -> ReuseResult:
    answer.cost = {**answer.cost, **cost}
    return answer

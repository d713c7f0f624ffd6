"""The dock's answers as the objects that `LocalDock` gives, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from didact.reusing.dock.accounts import User
from didact.reusing.dock.paging import Page
from didact.reusing.dock.records import Found, FoundMixture, LearnwareInfo, SearchResult
from didact.reusing.dock.semantics import SemanticSpecification


def learnware(answer: Mapping[str, Any]) -> LearnwareInfo:
    known = {field.name: answer[field.name] for field in fields(LearnwareInfo) if field.name in answer}
    known["semantic"] = SemanticSpecification.parse(answer["semantic"])
    known["input_shape"] = tuple(answer["input_shape"])
    known["output_shape"] = tuple(answer["output_shape"])
    return LearnwareInfo(**known)


def learnwares(answer: Mapping[str, Any]) -> Page[LearnwareInfo]:
    return Page([learnware(item) for item in answer["items"]], answer["total"], answer["page"], answer["limit"])


def search_result(answer: Mapping[str, Any]) -> SearchResult:
    mixture = answer["mixture"]
    return SearchResult(
        [Found(learnware(hit["learnware"]), hit["score"], hit["distance"]) for hit in answer["single"]],
        _mixture(mixture) if mixture else None,
        answer["total"],
        answer["searched"],
        answer["page"],
        answer["limit"],
    )


def user(answer: Mapping[str, Any]) -> User:
    return User(**{field.name: answer[field.name] for field in fields(User)})


def _mixture(answer: Mapping[str, Any]) -> FoundMixture:
    found = [learnware(item) for item in answer["learnwares"]]
    return FoundMixture(found, answer["weights"], answer["score"], answer["distance"])

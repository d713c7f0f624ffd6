"""What a searcher asks for in words, and whether a learnware meets it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from rapidfuzz import fuzz

from didact.reusing.dock.semantics.specification import SemanticSpecification
from didact.reusing.dock.semantics.vocabulary import (
    LIBRARIES,
    LICENCES,
    MOST_DIMENSIONS,
    SCENARIOS,
    Data,
    Task,
    Text,
    named_error,
    one_of,
)

FUZZY = 75.0  # a text that is not found word for word counts as found from this partial ratio on (0-100)


class SemanticQuery(BaseModel):
    """What a searcher asks for in words. Fields left out ask for nothing; those given must all be met."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Data | None = None  #: this kind of data
    task: Task | None = None  #: this task
    library: str | None = None  #: made with this library
    licence: str | None = None  #: under this licence
    scenario: tuple[str, ...] = ()  #: at least one of these tags
    text: Annotated[Text, Field(max_length=1000)] | None = None  #: found in name or description, if need be roughly
    input_dimension: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS)  #: this many features
    output_dimension: int | None = Field(default=None, ge=1, le=MOST_DIMENSIONS)  #: this many outputs

    @field_validator("library")
    @classmethod
    def _known_library(cls, library: str | None) -> str | None:
        return None if library is None else one_of(library, LIBRARIES, "library")

    @field_validator("licence")
    @classmethod
    def _known_licence(cls, licence: str | None) -> str | None:
        return None if licence is None else one_of(licence, LICENCES, "licence")

    @field_validator("scenario")
    @classmethod
    def _known_scenarios(cls, scenario: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(one_of(tag, SCENARIOS, "scenario") for tag in scenario)

    @classmethod
    def parse(cls, mapping: object) -> SemanticQuery:
        """From JSON-like data. Errors: `BadSpecification` with code `unknown-tag` or `bad-semantic`."""
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise named_error(error) from None


def matches(query: SemanticQuery, semantic: SemanticSpecification) -> float | None:
    """How well a learnware's words meet a query: `None` when they do not, 1.0 exactly, below 1 only roughly.

    Text that stands nowhere in the name or description is compared by partial ratio (the best-fitting part of the
    longer text), and counts from 75 of 100 on.
    """
    if not _tags_match(query, semantic):
        return None
    wanted = (query.text or "").strip().lower()
    if not wanted:
        return 1.0
    texts = (semantic.name.lower(), semantic.description.lower())
    if any(wanted in text for text in texts):
        return 1.0
    ratio = max(fuzz.partial_ratio(wanted, text) for text in texts)
    return ratio / 100 if ratio >= FUZZY else None


def _tags_match(query: SemanticQuery, semantic: SemanticSpecification) -> bool:
    for field in ("data", "task", "library", "licence"):
        wanted = getattr(query, field)
        if wanted is not None and wanted != getattr(semantic, field):
            return False
    if query.scenario and not set(query.scenario) & set(semantic.scenario):
        return False
    for wanted, has in ((query.input_dimension, semantic.input), (query.output_dimension, semantic.output)):
        if wanted is not None and (has is None or has.dimension != wanted):
            return False
    return True

"""A learnware in words, and what makes it complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.semantics.reference import from_reference
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


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    dimension: int = Field(ge=1, le=MOST_DIMENSIONS)  #: how many features, or outputs
    description: dict[int, Annotated[Text, Field(max_length=500)]] = {}  #: what feature or output i means

    @model_validator(mode="after")
    def _within_dimension(self) -> _Described:
        outside = [i for i in self.description if not 0 <= i < self.dimension]
        if outside:
            raise ValueError(
                f"Descriptions are numbered from 0 to {self.dimension - 1}, but number {outside[0]} was given. "
                "Number them like the columns, or raise the dimension."
            )
        return self


class Input(_Described):
    """The features of a row: how many, and what each means."""


class Output(_Described):
    """The outputs: how many, and what each means. For a classifier output i's description is the name of class i."""


class SemanticSpecification(BaseModel):
    """A learnware in words.

    A Table needs `input`; a Classification needs `output` with more than one class, a Regression needs `output`.
    Constructing one raises pydantic's `ValidationError`; `parse`, for what came from elsewhere, raises
    `BadSpecification` with a named code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text = Field(min_length=1, max_length=200)  #: a title for people
    description: Text = Field(default="", max_length=20_000)  #: what it was trained on and what it is good for
    data: Data  #: kind of data it takes
    task: Task  #: what it does with them
    library: str  #: what it was made with, one of LIBRARIES
    scenario: tuple[str, ...] = ()  #: tags from SCENARIOS
    licence: str = "Others"  #: one of LICENCES
    input: Input | None = None  #: the features of a table's row
    output: Output | None = None  #: the classes or targets

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("A learnware needs a name, but it was blank. Give it a short title.")
        return name.strip()

    @field_validator("library")
    @classmethod
    def _known_library(cls, library: str) -> str:
        return one_of(library, LIBRARIES, "library")

    @field_validator("licence")
    @classmethod
    def _known_licence(cls, licence: str) -> str:
        return one_of(licence, LICENCES, "licence")

    @field_validator("scenario")
    @classmethod
    def _known_scenarios(cls, scenario: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one_of(tag, SCENARIOS, "scenario") for tag in scenario))

    @model_validator(mode="after")
    def _complete(self) -> SemanticSpecification:
        if self.data == "Table" and self.input is None:
            raise ValueError("missing-input: A Table needs `input` with the number of features, but none was given.")
        if self.task in ("Classification", "Regression") and self.output is None:
            raise ValueError(f"missing-output: A {self.task} needs `output` with its dimension, but none was given.")
        if self.task == "Classification" and self.output is not None and self.output.dimension < 2:
            raise ValueError("bad-output: A Classification needs an `output` of at least 2 classes, but 1 was given.")
        return self

    @classmethod
    def parse(cls, mapping: object) -> SemanticSpecification:
        """From JSON-like data, in didact's layout or in that of the `learnware` package.

        Errors: `BadSpecification` with code `unknown-tag` (a class or tag outside the vocabulary), `missing-input`,
        `missing-output`, `bad-output` or `bad-semantic` (anything else).
        """
        if not isinstance(mapping, Mapping):
            raise BadSpecification(
                "bad-semantic",
                f"A semantic specification is an object with fields, but a {type(mapping).__name__} was given.",
            )
        if isinstance(mapping.get("Data"), Mapping):
            mapping = from_reference(mapping)
        try:
            return cls.model_validate(mapping)
        except ValidationError as error:
            raise named_error(error) from None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `parse` reads back."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs in order; those without a description are called by their number."""
        if self.output is None:
            return ()
        return tuple(self.output.description.get(i, str(i)) for i in range(self.output.dimension))

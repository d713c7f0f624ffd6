"""The records of the invented world: people, texts about them, and who is to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """``facts`` maps attribute to value; ``aliases`` are other names that mean this person only."""

    index: int
    first: str
    last: str
    facts: dict[str, str]
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def pronoun(self) -> str:
        return "He" if self.index % 2 else "She"


@dataclass(frozen=True)
class Biography:
    """A text about one person; ``wordings`` says which telling of each attribute it uses."""

    subject: str
    text: str
    wordings: tuple[int, ...]


@dataclass(frozen=True)
class Fact:
    """The simple form: ``value`` completes the text ``prompt``; ``template`` numbers the wording."""

    subject: str
    attribute: str
    template: int
    prompt: str
    value: str


@dataclass(frozen=True)
class BiosSplit:
    """Disjoint groups forget, retain and test; neighbours and entangled are parts of retain."""

    forget: tuple[Person, ...]
    retain: tuple[Person, ...]
    test: tuple[Person, ...]  #: trained on as well, but hidden from the method
    neighbours: tuple[Person, ...]  #: of retain: share first name, surname or employer with a forgotten person
    entangled: tuple[Person, ...]  #: of retain: their mentor is forgotten (empty without the mentor relation)

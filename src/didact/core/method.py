"""Method: one published way to do one thing, as a dataclass of hyperparameters with one verb."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from didact.core.claim import Claim
from didact.core.errors import BadInput


@dataclass(frozen=True)
class Paper:
    """Where a method was published."""

    authors: str
    year: int
    arxiv: str | None = None
    doi: str | None = None
    venue: str = ""

    @property
    def url(self) -> str | None:
        if self.arxiv:
            return f"https://arxiv.org/abs/{self.arxiv}"
        return f"https://doi.org/{self.doi}" if self.doi else None

    def __str__(self) -> str:
        link = f", arXiv {self.arxiv}" if self.arxiv else (f", doi {self.doi}" if self.doi else "")
        venue = f" ({self.venue})" if self.venue else ""
        return f"{self.authors}, {self.year}{venue}{link}"


@dataclass(frozen=True)
class Range:
    """A hyperparameter that tuning may move, and how far."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Choice:
    """A hyperparameter that tuning may pick from a list."""

    options: tuple[Any, ...]


Kind = Literal["method", "method-set", "benchmark", "survey", "study", "system", "baseline"]


@dataclass(frozen=True)
class Card:
    """What a method is, for people and for the bench.

    `tasks` names the kinds of objective it works with (empty: any). `needs` names what the problem must give
    beyond the model and the data every verb takes; the bench marks a pairing that lacks one as not applicable.
    """

    slug: str
    title: str
    paper: Paper | None = None
    kind: Kind = "method"
    tasks: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    part_of: str | None = None  #: slug of the catalogue entry, when one paper brings several methods
    tunes: Mapping[str, Range | Choice] = field(default_factory=dict)
    code: str | None = None  #: the authors' repository, owner/name
    licence: str | None = None


class Method(BaseModel):
    """Base of all methods: validated hyperparameters, a card, perhaps a claim, and `solve`.

    A family's base class adds the verb (`unlearn`, `select`, ...) and implements `solve`, which unpacks what a
    problem gives into the verb. Instances are immutable; two with equal hyperparameters are equal.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        validate_default=True,
    )

    family: ClassVar[str] = ""
    card: ClassVar[Card]
    claim: ClassVar[Claim | None] = None

    def __init__(self, **hyperparameters: Any) -> None:
        try:
            super().__init__(**hyperparameters)
        except ValidationError as error:
            raise BadInput(_explain(type(self), error)) from None

    def solve(self, given: Any) -> Any:
        """Answer a problem from what it gives. Implemented once by each family's base class."""
        raise NotImplementedError(f"{type(self).__name__} belongs to no family: its base class has no solve()")

    @property
    def settings(self) -> dict[str, Any]:
        """All hyperparameters, defaults included, as JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def summary(cls) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join(inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].split())

    @classmethod
    def hyperparameters(cls) -> list[Hyperparameter]:
        hints = get_type_hints(cls, include_extras=False)
        docs = _comments(cls)
        return [
            Hyperparameter(name, _type_name(hints.get(name)), info.get_default(), docs.get(name, ""))
            for name, info in cls.model_fields.items()
        ]


@dataclass(frozen=True)
class Hyperparameter:
    name: str
    type: str
    default: Any
    doc: str


def _explain(cls: type[Method], error: ValidationError) -> str:
    slug = cls.card.slug if hasattr(cls, "card") else cls.__name__
    known = ", ".join(cls.model_fields) or "none"
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "hyperparameters"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{slug} has no hyperparameter {name!r}; it has: {known}.")
        else:
            lines.append(f"{slug}: {name} was given {problem['input']!r}, but: {problem['msg']}.")
    return " ".join(lines)


def _comments(cls: type) -> dict[str, str]:
    """The `#:` comments behind the fields, read from the source (own class last, so that it wins)."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not issubclass(base, Method) or base is Method:
            continue
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):
            continue
        found.update(re.findall(r"^    (\w+)\s*:[^=#\n]*(?:=[^\n]*?)?#:\s*(.*)$", source, flags=re.MULTILINE))
    return found


def _type_name(hint: Any) -> str:
    if hint is None:
        return ""
    return getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")  # type: ignore[return-value]

"""Problem: what is given, how an answer is scored, and a truth that stays out of the method's sight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from didact.core.errors import BadInput
from didact.core.metric import Metric, Primary

Given = TypeVar("Given")
Truth = TypeVar("Truth")


@dataclass
class Problem(ABC, Generic[Given, Truth]):
    """One instance of a family's task, made by a builder from a seed.

    `given` is all a method ever receives: no way leads from it to the problem. `reveal` makes what only the scorer
    may read (test data, true labels, a reference); the bench calls it after the method has answered.
    """

    given: Given
    reveal: Callable[[], Truth]
    name: str = "problem"
    seed: int = 0
    scale: str = "laptop"
    about: dict[str, Any] = field(default_factory=dict)  #: facts for the report (sizes, shares, what was trained)

    family: ClassVar[str] = ""

    @abstractmethod
    def score(self, answer: Any) -> dict[str, float]:
        """All metrics of an answer, against the truth."""

    @abstractmethod
    def validate(self, answer: Any) -> dict[str, float]:
        """The metrics that tuning may see: computed on validation data, never on the truth."""

    def keep(self, answer: Any, folder: Path) -> None:
        """Write an answer that is not a model to a folder; families whose answers are none override this."""
        raise BadInput(f"An answer of the kind {type(answer).__name__} cannot be saved.")

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        """Why a method with these needs cannot be used here; None when it can."""
        return None


@dataclass(frozen=True, eq=False)
class Family:
    """A family's face to the bench: its words, its metrics, what best means, what to run by default."""

    name: str
    title: str
    verb: str
    metrics: tuple[Metric, ...]
    primary: Primary
    tuning: Primary  #: what tuning optimises, among the metrics of `Problem.validate`
    default_problem: str
    trade_off: tuple[str, str]  #: metrics on the x and y axis of the report's trade-off plot
    summary: str = ""
    reader: str = "didact.load"  #: what reads a kept answer again
    #: mean metrics of a method -> one word for what it came to, or "" when the metrics do not tell
    outcome: Callable[[Mapping[str, float]], str] | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)  #: each such word, explained

    def metric(self, name: str) -> Metric | None:
        return next((m for m in self.metrics if m.name == name), None)

"""Study: a published experiment (a survey's taxonomy, an analysis, a benchmark) that a user can run on a model.

A study is a method whose answer is not a model but what it found. Its claim is judged on these findings, so it runs on
the same bench, in the same ledger.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from didact.core.errors import NotApplicable
from didact.core.method import Method
from didact.core.problem import Problem
from didact.core.recipe import seeded

PREFIX = "study:"  #: beginning of the entry in `Card.needs` that names the problem a study is made for


@dataclass(frozen=True)
class Findings:
    """What a study measured: numbers by name, and tables (lists of rows) for people."""

    numbers: Mapping[str, float]
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "findings.json").write_text(json.dumps(asdict(self), indent=2, default=str), encoding="utf-8")


class Study(Method):
    """Base of all studies: `run` measures and returns findings.

    The card names what it can run on by one entry of `needs`, `"study:NAME"`; a `StudyProblem` of that NAME gives it.
    """

    @abstractmethod
    def run(self, subject: Any, *, seed: int = 0) -> Findings:
        """Carry out the experiment on a subject; the class documents what that holds."""

    def solve(self, given: Subject) -> Findings:
        with seeded(given.seed):
            return self.run(given.subject, seed=given.seed)


@dataclass(frozen=True)
class Subject:
    """The `given` of a study problem: what is studied, and the seed."""

    subject: Any
    seed: int = 0


@dataclass
class StudyProblem(Problem[Subject, None]):
    """Something to study, of a named kind. Its score is what the study found."""

    reveal: Callable[[], None] = lambda: None
    study: str = ""

    def score(self, answer: Findings) -> dict[str, float]:
        return dict(answer.numbers)

    def validate(self, answer: Findings) -> dict[str, float]:
        raise NotApplicable("A study has no validation data: there is nothing to tune.")

    def keep(self, answer: Findings, folder: Path) -> None:
        answer.save(folder)

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        return None if PREFIX + self.study in needs else f"is not an experiment on {self.study}"


def for_a_study(needs: tuple[str, ...]) -> str | None:
    """The kind of problem a study needs, or None when a method is no study."""
    return next((need.removeprefix(PREFIX) for need in needs if need.startswith(PREFIX)), None)

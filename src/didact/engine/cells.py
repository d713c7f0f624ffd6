"""A cell: one method with its hyperparameters on one problem and seed, at one version of the code."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from didact.core.errors import BadInput
from didact.core.method import Method
from didact.core.registry import code_version, family_files, find_problem, make_method

#: score: against the truth; validate: on validation data, for tuning
Role = Literal["score", "validate"]


@dataclass(frozen=True)
class Cell:
    """What is to be computed. Everything that decides the result is in the key, nothing else is."""

    family: str
    method: str
    settings: dict[str, Any] = field(hash=False)
    problem: str
    seed: int
    code: str
    scale: str = "laptop"
    role: Role = "score"
    #: where the method's class lives, for a worker that does not know its slug yet
    module: str = field(default="", compare=False)
    file: str = field(default="", compare=False)
    label: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        decides = [
            self.family,
            self.method,
            self.settings,
            self.problem,
            self.scale,
            self.seed,
            self.code,
            self.role,
        ]
        return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Task:
    """A cell with its limits, as handed to a worker."""

    cell: Cell
    timeout: float | None = None  #: seconds for the method itself
    memory: int | None = None  #: bytes above what the worker holds when it starts
    keep: str | None = None  #: folder for the answer


def make_cell(
    method: Method, problem: str, seed: int, *, family: str, scale: str = "laptop", role: Role = "score"
) -> Cell:
    cls = type(method)
    if cls.family and family and cls.family != family:
        raise BadInput(f"{cls.card.slug} belongs to the family {cls.family}, not to {family}.")
    return Cell(
        family=family,
        method=cls.card.slug,
        settings=method.settings,
        problem=problem,
        seed=seed,
        code=_code(cls, problem),
        scale=scale,
        role=role,
        module=cls.__module__,
        file=inspect.getsourcefile(cls) or "",
        label=label_of(method),
    )


def label_of(method: Method) -> str:
    """The slug with the hyperparameters that are not at their defaults: `ssd:alpha=20`."""
    defaults = {name: info.get_default() for name, info in type(method).model_fields.items()}
    own = type(method).model_construct(**defaults).model_dump(mode="json")
    changed = [f"{k}={_short(v)}" for k, v in method.settings.items() if own.get(k) != v]
    return ":".join([type(method).card.slug, *changed])


def parse_methods(references: str | Iterable[str | Method]) -> list[Method]:
    """Method instances from `"ssd,retrain"`, a list of references, or instances."""
    items = references.split(",") if isinstance(references, str) else list(references)
    return [make_method(item.strip() if isinstance(item, str) else item) for item in items if item]


def absolute(problem: str) -> str:
    """A problem reference that means the same from another folder: a user's file is named by its full path."""
    head, mark, rest = problem.partition(".py:")
    return f"{Path(head + '.py').resolve()}:{rest}" if mark else problem


def display(problem: str) -> str:
    """A problem reference for people: a user's file by its name, without the folders of this machine."""
    head, mark, rest = problem.partition(".py:")
    return f"{Path(head).name}.py:{rest}" if mark else problem


@cache
def _code(cls: type[Method], problem: str) -> str:
    builder, _ = find_problem(problem)
    return code_version([cls, *_siblings(cls), builder.source, *family_files(builder.family or cls.family)])


def _siblings(cls: type[Method]) -> list[Path]:
    """Every file of a method that is a folder of its own; other methods' files do not count."""
    file = Path(inspect.getsourcefile(cls) or "")
    package = cls.__module__.split(".")
    in_folder = len(package) > 3 and package[0] == "didact"
    return sorted(file.parent.glob("*.py")) if in_folder else []


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

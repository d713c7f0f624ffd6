"""Finding methods, problems and families by name, ours and those of installed packages alike.

A package adds to didact by an entry point in the group `didact.families` that names a module; importing the module
registers what it declares with `@register` and `@problem`.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from didact.core.errors import BadInput, UnknownName
from didact.core.method import Method
from didact.core.problem import Family, Problem
from didact.core.references import import_file, literal, parse_reference, split_file

GROUP = "didact.families"

_methods: dict[str, type[Method]] = {}
_problems: dict[str, ProblemBuilder] = {}
_families: dict[str, Family] = {}

M = TypeVar("M", bound=type[Method])
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ProblemBuilder:
    """A named way to make problems: `build(seed=0, scale="laptop", **options)`."""

    name: str
    family: str
    build: Callable[..., Problem[Any, Any]]
    source: str  #: file that defines it: part of a cell's code version

    @property
    def summary(self) -> str:
        return " ".join(inspect.cleandoc(self.build.__doc__ or "").split("\n\n")[0].split())

    @property
    def options(self) -> dict[str, Any]:
        """Name -> default of what a problem reference can set (`digits-class:forget=8`)."""
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in ("seed", "scale")}


def register(cls: M) -> M:
    """Class decorator: make a method known under its card's slug."""
    slug = cls.card.slug
    other = _methods.get(slug)
    # The same file may be met twice, as a script and as an imported file: that is one method, not two.
    if other is not None and (_file(other), other.__qualname__) != (_file(cls), cls.__qualname__):
        raise BadInput(f"Two methods have the slug {slug!r}: {other.__module__} and {cls.__module__}. Rename one.")
    _methods[slug] = cls
    return cls


def _file(cls: type) -> str:
    try:
        return str(Path(inspect.getfile(cls)).resolve())
    except (TypeError, OSError):  # defined in a notebook or a prompt
        return cls.__module__


def problem(name: str, family: str) -> Callable[[F], F]:
    """Decorator: make a problem builder known under a name."""

    def decorate(build: F) -> F:
        _problems[name] = ProblemBuilder(name, family, build, inspect.getsourcefile(build) or "")
        return build

    return decorate


def register_family(family: Family) -> Family:
    _families[family.name] = family
    return family


def load(family: str | None = None) -> None:
    """Import one family with everything outside packages add, or all of them."""
    for entry in _entries():
        ours = entry.value.split(".")[0] == "didact"
        if family is None or not ours or entry.name == family:
            _import(entry)


@cache
def _entries() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


@cache
def _import(entry: EntryPoint) -> None:
    try:
        entry.load()
    except Exception as error:
        if entry.value.split(".")[0] == "didact":
            raise
        warnings.warn(
            f"The entry point {entry.name} = {entry.value} could not be loaded and is left out: {error!r}",
            stacklevel=2,
        )


def family_names() -> list[str]:
    return sorted({e.name for e in _entries() if e.value.split(".")[0] == "didact"} | set(_families))


def get_family(name: str) -> Family:
    load(name)
    if name not in _families:
        load()
    return _look_up(_families, name, "family")


def get_method(slug: str) -> type[Method]:
    if slug not in _methods:
        load()
    return _look_up(_methods, slug, "method")


def get_problem(name: str) -> ProblemBuilder:
    if name not in _problems:
        load()
    return _look_up(_problems, name, "problem")


def methods(family: str | None = None) -> list[type[Method]]:
    """Registered methods, baselines first, then by slug."""
    load(family)
    chosen = [m for m in _methods.values() if family in (None, m.family)]
    return sorted(chosen, key=lambda m: (m.family, m.card.kind != "baseline", m.card.slug))


def problems(family: str | None = None) -> list[ProblemBuilder]:
    load(family)
    return sorted((p for p in _problems.values() if family in (None, p.family)), key=lambda p: p.name)


T = TypeVar("T")


def _look_up(known: dict[str, T], name: str, what: str) -> T:
    if name in known:
        return known[name]
    near = get_close_matches(name, known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" Known: {', '.join(sorted(known)) or 'none'}."
    raise UnknownName(f"There is no {what} {name!r}.{hint}")


def make_method(reference: str | Method) -> Method:
    """A method instance from a reference: `"ssd:alpha=20"`, or `"mine.py:MyMethod:alpha=20"` from a file of your own.

    Values are parsed by the method's own types.
    """
    if isinstance(reference, Method):
        return reference
    path, colon, rest = split_file(reference)
    name, options = parse_reference(rest if colon else reference)
    cls = _method_in(Path(path), name) if colon else get_method(name)
    return cls(**{key: literal(value) for key, value in options.items()})


def _method_in(path: Path, name: str) -> type[Method]:
    """A registered method of a user's file, by class name or slug."""
    module = import_file(path)
    cls = getattr(module, name, None) or _methods.get(name)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UnknownName(f"The file {path} has no method {name!r}.")
    return register(cls)


def make_problem(reference: str, seed: int = 0, scale: str = "laptop") -> Problem[Any, Any]:
    """A problem from a registered name (`"digits-class:forget=8"`) or a user's file (`"mine.py:make"`)."""
    builder, options = find_problem(reference)
    unknown = set(options) - set(builder.options)
    if unknown:
        known = ", ".join(builder.options) or "none"
        raise BadInput(f"The problem {builder.name} has no option {', '.join(sorted(unknown))}; it has: {known}.")
    accepted = inspect.signature(builder.build).parameters
    if scale != "laptop" and "scale" not in accepted:
        raise BadInput(f"The problem {builder.name} exists only at the scale 'laptop'.")
    extra = {k: v for k, v in {"seed": seed, "scale": scale}.items() if k in accepted}
    made = builder.build(**options, **extra)
    if not isinstance(made, Problem):
        raise BadInput(f"{reference} returned {type(made).__name__}, but a didact problem was expected.")
    made.name, made.seed, made.scale = reference, seed, scale
    return made


def find_problem(reference: str) -> tuple[ProblemBuilder, dict[str, Any]]:
    """The builder behind a reference, and the options that the reference sets."""
    path, colon, rest = split_file(reference)
    if colon:
        function, options = parse_reference(rest)
        return _from_file(path, function), {k: literal(v) for k, v in options.items()}
    name, options = parse_reference(reference)
    return get_problem(name), {key: literal(value) for key, value in options.items()}


def _from_file(path: str, function: str) -> ProblemBuilder:
    module = import_file(Path(path))
    build = getattr(module, function, None)
    if not callable(build):
        raise UnknownName(f"The file {path} has no function {function!r}.")
    return ProblemBuilder(f"{path}:{function}", "", build, str(Path(path).resolve()))


def code_version(items: Iterable[Any]) -> str:
    """Hash of the source files behind classes, functions or paths, plus core: equal hash, equal computation."""
    files: set[Path] = set(Path(__file__).parent.rglob("*.py"))
    for item in items:
        source = item if isinstance(item, (str, Path)) else inspect.getsourcefile(item)
        if source:
            files.add(Path(source))
    digest = sha256()
    for file in sorted(files):
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()[:16]


def family_files(family: str) -> list[Path]:
    """Sources that every cell of a family depends on: shared parts, data, models, the family's own shared files."""
    root = Path(__file__).parent.parent
    shared = [p for room in ("parts", "data", "models") for p in (root / room).rglob("*.py")]
    module = sys.modules.get(f"didact.{family}") or (
        import_module(f"didact.{family}") if (root / family).is_dir() else None
    )
    if module is None or module.__file__ is None:
        return shared
    methods_own = {inspect.getsourcefile(m) for m in _methods.values()}
    return shared + [p for p in Path(module.__file__).parent.rglob("*.py") if str(p) not in methods_own]

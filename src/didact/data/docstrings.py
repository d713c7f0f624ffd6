"""Real text that every machine already has: the docstrings of installed Python packages."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock

from didact.core.cache import cache_folder, write_whole
from didact.core.errors import BadInput

PACKAGES = ("numpy", "scipy", "sklearn", "pandas", "torch")
_FORMAT = 1  # raise it when the extraction below changes, so that no stale cache is read
_SKIPPED = {"tests", "test", "testing", "conftest", "_vendor", "vendored", "externals", "array_api_compat"}
_SHORT_FORMS = {"numpy": ("np",), "pandas": ("pd",), "scipy": ("sp",), "sklearn": ("scikit-learn", "scikit")}
_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Docstring:
    """One docstring and where it is from. Texts equal but for case and spacing share a ``group``."""

    text: str
    package: str  #: import name: "sklearn"
    module: str  #: "sklearn.linear_model._ridge"
    name: str  #: "Ridge.fit"; empty for a module
    kind: str  #: "module", "class", "function" or "method"
    signature: str  #: "(self, X, y)"; empty where there is none
    group: str

    @property
    def area(self) -> str:
        """The first two names of the module: "sklearn.linear_model", "numpy._core". Good as a topic label."""
        return ".".join(self.module.split(".")[:2])

    @property
    def summary(self) -> str:
        """The first sentence, on one line."""
        return self._parts()[0]

    @property
    def body(self) -> str:
        """Everything after the first sentence."""
        return self._parts()[1]

    def masked(self, mask: str = "[NAME]", *, modules: bool = False) -> str:
        """The text without the names of its package and object; with ``modules``, of its modules too."""
        hidden = {self.package, *_SHORT_FORMS.get(self.package, ()), *self.name.split(".")}
        if modules:
            hidden |= {part for name in self.module.split(".") for part in (name, name.strip("_"))}
        # Longest first, so that "scikit-learn" is not cut after "scikit".
        pattern = "|".join(re.escape(name) for name in sorted(hidden, key=lambda name: (-len(name), name)) if name)
        return re.sub(rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_])", mask, self.text, flags=re.IGNORECASE)

    def _parts(self) -> tuple[str, str]:
        end = re.search(r"(?<=[.!?])\s|\n\s*\n", self.text)
        if end is None:
            return " ".join(self.text.split()), ""
        return " ".join(self.text[: end.start()].split()), self.text[end.end() :].strip()


def docstrings(
    packages: Sequence[str] = PACKAGES,
    *,
    limit: int | None = None,
    seed: int | None = None,
    min_words: int = 8,
    deduplicate: bool = True,
) -> list[Docstring]:
    """The docstrings of installed packages, read from their source files, which are never run.

    Tests, vendored code and private names are left out. The order is by package, file and line; with a
    ``seed`` it is shuffled. ``limit`` keeps the first so many of that order, taking packages in turn so
    that each is represented. ``deduplicate`` keeps the first of every ``group``.

    The first call reads the sources (about 10 s for the five default packages) and stores the result under
    ``cache_folder()`` by package version; later calls take about a second. Two processes may do so at once.
    The five default packages hold some 15,000 texts, 15 MB.

    Raises BadInput when a package is not installed here (it is named), or has no source files.
    """
    if isinstance(packages, str):
        packages = (packages,)
    if not packages or (limit is not None and limit < 1):
        raise BadInput(f"At least one package and a limit of at least 1 are needed, not {packages!r} and {limit!r}.")
    rng = None if seed is None else np.random.default_rng(seed)
    seen: set[str] = set()
    chosen: list[list[Docstring]] = []
    for package in dict.fromkeys(packages):
        long = [item for item in _of_package(package) if len(item.text.split()) >= min_words]
        if deduplicate:
            long = list({item.group: item for item in reversed(long) if item.group not in seen}.values())[::-1]
            seen.update(item.group for item in long)
        chosen.append(long if rng is None else [long[i] for i in rng.permutation(len(long)).tolist()])
    kept = [item for items, count in zip(chosen, _shares(chosen, limit), strict=True) for item in items[:count]]
    return kept if rng is None else [kept[i] for i in rng.permutation(len(kept)).tolist()]


def _shares(chosen: Sequence[Sequence[Docstring]], limit: int | None) -> list[int]:
    """How many of each package: equal, except that a small package leaves its rest to the others."""
    left = sum(map(len, chosen)) if limit is None else limit
    shares = [0] * len(chosen)
    for place, i in enumerate(sorted(range(len(chosen)), key=lambda i: (len(chosen[i]), i))):
        shares[i] = min(len(chosen[i]), -(-left // (len(chosen) - place)))
        left -= shares[i]
    return shares


def _of_package(package: str) -> list[Docstring]:
    root = _root(package)
    key = hashlib.sha256(f"{_FORMAT} {package} {_version(package, root)} {root}".encode()).hexdigest()[:16]
    path = cache_folder() / "docstrings" / f"{package}-{key}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with FileLock(f"{path}.lock"):
            if not path.exists():  # the other process may have written it while this one waited
                write_whole(path, (json.dumps(asdict(item)) for item in _extract(package, root)))
    with path.open(encoding="utf-8") as file:
        return [Docstring(**json.loads(line)) for line in file]


def _root(package: str) -> Path:
    """The package's source folder. Finding a top-level package does not import it."""
    if not package.isidentifier():
        raise BadInput(f"{package!r} is no package name. Give top-level import names, such as 'numpy'.")
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        spec = None
    if spec is None:
        raise BadInput(f"The package {package!r} is not installed here, so its docstrings cannot be read. Install it.")
    if not spec.submodule_search_locations:
        raise BadInput(f"{package!r} is a single module, not a package with source files.")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(package: str, root: Path) -> str:
    for name in _distributions().get(package, ()):
        return importlib.metadata.version(name)
    # Not installed by a packager (a folder on the path): its newest file stands for a version.
    files = sorted(root.rglob("*.py"))
    return str([(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files])


@cache  # asking every installed distribution takes a few tenths of a second
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _extract(package: str, root: Path) -> Iterator[Docstring]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part in _SKIPPED or part.startswith("test_") for part in parts):
            continue
        module = ".".join((package, *(part for part in parts if part != "__init__")))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the package's own escape sequences
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue  # a template or a file of another Python version is no source of text
        for node, name, kind in _documented(tree):
            text = _docstring(node)
            if text:
                group = hashlib.sha256(" ".join(text.lower().split()).encode("utf-8", "replace")).hexdigest()[:16]
                yield Docstring(text, package, module, name, kind, _signature(node), group)


def _documented(tree: ast.Module) -> Iterator[tuple[ast.Module | _Documented, str, str]]:
    yield tree, "", "module"
    yield from _within(tree.body, "", "function")


def _within(body: Iterable[ast.stmt], prefix: str, kind: str) -> Iterator[tuple[_Documented, str, str]]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            handled = [step for handler in getattr(node, "handlers", ()) for step in handler.body]
            yield from _within([*node.body, *handled, *node.orelse], prefix, kind)
        elif isinstance(node, _Documented) and (not node.name.startswith("_") or node.name == "__init__"):
            name = f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield node, name, "class"
                yield from _within(node.body, f"{name}.", "method")
            else:
                yield node, name, kind


def _docstring(node: ast.Module | _Documented) -> str:
    raw = ast.get_docstring(node, clean=False)
    # Lone surrogates cannot be written as UTF-8; no text is worth a crash over one.
    return inspect.cleandoc(raw).encode("utf-8", "replace").decode("utf-8").strip() if raw else ""


def _signature(node: ast.Module | _Documented) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"({ast.unparse(node.args)}){returns}"
    return ""

"""References: how methods and problems are named on a command line, and loading a user's own file."""

from __future__ import annotations

import importlib.util
import sys
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from didact.core.errors import BadInput


def parse_reference(reference: str) -> tuple[str, dict[str, str]]:
    """`"ssd:alpha=20:lam=0.5"` -> `("ssd", {"alpha": "20", "lam": "0.5"})`."""
    name, *options = reference.strip().split(":")
    parsed: dict[str, str] = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise BadInput(f"In {reference!r}, {option!r} is not of the form name=value.")
        parsed[key.strip()] = value.strip()
    return name, parsed


def split_file(reference: str) -> tuple[str, str, str]:
    head, mark, rest = reference.partition(".py:")
    return (head + ".py", ":", rest) if mark else (reference, "", "")


def import_file(path: Path) -> ModuleType:
    """Import a user's Python file under a name of its own, so that it clashes with no package."""
    if not path.is_file():
        raise BadInput(f"There is no file {path}. Expected a Python file that makes a problem, as in mine.py:make.")
    name = f"didact_user_{path.stem}_{sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.resolve().parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.pop(0)
    return module


def literal(text: str) -> Any:
    """Numbers, booleans and None from text; anything else stays a string."""
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

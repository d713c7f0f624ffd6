"""The data room: small, seeded, labelled data sets that work offline, and doors to a user's own data.

``digits`` and ``diabetes`` are real and come with scikit-learn; ``shapes`` draws labelled scenes with boxes,
masks, captions and questions; ``bios`` invents people with biographies and questions about them;
``docstrings`` reads real text from the packages that are installed. ``load_dataset_file`` and ``from_hub``
bring a user's own data. Everything is drawn from a seed and nothing is downloaded unless ``from_hub`` is
asked to. Importing this package is instant: torch is imported when a data set is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from didact.data.bios import QA as QA
    from didact.data.bios import Biography as Biography
    from didact.data.bios import Bios as Bios
    from didact.data.bios import bios as bios
    from didact.data.bios import from_jsonl as from_jsonl
    from didact.data.bios import to_jsonl as to_jsonl
    from didact.data.diabetes import diabetes as diabetes
    from didact.data.digits import digits as digits
    from didact.data.docstrings import Docstring as Docstring
    from didact.data.docstrings import docstrings as docstrings
    from didact.data.files import load_dataset_file as load_dataset_file
    from didact.data.files import save_dataset_file as save_dataset_file
    from didact.data.hub import from_hub as from_hub
    from didact.data.shapes import Scenes as Scenes
    from didact.data.shapes import parse_caption as parse_caption
    from didact.data.shapes import shapes as shapes
    from didact.data.splits import Splits as Splits
    from didact.data.splits import split_indices as split_indices

_EXPORTS = {
    "Biography": "bios",
    "Bios": "bios",
    "Docstring": "docstrings",
    "QA": "bios",
    "Scenes": "shapes",
    "Splits": "splits",
    "bios": "bios",
    "diabetes": "diabetes",
    "digits": "digits",
    "docstrings": "docstrings",
    "from_hub": "hub",
    "from_jsonl": "bios",
    "load_dataset_file": "files",
    "parse_caption": "shapes",
    "save_dataset_file": "files",
    "shapes": "shapes",
    "split_indices": "splits",
    "to_jsonl": "bios",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


class _Face(ModuleType):
    # The import system binds a loaded submodule to its package under the submodule's name. For `digits` and
    # others that would hide the function of the same name, depending on who imported what first: it must win.
    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _EXPORTS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face

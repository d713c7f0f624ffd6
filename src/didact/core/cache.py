"""Where didact keeps what is slow to make, and how a file is written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder that DIDACT_CACHE names, else the platform's cache folder for didact."""
    named = os.environ.get("DIDACT_CACHE")
    return Path(named).expanduser() if named else platformdirs.user_cache_path("didact")


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write a text file so that readers see the old file or the whole new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{line}\n" for line in lines)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise

"""Environments with the packages that a learnware requires. Made only where the operator names a folder for them."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.sandbox.failures import SandboxFailure

if TYPE_CHECKING:
    from didact.reusing.dock.package import Package

REQUIREMENTS = "requirements.txt"
_MOST = 50
# Names and versions only: no addresses, paths or options, with which a requirement would run or read something else.
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # the package
    r"(\[[A-Za-z0-9,._ -]{0,100}\])?\s*"  # its extras
    r"([<>=!~]=?=?\s*[A-Za-z0-9.*+!, <>=~]{1,100})?"  # its versions
)


def requirements_of(package: Package) -> tuple[str, ...]:
    """What a package says it needs, one requirement each.

    Errors: BadPackage `bad-requirements` for anything but names and versions.
    """
    if REQUIREMENTS not in package.files:
        return ()
    lines = package.read(REQUIREMENTS).decode("utf-8", "replace").splitlines()
    wanted = tuple(filter(None, (line.partition("#")[0].strip() for line in lines)))
    if len(wanted) > _MOST:
        raise BadPackage("bad-requirements", f"{REQUIREMENTS} may list {_MOST} packages, not {len(wanted)}.")
    for line in wanted:
        if not _REQUIREMENT.fullmatch(line):
            raise BadPackage(
                "bad-requirements",
                f"{REQUIREMENTS} lists packages by name and version, like `numpy>=2`, but not {line[:100]!r}.",
            )
    return wanted


def environment_of(package: Package, folder: Path) -> Path:
    """The Python with a package's requirements, made on first use and shared by packages that list the same.

    Only wheels are installed, so that nothing of the requirements runs outside the sandbox.

    Errors: SandboxFailure `missing-requirement` when they cannot be installed.
    """
    wanted = requirements_of(package)
    if not wanted:
        return Path(sys.executable)
    key = hashlib.sha256("\n".join(sorted(wanted)).encode()).hexdigest()[:20]
    place = folder.resolve() / key
    python = place / "bin" / "python"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(place) + ".lock"):
        if not (place / "ready").exists():
            venv.create(place, with_pip=True, clear=True, symlinks=True)
            _install(python, wanted)
            (place / "ready").touch()
    return python


def _install(python: Path, wanted: tuple[str, ...]) -> None:
    command = [str(python), "-I", "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise SandboxFailure("missing-requirement", "The package's requirements could not be installed.", done.stderr)

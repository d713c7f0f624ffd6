"""The worker's file system: Python and its libraries read-only, an empty scratch folder in memory, nothing else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from didact.reusing.dock.sandbox import kernel

PACKAGE, SCRATCH = "/package.zip", "/scratch"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_OLD = "/.outside"


def build(libraries: list[str], package: str | None, scratch_bytes: int, owner: int) -> int | None:
    """Replace the root by a new one and open the package in it.

    Args:
        libraries: folders with Python and its packages, shown read-only where they are.
        scratch_bytes: size of the scratch folder, which is in memory and belongs to `owner`.
    """
    kernel.make_mounts_private()
    kernel.mount("tmpfs", "/tmp", "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, "mode=0755,size=16m")
    Path("/tmp" + _OLD).mkdir()
    kernel.pivot_root("/tmp", "/tmp" + _OLD)
    os.chdir("/")
    for path in _without_nested([*_SYSTEM, *libraries]):
        _show(path)
    for name in _DEVICES:
        _file(f"/dev/{name}")
        kernel.bind(f"{_OLD}/dev/{name}", f"/dev/{name}", read_only=False)
    _file("/etc/passwd").write_text(f"nobody:x:{owner}:{owner}:nobody:{SCRATCH}:/bin/false\n")
    Path(SCRATCH).mkdir()
    options = f"mode=0700,size={scratch_bytes},nr_inodes=20000,uid={owner},gid={owner}"
    kernel.mount("tmpfs", SCRATCH, "tmpfs", kernel.NO_SETUID | kernel.NO_DEVICES, options)
    if not Path("/tmp").exists():  # libraries may be installed below it
        Path("/tmp").symlink_to(SCRATCH)
    opened = None
    if package:
        _file(PACKAGE)
        kernel.bind(_OLD + package, PACKAGE)
        opened = os.open(PACKAGE, os.O_RDONLY)
    _own_processes()
    kernel.unmount(_OLD)
    Path(_OLD).rmdir()
    kernel.remount_read_only("/")
    os.chdir(SCRATCH)
    return opened


def _without_nested(paths: list[str]) -> list[str]:
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(path == other or path.startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


def _show(path: str) -> None:
    """A file, a folder or the link that stands there; what does not exist outside does not exist inside."""
    outside = Path(_OLD + path)
    if outside.is_symlink() and path in _SYSTEM:
        Path(path).symlink_to(outside.readlink())
        return
    # Links on the way lead from the old root, which now hangs elsewhere: each is followed by hand.
    source = Path(_OLD + _real(path))
    if source.is_dir():
        Path(path).mkdir(parents=True, exist_ok=True)
    elif source.is_file():
        _file(path)
    else:
        return
    kernel.bind(str(source), path)


def _real(path: str) -> str:
    real, rest = "", path.strip("/").split("/")
    for _ in range(1000):
        if not rest:
            break
        name = rest.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            real = real.rpartition("/")[0]
            continue
        step = Path(f"{_OLD}{real}/{name}")
        if step.is_symlink():
            target = str(step.readlink())
            if target.startswith("/"):
                real = ""
            rest = [*target.strip("/").split("/"), *rest]
        else:
            real = f"{real}/{name}"
    return real


def _file(path: str) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


def _own_processes() -> None:
    """/proc of the new process namespace; where the outer one is masked the kernel forbids it, and none is shown."""
    Path("/proc").mkdir()
    with contextlib.suppress(OSError):
        kernel.mount("proc", "/proc", "proc", kernel.NO_SETUID | kernel.NO_DEVICES | kernel.NO_EXEC)

"""Reading an uploaded zip without believing anything that it says about itself."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from didact.reusing.dock.errors import BadPackage, TooLarge

_CHUNK = 1 << 18
# Small files of one repeated letter compress well and harm nobody: the ratio counts from this size on.
_HARMLESS = 1 << 20


@dataclass(frozen=True)
class PackageLimits:
    """What a package may measure."""

    archive: int = 2**30  #: bytes of the zip
    total: int = 4 * 2**30  #: bytes of all files, decompressed
    ratio: float = 100.0  #: decompressed to compressed, of each file and of all together
    files: int = 10_000  #: entries, folders included
    text: int = 64 * 2**20  #: bytes of each JSON file
    manifest: int = 2**16  #: bytes of learnware.yaml


@contextmanager
def opened(source: Path | IO[bytes], limits: PackageLimits) -> Iterator[zipfile.ZipFile]:
    """A zip whose entries have harmless names.

    Errors: BadPackage with code `not-a-zip`, `too-many-files`, `absolute-path`, `path-traversal`, `bad-name`,
    `link`, `special-file`, `encrypted`, `compression`, `duplicate-entry`; TooLarge with code `oversize`.
    """
    size = _size(source)
    if size > limits.archive:
        raise TooLarge("oversize", f"A package may have {limits.archive} bytes; this one has {size}.")
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise BadPackage("not-a-zip", f"A package is a zip file, but this is not a whole one: {error}.") from None
    with archive:
        _check_entries(archive.infolist(), limits)
        yield archive


def chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """An entry's contents, piece by piece; not more than `limit` bytes, whatever its header says.

    Errors: BadPackage with code `zip-bomb` or `corrupt-entry`.
    """
    read = 0
    try:
        with archive.open(entry) as stream:
            while piece := stream.read(_CHUNK):
                read += len(piece)
                if read > limit:
                    raise BadPackage("zip-bomb", f"{entry.filename[:100]!r} unpacks to more than {limit} bytes.")
                yield piece
    except BadPackage:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise BadPackage("corrupt-entry", f"{entry.filename[:100]!r} cannot be unpacked: {error}.") from None


def allowance(entry: zipfile.ZipInfo, limits: PackageLimits) -> int:
    """How many bytes an entry may unpack to, given how many it takes in the zip."""
    return int(min(limits.total, _HARMLESS + limits.ratio * entry.compress_size))


def total_allowance(size: int, limits: PackageLimits) -> int:
    """The same for all entries together: entries that overlap each claim the same compressed bytes."""
    return int(min(limits.total, _HARMLESS + limits.ratio * size))


def _check_entries(entries: list[zipfile.ZipInfo], limits: PackageLimits) -> None:
    if len(entries) > limits.files:
        raise BadPackage("too-many-files", f"A package may hold {limits.files} files; this one lists {len(entries)}.")
    seen: set[str] = set()
    for entry in entries:
        _check_name(entry.orig_filename)
        _check_kind(entry)
        # Some file systems do not tell capital letters apart, and on them one entry would replace another.
        key = entry.filename.rstrip("/").casefold()
        if key in seen:
            raise BadPackage("duplicate-entry", f"{entry.filename[:100]!r} is in the package twice. Keep one.")
        seen.add(key)
    files = {entry.filename.casefold() for entry in entries if not entry.is_dir()}
    for name in seen:
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in files:
                raise BadPackage("duplicate-entry", f"{name[:100]!r} is a file in the package and also a folder.")


def _check_name(name: str) -> None:
    plain = name.replace("\\", "/")
    if plain.startswith("/") or plain[1:2] == ":":
        raise BadPackage("absolute-path", f"Entries are named relative to the package, but {name[:100]!r} is absolute.")
    if ".." in plain.split("/"):
        raise BadPackage("path-traversal", f"The entry {name[:100]!r} leads out of the package.")
    if not plain or not plain.isprintable() or "\\" in name or len(plain.encode("utf-8", "replace")) > 255:
        raise BadPackage("bad-name", f"The entry's name {name[:100]!r} is empty, too long or not plain text.")


def _check_kind(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise BadPackage("link", f"{entry.filename[:100]!r} is a link. Put the file itself into the package.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadPackage("special-file", f"{entry.filename[:100]!r} is neither a file nor a folder.")
    if entry.flag_bits & 0x1:
        raise BadPackage("encrypted", f"{entry.filename[:100]!r} is encrypted. Packages are read by others: do not.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadPackage("compression", f"{entry.filename[:100]!r} is packed in an unusual way. Use deflate or none.")


def _size(source: Path | IO[bytes]) -> int:
    try:
        if isinstance(source, Path):
            return source.stat().st_size
        return source.seek(0, 2)
    except OSError as error:
        raise BadPackage("not-a-zip", f"The package cannot be read: {error.strerror}.") from None

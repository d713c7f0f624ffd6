"""Opening a package: everything is read and nothing is run."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

from didact.reusing.dock.errors import BadPackage, BadSpecification, TooLarge
from didact.reusing.dock.package import pickles
from didact.reusing.dock.package.archive import PackageLimits, allowance, chunks, opened, total_allowance
from didact.reusing.dock.package.manifest import MANIFEST, Manifest, Shape, Tier, parse
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.specification import Specification

SEMANTIC = "semantic.json"
_SEMANTIC_NAMES = (SEMANTIC, "semantic_specification.json")
_BESIDE = ("readme", "licence", "license", "notice", "citation", "requirements")
_HEAD = 1 << 16

LIMITS = PackageLimits()

T = TypeVar("T")


@dataclass(frozen=True)
class Package:
    """A learnware package that was read and found whole. Nothing of it was run: whether it works is not known."""

    path: Path
    sha256: str
    size: int
    manifest: Manifest
    semantic: SemanticSpecification
    specifications: tuple[Specification, ...]
    files: Mapping[str, int]  #: name -> bytes, decompressed
    limits: PackageLimits = field(default=LIMITS, repr=False)
    source: Path | IO[bytes] | None = field(default=None, repr=False, compare=False)

    @property
    def tier(self) -> Tier:
        """ "safe": weights and a description; "code": Python of the author, run in the sandbox only."""
        return self.manifest.tier

    @property
    def specification(self) -> Specification:
        """The statistical specification by which it is found: the first."""
        return self.specifications[0]

    @property
    def input_shape(self) -> Shape | None:
        """Of one input; () for a text; None when only the code knows."""
        return self.manifest.input_shape

    @property
    def output_shape(self) -> Shape | None:
        """Of one output; () for a label or a single number; None when only the code knows."""
        return self.manifest.output_shape

    def read(self, name: str) -> bytes:
        """The contents of a file of the package."""
        with opened(self.source or self.path, self.limits) as archive:
            entry = _entry(archive, name)
            return b"".join(chunks(archive, entry, allowance(entry, self.limits)))

    def extract(self, folder: Path) -> Path:
        """Unpack all files into a folder that exists; only for a folder where nothing else is."""
        with opened(self.source or self.path, self.limits) as archive:
            for name in self.files:
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                entry = _entry(archive, name)
                with target.open("xb") as file:
                    for piece in chunks(archive, entry, allowance(entry, self.limits)):
                        file.write(piece)
        return folder


def open_package(path: str | Path | IO[bytes], limits: PackageLimits = LIMITS) -> Package:
    """Read a package without running anything in it and without writing anything.

    Every file is decompressed once, counting, so that sizes in headers need not be believed.

    Errors: BadPackage, with a code: `not-a-zip`, `absolute-path`, `path-traversal`, `bad-name`, `link`,
    `special-file`, `too-many-files`, `zip-bomb`, `duplicate-entry`, `encrypted`, `compression`, `corrupt-entry`,
    `no-manifest`, `bad-yaml`, `bad-manifest`, `unknown-runtime`, `missing-file`, `unexpected-file`, `pickle`,
    `bad-semantic`, `bad-specification`, `dimension-mismatch`. TooLarge, with code `oversize`.

    Cost: time in proportion to the decompressed size; memory for its JSON files.
    """
    source = Path(path) if isinstance(path, str | Path) else path
    with opened(source, limits) as archive:
        files = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        manifest = parse(_text(archive, files, MANIFEST, limits.manifest, "no-manifest"))
        _expect_files(manifest, files)
        heads, sizes = _unpack_all(archive, files, source, limits)
        if manifest.tier == "safe":
            _refuse_pickles(manifest, heads)
            _refuse_others(manifest, files)
        semantic_name = next((name for name in _SEMANTIC_NAMES if name in files), SEMANTIC)
        text = _text(archive, files, semantic_name, limits.text, "bad-semantic")
        semantic = _named("bad-semantic", lambda: SemanticSpecification.parse(_json(text, semantic_name)))
        specifications = tuple(
            _specification(_text(archive, files, part.file_name, limits.text, "bad-specification"), part.file_name)
            for part in manifest.stat_specifications
        )
    for specification in specifications:
        _fit_together(manifest, semantic, specification)
    return Package(
        path=source if isinstance(source, Path) else Path(),
        sha256=_sha256(source),
        size=source.stat().st_size if isinstance(source, Path) else source.seek(0, 2),
        manifest=manifest,
        semantic=semantic,
        specifications=specifications,
        files=sizes,
        limits=limits,
        source=source,
    )


def _expect_files(manifest: Manifest, files: Mapping[str, zipfile.ZipInfo]) -> None:
    named = [manifest.model.file, *(part.file_name for part in manifest.stat_specifications)]
    missing = next((name for name in named if name not in files), None)
    if missing is not None:
        raise BadPackage("missing-file", f"{MANIFEST} names {missing!r}, but the package does not hold it.")


def _unpack_all(
    archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo], source: Path | IO[bytes], limits: PackageLimits
) -> tuple[dict[str, bytes], dict[str, int]]:
    """The first bytes and the true size of each file."""
    packed = source.stat().st_size if isinstance(source, Path) else source.seek(0, 2)
    left = total_allowance(packed, limits)
    heads: dict[str, bytes] = {}
    sizes: dict[str, int] = {}
    for name, entry in files.items():
        head, size = bytearray(), 0
        for piece in chunks(archive, entry, min(left, allowance(entry, limits))):
            head += piece[: _HEAD - len(head)]
            size += len(piece)
        left -= size
        heads[name], sizes[name] = bytes(head), size
    return heads, sizes


def _refuse_pickles(manifest: Manifest, heads: Mapping[str, bytes]) -> None:
    for name, head in heads.items():
        # A safetensors file begins with the length of its header, which can be any bytes; then comes the header.
        weights = name == manifest.model.file and manifest.runtime == "torch" and head[8:9] == b"{"
        if pickles.named_like_one(name) or (not weights and pickles.begins_like_one(head)):
            raise BadPackage(
                "pickle",
                f"{name[:100]!r} is a pickle, and loading a pickle runs code. Use safetensors, ONNX or skops, or make "
                "a package with code, which is run in the sandbox only.",
            )


def _refuse_others(manifest: Manifest, files: Mapping[str, zipfile.ZipInfo]) -> None:
    expected = {MANIFEST, manifest.model.file, *(part.file_name for part in manifest.stat_specifications)}
    for name in files:
        beside = "/" not in name and name.lower().startswith(_BESIDE)
        if name not in expected and name not in _SEMANTIC_NAMES and not beside:
            raise BadPackage(
                "unexpected-file",
                f"{name[:100]!r} has no place in a package without code: it holds {MANIFEST}, {SEMANTIC}, the model, "
                "its specifications and, if you like, a README and a licence.",
            )


def _fit_together(manifest: Manifest, semantic: SemanticSpecification, specification: Specification) -> None:
    """Whether manifest, words and statistics describe the same model."""
    kind = f"rkme-{semantic.data.lower()}"
    if specification.type != kind:
        raise BadPackage(
            "bad-specification",
            f"A learnware for {semantic.data} needs a {kind} specification, not {specification.type}.",
        )
    shape = manifest.input_shape
    if semantic.data == "Table" and semantic.input is not None:
        wanted = semantic.input.dimension
        if shape is not None and shape != (wanted,):
            raise _mismatch(f"tables with {wanted} features", f"input_shape is {list(shape)}")
        if specification.encoder == "" and specification.dimension != wanted:
            raise _mismatch(f"tables with {wanted} features", f"its specification has {specification.dimension}")
    if shape is not None and (semantic.data == "Text") != (shape == ()):
        raise _mismatch(f"the data {semantic.data}", f"input_shape is {list(shape)}; only a text's is []")
    output = manifest.output_shape
    if semantic.output is None or output is None:
        return
    count = semantic.output.dimension
    if semantic.task == "Classification" and output not in ((), (1,), (count,)):
        raise _mismatch(f"{count} classes", f"output_shape is {list(output)}, neither [] for a label nor [{count}]")
    if semantic.task == "Regression" and output != (count,) and not (output == () and count == 1):
        raise _mismatch(f"{count} targets", f"output_shape is {list(output)}")


def _mismatch(said: str, found: str) -> BadPackage:
    return BadPackage("dimension-mismatch", f"{SEMANTIC} speaks of {said}, but {found}. Make them agree.")


def _specification(text: bytes, name: str) -> Specification:
    mapping = _named("bad-specification", lambda: _json(text, name))
    return _named("bad-specification", lambda: Specification.from_json(mapping))


def _named(code: str, read: Callable[[], T]) -> T:
    """What `read` returns; a refusal becomes one of the package."""
    try:
        return read()
    except BadSpecification as error:
        raise BadPackage(code, str(error)) from None


def _json(text: bytes, name: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadSpecification("not-json", f"{name} is not JSON: {error}.") from None


def _text(
    archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo], name: str, limit: int, otherwise: str
) -> bytes:
    if name not in files:
        raise BadPackage(otherwise, f"The package holds no {name}. Make packages with write_package.")
    if files[name].file_size > limit:
        raise TooLarge("oversize", f"{name} may have {limit} bytes; this one has {files[name].file_size}.")
    return b"".join(chunks(archive, files[name], limit))


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError:
        raise BadPackage("missing-file", f"The package holds no file {name!r}.") from None


def _sha256(source: Path | IO[bytes]) -> str:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    source.seek(0)
    return hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]

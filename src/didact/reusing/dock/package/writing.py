"""Making a package of a model."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from didact.core.errors import BadInput
from didact.reusing.dock.package.manifest import MANIFEST
from didact.reusing.dock.package.opening import SEMANTIC, open_package
from didact.reusing.dock.semantics import SemanticSpecification
from didact.reusing.dock.specification import Specification

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_package(
    path: str | Path,
    model: Any,
    *,
    semantic: SemanticSpecification | Mapping[str, Any],
    specification: Specification | Sequence[Specification],
    input_shape: Sequence[int],
    output_shape: Sequence[int] | None = None,
    licence: str | None = None,
    class_name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    file: str = "__init__.py",
    readme: str | None = None,
) -> Path:
    """Write a learnware package, whole or not at all. The same model gives the same bytes.

    Args:
        model: a network of a registered architecture (`didact.models.small.build`), an ONNX model (a path, its bytes
            or an `onnx.ModelProto`), a fitted scikit-learn estimator, or a folder of Python code.
        specification: of the data that the model was trained on; with several, the first is what it is found by.
        input_shape: of one input, (features,) for a table, (channels, height, width) for an image, () for a text.
        output_shape: of one output; () for a label or one number. Found by running the model when left out.
        licence: in place of the one in `semantic`.
        class_name, kwargs, file: for code, what to instantiate and where in the folder it is. The class has
            `predict(x)`, may have `fit` and `finetune`, and tells `input_shape` and `output_shape`.

    Errors: BadInput (BadPackage for what a dock would refuse) with what to change.
    """
    from didact.reusing.dock.runtimes.recognise import Content, code, content_of

    words = _words(semantic, licence)
    statistics = [specification] if isinstance(specification, Specification) else list(specification)
    if not statistics:
        raise BadInput("A learnware is found by its specification, but none was given. Make one with `specify`.")
    content: Content
    if isinstance(model, str | Path) and Path(model).is_dir():
        content = code(Path(model), class_name, dict(kwargs or {}), file)
    else:
        content = content_of(model, words, tuple(input_shape), None if output_shape is None else tuple(output_shape))
    names = ["stat.json", *(f"stat-{i}.json" for i in range(2, len(statistics) + 1))]
    manifest = {
        "format": 1,
        "tier": content.tier,
        "model": content.model,
        "stat_specifications": [
            {"type": part.type, "file_name": name} for part, name in zip(statistics, names, strict=True)
        ],
        "input_shape": list(input_shape),
    }
    shape = content.output_shape if output_shape is None else tuple(output_shape)
    if shape is not None:
        manifest["output_shape"] = list(shape)
    files = {
        MANIFEST: _yaml(manifest),
        SEMANTIC: json.dumps(words.to_json(), indent=1).encode(),
        **{name: json.dumps(part.to_json()).encode() for name, part in zip(names, statistics, strict=True)},
        **({"README.md": readme.encode()} if readme else {}),
    }
    return _write(Path(path), {**content.files, **files})


def _words(semantic: SemanticSpecification | Mapping[str, Any], licence: str | None) -> SemanticSpecification:
    words = semantic if isinstance(semantic, SemanticSpecification) else SemanticSpecification.parse(semantic)
    return words if licence is None else SemanticSpecification.parse({**words.to_json(), "licence": licence})


def _yaml(manifest: Mapping[str, Any]) -> bytes:
    try:
        plain = json.loads(json.dumps(manifest))  # and nothing in it is in two places, which YAML would write as alias
    except (TypeError, ValueError) as error:
        raise BadInput(f"The model's options must be numbers, texts and lists of them: {error}.") from None
    return yaml.safe_dump(plain, sort_keys=False).encode()


def _write(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", suffix=".zip", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.external_attr = 0o644 << 16
                # Weights hardly shrink, and where they do (zeros) they would look like a zip bomb.
                entry.compress_type = zipfile.ZIP_DEFLATED if name.endswith((".json", ".py")) else zipfile.ZIP_STORED
                archive.writestr(entry, files[name])
        open_package(scratch)  # whatever a dock would refuse is refused here, where its author reads it
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
    return path

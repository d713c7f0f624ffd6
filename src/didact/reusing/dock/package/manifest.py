"""learnware.yaml: which runtime loads which file of a package, and with what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from didact.reusing.dock.errors import BadPackage

MANIFEST = "learnware.yaml"
RUNTIMES = ("torch", "onnx", "skops", "python")
_ANSWER = "Make packages with didact.reusing.dock.write_package."
_DEEPEST = 20

Runtime = Literal["torch", "onnx", "skops", "python"]
Tier = Literal["safe", "code"]
Length = Annotated[int, Field(ge=1, le=2**24)]
Shape = Annotated[tuple[Length, ...], Field(max_length=6)]
FileName = Annotated[str, Field(min_length=1, max_length=255)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Registered(_Strict):
    """Weights in safetensors for an architecture that didact builds by name."""

    runtime: Literal["torch"]
    file: FileName
    architecture: str = Field(min_length=1, max_length=100)
    options: dict[str, Any] = {}


class Graph(_Strict):
    """An ONNX model."""

    runtime: Literal["onnx"]
    file: FileName


class Estimator(_Strict):
    """A scikit-learn estimator in skops' format."""

    runtime: Literal["skops"]
    file: FileName


class Code(_Strict):
    """A Python class with `predict`, and if it can `fit` and `finetune`."""

    runtime: Literal["python"]
    file: FileName = "__init__.py"
    class_name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")
    kwargs: dict[str, Any] = {}


class Statistical(_Strict):
    """Where a statistical specification is."""

    type: str = Field(min_length=1, max_length=100)
    file_name: FileName


class Manifest(_Strict):
    """The contents of learnware.yaml."""

    format: Literal[1]
    tier: Tier
    model: Annotated[Registered | Graph | Estimator | Code, Field(discriminator="runtime")]
    stat_specifications: Annotated[tuple[Statistical, ...], Field(min_length=1, max_length=4)]
    input_shape: Shape | None = None  #: of one input; () for a text; code may tell when it runs
    output_shape: Shape | None = None  #: of one output; () for a label or a single number

    @model_validator(mode="after")
    def _tier_fits(self) -> Manifest:
        if (self.tier == "code") != (self.model.runtime == "python"):
            raise ValueError(f"The runtime {self.model.runtime!r} does not belong to the tier {self.tier!r}.")
        if self.tier == "safe" and (self.input_shape is None or self.output_shape is None):
            raise ValueError("input_shape and output_shape are needed.")
        return self

    @property
    def runtime(self) -> Runtime:
        return self.model.runtime


def parse(text: bytes) -> Manifest:
    """Read learnware.yaml, in didact's layout or in that of the `learnware` package (which is code).

    Errors: BadPackage with code `bad-yaml`, `unknown-runtime` or `bad-manifest`.
    """
    mapping = _yaml(text)
    if "format" not in mapping:
        mapping = _from_reference(mapping)
    model = mapping.get("model")
    runtime = model.get("runtime") if isinstance(model, Mapping) else None
    if runtime is not None and runtime not in RUNTIMES:
        raise BadPackage(
            "unknown-runtime", f"The runtime must be one of {', '.join(RUNTIMES)}; {str(runtime)[:100]!r} was given."
        )
    try:
        return Manifest.model_validate(mapping)
    except (ValidationError, RecursionError) as error:
        raise BadPackage("bad-manifest", f"{MANIFEST} is not usable: {_first(error)}. {_ANSWER}") from None


def _yaml(text: bytes) -> dict[str, Any]:
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # An alias may stand for a structure that stands for a structure: small to write, endless to read.
            if isinstance(event, yaml.AliasEvent):
                raise BadPackage("bad-yaml", f"{MANIFEST} uses aliases, which are not allowed. Write it out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise BadPackage("bad-yaml", f"{MANIFEST} is nested more than {_DEEPEST} deep.")
        mapping = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        if isinstance(error, BadPackage):
            raise
        raise BadPackage("bad-yaml", f"{MANIFEST} is not YAML: {' '.join(str(error).split())[:300]}.") from None
    if not isinstance(mapping, dict):
        raise BadPackage("bad-manifest", f"{MANIFEST} holds fields, not a {type(mapping).__name__}. {_ANSWER}")
    return mapping


def _from_reference(mapping: dict[str, Any]) -> dict[str, Any]:
    """{model: {class_name, kwargs}, stat_specifications: [{class_name, file_name, ...}]}, a class in __init__.py."""
    model, statistical = mapping.get("model"), mapping.get("stat_specifications")
    if not isinstance(model, Mapping) or not isinstance(statistical, list):
        raise BadPackage("bad-manifest", f"{MANIFEST} needs `model` and `stat_specifications`. {_ANSWER}")
    if "runtime" in model:
        raise BadPackage("bad-manifest", f"{MANIFEST} needs `format: 1`. {_ANSWER}")
    return {
        "format": 1,
        "tier": "code",
        "model": {
            "runtime": "python",
            "file": model.get("module_path") or "__init__.py",
            "class_name": model.get("class_name", "Model"),
            "kwargs": model.get("kwargs") or {},
        },
        "stat_specifications": [
            {"type": part.get("class_name"), "file_name": part.get("file_name")} if isinstance(part, Mapping) else {}
            for part in statistical
        ],
    }


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])[:200]
    return f"{where}: {problem['msg']}".removeprefix(": ").rstrip(".")

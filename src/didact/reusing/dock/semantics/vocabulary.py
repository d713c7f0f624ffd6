"""The words that specifications and queries are made of, and the names of what can be wrong with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, ValidationError

from didact.reusing.dock.errors import BadSpecification

Data = Literal["Table", "Image", "Text"]
Task = Literal["Classification", "Regression", "Feature Extraction", "Segmentation", "Object Detection", "Others"]

DATA: tuple[str, ...] = get_args(Data)
TASKS: tuple[str, ...] = get_args(Task)
LIBRARIES: tuple[str, ...] = ("PyTorch", "ONNX", "scikit-learn", "Others")
SCENARIOS: tuple[str, ...] = (
    "Agriculture",
    "Architecture",
    "Business",
    "Computer",
    "Education",
    "Entertainment",
    "Fashion",
    "Financial",
    "Health",
    "Industry",
    "Internet",
    "Nature",
    "Politics",
    "Traffic",
    "Others",
)
LICENCES: tuple[str, ...] = (
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "GPL-2.0",
    "GPL-3.0",
    "LGPL-2.1",
    "LGPL-3.0",
    "AGPL-3.0",
    "ECL-2.0",
    "AFL-3.0",
    "CC0-1.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "Others",
)
MOST_DIMENSIONS = 1_000_000


def _storable(text: str) -> str:
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("Text must be valid Unicode without NUL characters. Remove them.")
    return text


Text = Annotated[str, AfterValidator(_storable)]


def vocabulary() -> dict[str, Any]:
    """The classes and tags that a specification may use, for forms and clients."""
    return {
        "data": list(DATA),
        "task": list(TASKS),
        "library": list(LIBRARIES),
        "scenario": list(SCENARIOS),
        "licence": list(LICENCES),
        "requires": {"input": {"data": ["Table"]}, "output": {"task": ["Classification", "Regression"]}},
    }


def one_of(value: str, allowed: tuple[str, ...], field: str) -> str:
    """The value, or an error that pydantic carries to `named_error`."""
    if value not in allowed:
        raise ValueError(f"unknown-tag: The {field} must be one of {', '.join(allowed)}; {value[:100]!r} was given.")
    return value


def named_error(error: ValidationError) -> BadSpecification:
    """The first of pydantic's findings as a refusal with a code."""
    problem = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    code, colon, sentence = text.partition(": ")
    if colon and code in ("unknown-tag", "missing-input", "missing-output", "bad-output"):
        return BadSpecification(code, sentence)
    if problem["type"] == "literal_error":
        allowed = ", ".join(DATA if where == "data" else TASKS)
        return BadSpecification("unknown-tag", f"The {where} must be one of {allowed}; something else was given.")
    if problem["type"] == "missing":
        return BadSpecification("bad-semantic", f"The field `{where}` is needed, but it was not given. Add it.")
    if problem["type"] == "extra_forbidden":
        return BadSpecification("bad-semantic", f"There is no field `{where}`. Remove it.")
    sentence = text if text.endswith(".") else f"{text}."
    return BadSpecification("bad-semantic", f"The field `{where}` is not usable. {sentence}" if where else sentence)

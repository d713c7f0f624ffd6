"""Reading the words of a learnware as the `learnware` package writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from didact.reusing.dock.errors import BadSpecification


def from_reference(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """From the layout {"Data": {"Type": "Class", "Values": ["Table"]}, ..., "Input": {"Dimension": 2, ...}}."""
    one = {field: _values(mapping, field) for field in ("Data", "Task", "Library", "License")}
    plain: dict[str, Any] = {
        "name": _string(mapping, "Name"),
        "description": _string(mapping, "Description"),
        "scenario": tuple(_values(mapping, "Scenario")),
    }
    for reference, field in (("Data", "data"), ("Task", "task"), ("Library", "library"), ("License", "licence")):
        values = one[reference]
        if len(values) > 1:
            raise BadSpecification("bad-semantic", f"The field `{reference}` takes one value, but {len(values)} came.")
        if values:
            plain[field] = values[0]
    # The reference knows a library and a task that didact files under Others, and spells another differently.
    renamed = {"Scikit-learn": "scikit-learn", "TensorFlow": "Others"}
    if isinstance(plain.get("library"), str):
        plain["library"] = renamed.get(plain["library"], plain["library"])
    if plain.get("task") == "Text Generation":
        plain["task"] = "Others"
    for reference, field in (("Input", "input"), ("Output", "output")):
        part = mapping.get(reference)
        if isinstance(part, Mapping) and "Dimension" in part:
            plain[field] = {"dimension": part["Dimension"], "description": part.get("Description") or {}}
    return plain


def _values(mapping: Mapping[str, Any], field: str) -> list[Any]:
    part = mapping.get(field)
    values = part.get("Values") if isinstance(part, Mapping) else None
    return values if isinstance(values, list) else [] if values is None else [values]


def _string(mapping: Mapping[str, Any], field: str) -> Any:
    return "".join(str(value) for value in _values(mapping, field))

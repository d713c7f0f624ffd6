"""Does a reply fit a JSON schema? The part of JSON Schema that structured answers of language models use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from didact.core.errors import BadInput

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KEYWORDS = {
    *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
    *("minimum", "maximum", "minLength", "enum", "title", "description"),
}


class Mismatch(ValueError):
    """The reply is not what the schema asks for."""


def conforming(reply: str, schema: Mapping[str, Any]) -> str:
    """The JSON text of a reply that fits the schema (a Markdown fence around it is taken off).

    Raises:
        Mismatch: it is not JSON, or JSON of another form.
        BadInput: the schema has a keyword that is not supported; ignoring one would let wrong replies pass.
    """
    fenced = _FENCED.fullmatch(reply)
    text = fenced[1] if fenced else reply
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"this is not JSON ({error}): {reply!r:.80}") from None
    _check(value, schema, "the reply")
    return text.strip()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check(value: Any, schema: Mapping[str, Any], where: str) -> None:
    unknown = set(schema) - _KEYWORDS
    if unknown:
        raise BadInput(f"The schema keyword {', '.join(sorted(unknown))} is not supported. Use {', '.join(_KEYWORDS)}.")
    _check_type(value, schema, where)
    if "enum" in schema and value not in schema["enum"]:
        raise Mismatch(f"{where} is {value!r:.60}, but must be one of {schema['enum']}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            raise Mismatch(f"{where} is {value}, but must lie in {low}..{high}")
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        raise Mismatch(f"{where} is shorter than {schema['minLength']} characters")
    if isinstance(value, list):
        fewest, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
        if not fewest <= len(value) <= most:
            raise Mismatch(f"{where} has {len(value)} items, but must have {fewest} to {most}")
        for i, item in enumerate(value):
            _check(item, schema.get("items", {}), f"{where}[{i}]")
    if isinstance(value, dict):
        _check_object(value, schema, where)


def _check_type(value: Any, schema: Mapping[str, Any], where: str) -> None:
    if "type" not in schema:
        return
    allowed = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    # In Python True is an int; in JSON it is not.
    fits = any(isinstance(value, _TYPES[t]) and (t == "boolean" or not isinstance(value, bool)) for t in allowed)
    if not fits:
        raise Mismatch(f"{where} is {value!r:.60}, but must be of the type {' or '.join(allowed)}")


def _check_object(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> None:
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise Mismatch(f"{where} lacks {', '.join(missing)}")
    extra = set(value) - set(properties)
    if extra and schema.get("additionalProperties", True) is False:
        raise Mismatch(f"{where} has {', '.join(sorted(extra))}, which the schema does not know")
    for name, inner in properties.items():
        if name in value:
            _check(value[name], inner, f"{where}.{name}")

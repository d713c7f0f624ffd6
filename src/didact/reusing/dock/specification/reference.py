"""Reading the specifications that the `learnware` package writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from didact.reusing.dock.errors import BadSpecification

# The sentence encoder that the package uses for texts, under the name that didact's encoder for it has.
_TEXT_ENCODER = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"


def from_reference(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The same specification in didact's layout.

    Errors: `BadSpecification` for types without a counterpart. Image specifications of the package use another
    kernel (that of infinitely wide networks) and have none.
    """
    kind = mapping.get("type")
    known = {
        "RKMETableSpecification": ("rkme-table", ""),
        "RKMEStatSpecification": ("rkme-table", ""),
        "RKMETextSpecification": ("rkme-text", _TEXT_ENCODER),
    }
    if kind not in known:
        raise BadSpecification(
            "wrong-type",
            f"Of the `learnware` package's specifications those of tables and texts can be read; {kind!r:.100} was "
            "given. Specify the data anew with `specify`.",
        )
    ours, encoder = known[kind]
    plain = {field: mapping[field] for field in ("gamma", "z", "beta") if field in mapping}
    languages = mapping.get("language") or []
    return {**plain, "type": ours, "encoder": encoder, "languages": languages}

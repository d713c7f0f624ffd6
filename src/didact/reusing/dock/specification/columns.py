"""What the columns of a table mean, in words: what makes tables with different columns comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import ValidationError

from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.semantics import Input
from didact.reusing.dock.semantics.vocabulary import named_error
from didact.reusing.dock.specification.statistical import Specification

Columns = Mapping[int, str]  # what feature i means

MOST_COLUMNS = 256  # a map's attention costs their square
LARGEST_VALUE = 1e9  # beyond it products overflow single precision


def columns_of(given: Mapping[int, str] | Mapping[str, str] | Sequence[str], table: Specification) -> dict[int, str]:
    """The meaning of a table's features, from texts in their order or by their number.

    Errors: `BadSpecification` "bad-semantic" for numbers that the table does not have and for what is no text,
    "missing" when nothing is described; and what `check_across` finds.
    """
    check_across(table)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        if len(given) != table.dimension:
            raise BadSpecification(
                "wrong-shape",
                f"A list of columns describes all {table.dimension} of them in their order; {len(given)} were given.",
            )
        given = dict(enumerate(given))
    try:
        columns = Input.model_validate({"dimension": table.dimension, "description": given}).description
    except ValidationError as error:
        raise named_error(error) from None
    described = {i: text for i, text in columns.items() if text.strip()}
    if not described:
        raise BadSpecification(
            "missing", "A search across columns needs the meaning of the table's columns, but none was given."
        )
    return described


def check_across(specification: Specification) -> None:
    """Raise `BadSpecification` for what cannot be compared across columns: "wrong-type" or "too-large"."""
    if specification.type != "rkme-table" or specification.encoder:
        raise BadSpecification("wrong-type", "Only tables of raw values are compared across columns.")
    if specification.dimension > MOST_COLUMNS:
        raise BadSpecification(
            "too-large",
            f"Tables of up to {MOST_COLUMNS} columns are compared across columns; this one has "
            f"{specification.dimension}. Leave some out.",
        )
    if float(np.abs(specification.z).max()) > LARGEST_VALUE:
        raise BadSpecification(
            "too-large",
            f"Tables are compared across columns with values up to {LARGEST_VALUE:g}; there are larger ones. "
            "Scale the columns.",
        )

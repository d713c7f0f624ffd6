"""Between rows and what they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from didact.reusing.dock.records import LearnwareInfo
from didact.reusing.dock.semantics import SemanticSpecification

if TYPE_CHECKING:
    from didact.reusing.dock.specification import Specification


def row_of(id: str, position: int, specification: Specification) -> dict[str, Any]:
    """The columns of a specification."""
    z = np.ascontiguousarray(specification.z, dtype="<f8")
    return {
        "learnware_id": id,
        "position": position,
        "type": specification.type,
        "gamma": specification.gamma,
        "encoder": specification.encoder,
        "languages": list(specification.languages),
        "size": z.shape[0],
        "dimension": z.shape[1],
        "z": z.tobytes(),
        "beta": np.ascontiguousarray(specification.beta, dtype="<f8").tobytes(),
        "self_product": float(specification.self_product),
    }


def specification_of(row: Any) -> Specification:
    from didact.reusing.dock.specification import Specification

    return Specification(
        type=row.type,
        gamma=row.gamma,
        encoder=row.encoder,
        z=np.frombuffer(row.z, dtype="<f8").reshape(row.size, row.dimension),
        beta=np.frombuffer(row.beta, dtype="<f8"),
        languages=tuple(row.languages),
    )


def semantic_of(stored: dict[str, Any]) -> SemanticSpecification:
    return SemanticSpecification.model_validate(stored)


def info_of(row: Any) -> LearnwareInfo:
    return LearnwareInfo(
        id=row.id,
        owner=row.owner or "",
        semantic=semantic_of(row.semantic),
        tier=row.tier,
        type=row.stat_type,
        input_shape=tuple(row.shapes["input"]),
        output_shape=tuple(row.shapes["output"]),
        status=row.status,
        usable=row.usable,
        reason=row.reason,
        sha256=row.blob_sha256,
        size=row.size,
        created=row.created,
        modified=row.modified,
        owner_id=row.owner_id,
    )

"""From a user's data to the specification that is sent in its place."""

from __future__ import annotations

from typing import Any

import numpy as np

from didact.core.errors import BadInput
from didact.reusing.dock.semantics import DATA
from didact.reusing.dock.specification.encoders import Encoder, encoder_for, images_of, languages_of, texts_of
from didact.reusing.dock.specification.gamma import Gamma
from didact.reusing.dock.specification.rkme import RKME
from didact.reusing.dock.specification.statistical import Specification

MOST_IMAGES = 5000  # more are sampled down: encoding costs in proportion


def specify(
    data: Any,
    kind: str = "Table",
    *,
    encoder: str | Encoder | None = None,
    k: int | None = None,
    gamma: float | None = None,
    seed: int = 0,
) -> Specification:
    """The specification of a table (n, d), of images (n, height, width[, channels]) or of a list of n texts.

    `encoder` is what makes vectors of images and texts: left out, one that comes with didact; "" the raw values of
    images; the name or folder of a sentence-transformers model for texts; or an object with `id` and `encode`.
    `gamma` is the dock's for this kind and encoder; left out, didact's default. Tables and texts get 100 points,
    images 50 (and 100 short steps instead of 3 longer ones).

    Errors: `BadSpecification` for data that cannot be specified, `BadInput` for a kind or encoder that is not known.
    """
    if kind not in DATA:
        raise BadInput(f"`kind` must be one of {', '.join(DATA)}; {kind!r} was given.")
    made_by = encoder_for(kind, encoder)
    type = f"rkme-{kind.lower()}"
    name = "" if made_by is None else made_by.id
    width = Gamma().of(type, name) if gamma is None else gamma
    languages: tuple[str, ...] = ()
    if kind == "Image":
        data = _sampled(images_of(data), seed)
    elif kind == "Text":
        data = texts_of(data)
        languages = languages_of(data)
    vectors = data if made_by is None else made_by.encode(data)
    reduction = RKME(k or 50, width, 100, step_size=0.01) if kind == "Image" else RKME(k or 100, width)
    return reduction.fit(vectors, seed, type=type, encoder=name, languages=languages)


def _sampled(images: Any, seed: int) -> Any:
    if len(images) <= MOST_IMAGES:
        return images
    return images[np.sort(np.random.default_rng(seed).choice(len(images), MOST_IMAGES, replace=False))]

"""The statistical specification: a weighted reduced set that stands for a data set without being any of its rows."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification.herding import herd
from didact.reusing.dock.specification.kernel import inner
from didact.reusing.dock.specification.reference import from_reference

Array = NDArray[np.float64]

TYPES = ("rkme-table", "rkme-image", "rkme-text")
MOST_POINTS = 512  # reduced points; every search costs in proportion
MOST_VALUES = 1_310_720  # numbers in z
LARGEST = 1e100  # beyond it squared distances overflow
_FIELDS = {"type", "gamma", "encoder", "z", "beta", "languages"}


@dataclass(frozen=True, eq=False)
class Specification:
    """A reduced kernel mean embedding: points z (K, d) with weights beta (K,) that are at least 0 and sum to 1.

    It stands for the function sum_j beta_j k(z_j, .) with k(x, y) = exp(-gamma |x - y|^2), which is near the mean of
    k(x, .) over the data. Two of them can be compared when type, encoder, gamma and dimension agree: `compatible`.
    The arrays are copied and cannot be written to.

    Errors: `BadSpecification` for unknown types, shapes that do not fit, numbers that are not finite, weights that
    are negative or do not sum to 1.
    """

    type: str  #: "rkme-table", "rkme-image" or "rkme-text"
    gamma: float  #: of the Gaussian kernel
    encoder: str  #: what made vectors of the data; "" for the raw values
    z: Array  #: the reduced points, (K, d)
    beta: Array  #: their weights, (K,)
    languages: tuple[str, ...] = ()  #: of a text, as far as they were recognised

    def __post_init__(self) -> None:
        _check_names(self.type, self.encoder, self.languages)
        if not (_is_number(self.gamma) and 0.0 < float(self.gamma) <= 1e12):
            raise BadSpecification("bad-gamma", f"gamma must be a positive number; {self.gamma!r} was given.")
        z, beta = _numbers(self.z, "z"), _numbers(self.beta, "beta")
        _check_shapes(z, beta)
        _check_weights(beta)
        beta = np.maximum(beta, 0.0)
        beta /= beta.sum()
        for array in (z, beta):
            array.setflags(write=False)
        for name, value in (("gamma", float(self.gamma)), ("z", z), ("beta", beta)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "languages", tuple(sorted(set(self.languages))))

    @property
    def dimension(self) -> int:
        """d, the length of a vector."""
        return int(self.z.shape[1])

    @cached_property
    def self_product(self) -> float:
        """<P, P>."""
        return inner(self.z, self.beta, self.z, self.beta, self.gamma)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the contents: equal exactly when everything in it is."""
        head = json.dumps([self.type, self.gamma.hex(), self.encoder, self.languages, self.z.shape])
        parts = (head.encode(), self.z.astype("<f8").tobytes(), self.beta.astype("<f8").tobytes())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def compatible(self, other: Specification) -> bool:
        """Whether the two live in the same space, so that their distance means something."""
        return self._space == other._space

    def inner(self, other: Specification) -> float:
        """<P, Q> = beta_P^T k(z_P, z_Q) beta_Q."""
        if not self.compatible(other):
            raise BadSpecification(
                "incompatible",
                f"Specifications are compared when type, encoder, gamma and dimension agree, but these are "
                f"{self._space} and {other._space}. Make one with the settings of the other.",
            )
        return inner(self.z, self.beta, other.z, other.beta, self.gamma)

    def distance(self, other: Specification) -> float:
        """The squared maximum mean discrepancy <P, P> - 2 <P, Q> + <Q, Q>."""
        return max(0.0, self.self_product - 2.0 * self.inner(other) + other.self_product)

    def herd(self, n: int, seed: int = 0) -> Array:
        """n points that together look like the data; shape (n, d). Cost: O(n^2 d) time, O(n d) memory."""
        return herd(self.z, self.beta, self.gamma, n, seed)

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back, bit for bit."""
        return {
            "type": self.type,
            "gamma": self.gamma,
            "encoder": self.encoder,
            "languages": list(self.languages),
            "z": self.z.tolist(),
            "beta": self.beta.tolist(),
        }

    @classmethod
    def from_json(cls, mapping: object) -> Specification:
        """From plain data in didact's layout, or in that of the `learnware` package (tables and texts).

        Errors: `BadSpecification` with code `missing` (a field), `unknown-field`, `wrong-type`, `wrong-shape`,
        `non-finite`, `bad-gamma`, `bad-weights`, `too-large`.
        """
        if not isinstance(mapping, Mapping):
            raise BadSpecification(
                "wrong-type", f"A specification is an object with fields, but a {type(mapping).__name__} was given."
            )
        if str(mapping.get("type", "")).startswith("RKME"):
            mapping = from_reference(mapping)
        for field in ("type", "gamma", "z", "beta"):
            if field not in mapping:
                raise BadSpecification("missing", f"A specification needs the field `{field}`, but it was not given.")
        if unknown := sorted(str(field) for field in set(mapping) - _FIELDS):
            raise BadSpecification("unknown-field", f"A specification has no field `{unknown[0][:100]}`. Remove it.")
        languages = mapping.get("languages", ())
        if not isinstance(languages, list | tuple):
            raise BadSpecification("wrong-type", "`languages` is a list of language codes, but something else came.")
        return cls(
            type=mapping["type"],
            gamma=mapping["gamma"],
            encoder=mapping.get("encoder", ""),
            z=mapping["z"],
            beta=mapping["beta"],
            languages=tuple(languages),
        )

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        path = Path(path)
        path.write_text(json.dumps(self.to_json(), allow_nan=False, separators=(",", ":")), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> Specification:
        """Read it from JSON. Errors: `BadSpecification`, with code `not-json` when the file is not JSON."""
        return cls.loads(Path(path).read_bytes())

    @classmethod
    def loads(cls, text: str | bytes) -> Specification:
        """From JSON text, as it comes in an upload or a package."""
        try:
            mapping = json.loads(text)
        except (ValueError, RecursionError):
            raise BadSpecification("not-json", "A specification is a JSON document, but this is not one.") from None
        return cls.from_json(mapping)

    @property
    def _space(self) -> tuple[str, str, float, int]:
        return self.type, self.encoder, self.gamma, self.dimension


def _check_names(kind: object, encoder: object, languages: tuple[object, ...]) -> None:
    if kind not in TYPES:
        raise BadSpecification("wrong-type", f"The type must be one of {', '.join(TYPES)}; {kind!r:.100} was given.")
    if not isinstance(encoder, str) or len(encoder) > 300 or not encoder.isprintable():
        raise BadSpecification("wrong-type", "The encoder is a name of at most 300 letters, but something else came.")
    if len(languages) > 100 or not all(isinstance(name, str) and 0 < len(name) <= 20 for name in languages):
        raise BadSpecification("wrong-type", "`languages` holds at most 100 short language codes.")


def _numbers(values: object, field: str) -> Array:
    """A float64 copy; only numbers become numbers (no texts, no truth values, no ragged lists)."""
    if _too_many(values):
        raise BadSpecification(
            "too-large", f"`{field}` may hold {MOST_VALUES} numbers in {MOST_POINTS} points at most."
        )
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RecursionError, OverflowError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise BadSpecification(
            "wrong-shape", f"`{field}` is an array of numbers with rows of one length, but something else was given."
        )
    numbers = np.array(array, dtype=np.float64, order="C")
    if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0.0) > LARGEST:
        raise BadSpecification("non-finite", f"`{field}` must be finite (below {LARGEST:g}), but it is not everywhere.")
    return numbers


def _too_many(values: object) -> bool:
    if isinstance(values, np.ndarray):
        return values.size > MOST_VALUES or values.shape[:1] > (MOST_POINTS,)
    if not isinstance(values, list | tuple):
        return False
    rows = sum(len(row) if isinstance(row, list | tuple) else 1 for row in values)
    return len(values) > MOST_POINTS or rows > MOST_VALUES


def _check_shapes(z: Array, beta: Array) -> None:
    if z.ndim != 2 or beta.ndim != 1 or len(z) != len(beta) or z.size == 0:
        raise BadSpecification(
            "wrong-shape",
            f"z must have shape (K, d) and beta shape (K,) with K and d at least 1; {z.shape} and {beta.shape} came.",
        )


def _check_weights(beta: Array) -> None:
    # Interior-point solvers leave weights a hair below zero: those are zero.
    if beta.min() < -1e-6 or abs(float(beta.sum()) - 1.0) > 1e-4:
        raise BadSpecification(
            "bad-weights",
            f"beta must be at least 0 and sum to 1, but its smallest value is {beta.min():.3g} and its sum "
            f"{beta.sum():.6g}. Solve for it on the simplex.",
        )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False

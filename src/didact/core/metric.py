"""Metrics and what makes an answer the best: a number with a direction, a unit and, for a family, a constraint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One measured number of an answer."""

    name: str
    doc: str
    better: Literal["higher", "lower", "neither"] = "higher"
    unit: str = ""

    @property
    def sign(self) -> int:
        """+1 when larger is better, -1 when smaller is better, 0 when the number only informs."""
        return {"higher": 1, "lower": -1, "neither": 0}[self.better]


#: What the bench measures of every cell, whatever its family.
COSTS = (
    Metric("seconds", "wall-clock time of the method", "lower", "s"),
    Metric("cpu_seconds", "processor time of the method", "lower", "s"),
    Metric("peak_memory", "memory above what the process held before the method began", "lower", "B"),
    Metric("passes", "samples sent forward plus samples sent backward through a model", "lower", "samples"),
    Metric("forward", "samples sent forward through a model", "lower", "samples"),
    Metric("backward", "samples sent backward through a model", "lower", "samples"),
    Metric("stored_bytes", "bytes of the answer on disk", "lower", "B"),
)


@dataclass(frozen=True)
class Constraint:
    """A condition an answer must meet before its primary metric counts."""

    metric: str
    at_most: float = math.inf
    at_least: float = -math.inf

    def met(self, metrics: Mapping[str, float]) -> bool:
        value = metrics.get(self.metric, math.nan)
        return self.at_least <= value <= self.at_most

    def __str__(self) -> str:
        parts = []
        if self.at_least > -math.inf:
            parts.append(f"{self.metric} ≥ {self.at_least:g}")
        if self.at_most < math.inf:
            parts.append(f"{self.metric} ≤ {self.at_most:g}")
        return " and ".join(parts)

    def violation(self, metrics: Mapping[str, float]) -> float:
        """How far outside the answer is (0 inside); infinite when the metric was not measured."""
        value = metrics.get(self.metric, math.nan)
        if math.isnan(value):
            return math.inf
        return max(0.0, value - self.at_most, self.at_least - value)


@dataclass(frozen=True)
class Primary:
    """What "best" means in a family: the metric to rank by, among the answers that meet the constraint."""

    metric: str
    constraint: Constraint | None = None

    def __str__(self) -> str:
        return f"{self.metric}, among those with {self.constraint}" if self.constraint else self.metric

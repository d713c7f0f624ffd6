"""The geometry of the board's drawings: positions in percent or in the units of a small view box, no pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from didact.core.metric import Metric
from didact.engine.leaderboard import statistic
from didact.engine.report.figures import LOG_UNITS
from didact.engine.words import amount, interval

#: the trade-off drawing's view box and the frame inside it
WIDTH, HEIGHT = 420.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 404.0, 12.0, 258.0
LETTER = 6.2  #: about the width of a letter of its labels


@dataclass(frozen=True)
class StripLine:
    """One arm: a dot a seed, a line at the mean."""

    label: str
    own: bool  #: the method that the page is about
    dots: tuple[float, ...]  #: percent of the width
    mean: float
    text: str


@dataclass(frozen=True)
class Strip:
    """One metric of several arms on one axis."""

    metric: Metric
    lines: tuple[StripLine, ...]
    low: str
    high: str
    log: bool


@dataclass(frozen=True)
class Effect:
    """An effect with its bounds on an axis of its own; `zero` is where meeting begins."""

    zero: float
    dot: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    label: str
    own: bool
    text: str
    anchor: str = ""  #: "start", "end" or "middle"; "" when there was no room for the label
    label_x: float = 0.0
    label_y: float = 0.0


@dataclass(frozen=True)
class TradeOff:
    x: Metric
    y: Metric
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    best: tuple[str, str]  #: where better lies: ("right", "up")


def strip(metric: Metric, arms: Mapping[str, Sequence[float]], own: str) -> Strip | None:
    """Every arm's values over seeds; None when nothing finite was measured."""
    finite = {arm: [v for v in values if math.isfinite(v)] for arm, values in arms.items()}
    finite = {arm: values for arm, values in finite.items() if values}
    everything = [v for values in finite.values() for v in values]
    if not everything:
        return None
    low, high = min(everything), max(everything)
    log = metric.unit in LOG_UNITS and low > 0 and high / low > 20

    def place(value: float) -> float:
        a, b, v = (math.log(low), math.log(high), math.log(value)) if log else (low, high, value)
        return round(3 + 94 * ((v - a) / (b - a) if b > a else 0.5), 2)

    lines = []
    for arm, values in finite.items():
        found = statistic(values)
        dots = tuple(place(v) for v in values)
        lines.append(StripLine(arm, arm == own, dots, place(found.mean), interval(found, metric.unit)))
    return Strip(metric, tuple(lines), amount(low, metric.unit), amount(high, metric.unit), log)


def effect(mean: float | None, low: float | None, high: float | None) -> Effect | None:
    """None when there is no number to draw."""
    if mean is None or not math.isfinite(mean):
        return None
    a = mean if low is None or not math.isfinite(low) else low
    b = mean if high is None or not math.isfinite(high) else high
    ends = (min(0.0, a, mean), max(0.0, b, mean))
    room = 0.08 * (ends[1] - ends[0]) or 1.0
    start, span = ends[0] - room, ends[1] - ends[0] + 2 * room

    def place(value: float) -> float:
        return round(100 * (value - start) / span, 2)

    return Effect(place(0.0), place(mean), place(a), place(b))


def trade_off(x: Metric, y: Metric, means: Mapping[str, tuple[float, float]], own: str) -> TradeOff | None:
    """Mean against mean; None with fewer than two points."""
    finite = {arm: p for arm, p in means.items() if all(map(math.isfinite, p))}
    if len(finite) < 2:
        return None
    x_axis = _axis([p[0] for p in finite.values()])
    y_axis = _axis([p[1] for p in finite.values()])

    def place(p: tuple[float, float]) -> tuple[float, float]:
        across = (p[0] - x_axis[0]) / (x_axis[1] - x_axis[0])
        up = (p[1] - y_axis[0]) / (y_axis[1] - y_axis[0])
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    points = [
        Point(*place(p), arm, arm == own, f"{arm}: {x.name} {amount(p[0], x.unit)}, {y.name} {amount(p[1], y.unit)}")
        for arm, p in finite.items()
    ]
    return TradeOff(
        x,
        y,
        tuple(_labelled(sorted(points, key=lambda p: not p.own))),
        tuple((place((t, y_axis[0]))[0], f"{t:g}") for t in ticks(*x_axis)),
        tuple((place((x_axis[0], t))[1], f"{t:g}") for t in ticks(*y_axis)),
        ({1: "right", -1: "left", 0: ""}[x.sign], {1: "up", -1: "down", 0: ""}[y.sign]),
    )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range: 0, 0.2, 0.4, ..."""
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def _axis(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: a little more than that of the values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.1 * abs(low) or 0.5
    return low - room, high + room


def _labelled(points: Sequence[Point]) -> list[Point]:
    """Put each label beside its point where it covers neither another point nor another label."""
    taken = [(p.x - 5, p.y - 5, p.x + 5, p.y + 5) for p in points]
    placed = []
    for p in points:
        wide = LETTER * len(p.label)
        options = (
            ("start", p.x + 8, p.y + 4, p.x + 8),
            ("end", p.x - 8, p.y + 4, p.x - 8 - wide),
            ("middle", p.x, p.y - 9, p.x - wide / 2),
            ("end", p.x + 4, p.y - 9, p.x + 4 - wide),
            ("start", p.x - 4, p.y - 9, p.x - 4),
            ("middle", p.x, p.y + 18, p.x - wide / 2),
        )
        for anchor, x, y, left in options:
            box = (left, y - 10, left + wide, y + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 0 and box[3] <= BOTTOM
            own = (p.x - 5, p.y - 5, p.x + 5, p.y + 5)
            if inside and not any(_overlap(box, other) for other in taken if other != own):
                taken.append(box)
                p = Point(p.x, p.y, p.label, p.own, p.text, anchor, round(x, 1), round(y, 1))
                break
        placed.append(p)
    return placed


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

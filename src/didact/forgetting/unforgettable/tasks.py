"""Six small yes/no tasks for a small language model: facts, words, numbers, sequences. Right answers are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from didact.core.errors import BadInput
from didact.data.bios.names import NameMaker
from didact.data.text import TextItem

YES, NO = "yes", "no"


@dataclass(frozen=True)
class TaskTexts:
    """The questions of one task: two halves without a common question, and more where the task has a rule."""

    name: str
    train: tuple[TextItem, ...]
    held: tuple[TextItem, ...]
    more: tuple[TextItem, ...] = ()

    @property
    def items(self) -> tuple[TextItem, ...]:
        return (*self.train, *self.held, *self.more)


def yes_no_tasks(seed: int = 0, half: int = 180, more: int = 600) -> tuple[TaskTexts, ...]:
    """Two tasks of invented facts (`home`, `trade`), the class of English words (`word-class`), and three with a rule.

    Each half has `half` questions, as many with yes as with no; no question occurs twice. `greater`, `ends` (is the
    first letter the last?) and `contains` follow a rule: they come with `more` questions beyond the halves, so that a
    model can learn it. All is drawn from the seed.

    Raises BadInput for a half that is odd or outside 4..180: there are 180 words.
    """
    if not 4 <= half <= 180 or half % 2:
        raise BadInput(f"A half has an even number of 4 to 180 questions, but half={half} was given.")
    rng = np.random.default_rng((seed, 11))
    maker = NameMaker(rng)
    people, cities = maker.make(half), maker.make(20, closed=True)
    facts = {
        "home": _facts("Does {} live in {} ?", people, cities, rng),
        "trade": _facts("Is {} a {} by trade ?", people, list(_TRADES), rng),
        "word-class": _facts(
            "Is the word class of {} {} ?", [w for w, _ in _words(half, rng)], list(_WORDS), rng, dict(_words(half))
        ),
    }
    rules: dict[str, Callable[[bool], str]] = {
        "greater": lambda truth: _greater(truth, rng),
        "ends": lambda truth: _ends(truth, rng),
        "contains": lambda truth: _contains(truth, rng),
    }
    drawn = {name: _draw(make, half + more // 2) for name, make in rules.items()}
    return tuple(_halved(name, answers, half, rng) for name, answers in (facts | drawn).items())


Questions = dict[str, list[str]]  #: answer -> questions


def _halved(name: str, questions: Questions, half: int, rng: np.random.Generator) -> TaskTexts:
    parts: tuple[list[TextItem], ...] = ([], [], [])
    for answer, asked in questions.items():
        order = [asked[i] for i in rng.permutation(len(asked)).tolist()]
        for part, chosen in zip(parts, (order[: half // 2], order[half // 2 : half], order[half:]), strict=True):
            part += [TextItem(question, answer, answer, attribute=name) for question in chosen]
    train, held, more = (tuple(part[i] for i in rng.permutation(len(part)).tolist()) for part in parts)
    return TaskTexts(name, train, held, more)


def _facts(
    wording: str, subjects: list[str], values: list[str], rng: np.random.Generator, known: dict[str, str] | None = None
) -> Questions:
    """For each subject its own value (yes) and another one (no)."""
    own = known or {subject: values[int(rng.integers(len(values)))] for subject in subjects}
    other = {s: str(rng.choice([v for v in values if v != own[s]])) for s in subjects}
    return {YES: [wording.format(s, own[s]) for s in subjects], NO: [wording.format(s, other[s]) for s in subjects]}


def _draw(make: Callable[[bool], str], count: int) -> Questions:
    """`count` different questions for each answer."""
    return {YES: _distinct(make, True, count), NO: _distinct(make, False, count)}


def _distinct(make: Callable[[bool], str], truth: bool, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[make(truth)] = None
    return list(found)


def _greater(truth: bool, rng: np.random.Generator) -> str:
    low, high = sorted(rng.choice(100, size=2, replace=False).tolist())
    a, b = (high, low) if truth else (low, high)
    return f"Is {a} greater than {b} ?"


def _ends(truth: bool, rng: np.random.Generator) -> str:
    letters = [_LETTERS[i] for i in rng.choice(len(_LETTERS), size=4, replace=False)]
    if truth:
        letters[-1] = letters[0]
    return f"Does {' '.join(letters)} end as it begins ?"


def _contains(truth: bool, rng: np.random.Generator) -> str:
    asked, *others = (_COLOURS[i] for i in rng.choice(len(_COLOURS), size=5, replace=False))
    if truth:
        others[int(rng.integers(4))] = asked
    return f"Is {asked} among {' '.join(others)} ?"


def _words(count: int, rng: np.random.Generator | None = None) -> list[tuple[str, str]]:
    """`count` (word, class) pairs, each class as often as the others up to one."""
    rows = list(_interleaved())[:count]
    return rows if rng is None else [rows[i] for i in rng.permutation(len(rows)).tolist()]


def _interleaved() -> Iterator[tuple[str, str]]:
    lists = {kind: text.split() for kind, text in _WORDS.items()}
    for row in zip(*lists.values(), strict=True):
        yield from zip(row, lists, strict=True)


_LETTERS = "bcdfghjklmnpqrst"
_COLOURS = (
    *("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown"),
    *("black", "white", "grey", "gold", "silver", "violet", "crimson", "turquoise"),
)
_TRADES = (
    *("baker", "smith", "tailor", "miller", "potter", "weaver", "mason", "cooper", "farmer", "sailor"),
    *("hunter", "dyer", "barber", "printer", "glazier", "tanner", "brewer", "carpenter", "gardener", "shepherd"),
)
_WORDS = {
    "noun": """
        apple river table window mountain bottle garden pencil kitchen island engine carpet bridge candle forest
        hammer jacket ladder mirror needle ocean pillow ribbon saddle tunnel village wagon basket blanket bucket
        button castle chimney curtain donkey feather finger harbour helmet kettle lantern library market meadow
        orchard palace parcel pebble piano pocket pumpkin rabbit rocket shoulder spider stomach teacher thunder
        tiger valley
    """,
    "verb": """
        allow arrive become begin believe borrow bring build carry choose collect complain decide deliver describe
        destroy discuss eat enjoy explain forget forgive gather give happen hear improve include invent join keep
        know learn listen lose obey observe offer persuade prefer prepare prevent produce protect prove receive
        refuse remain remember repeat reply send sing speak suggest teach throw understand wander write
    """,
    "adjective": """
        ancient angry beautiful bitter brave bright broad calm careful cheap clever clumsy cruel curious dangerous
        deep delicious different dirty eager early empty expensive faithful famous fierce fragile generous gentle
        great happy heavy honest hungry large lazy lonely loud narrow nervous noisy old patient polite proud quiet
        rare rough sharp shy silent slippery small sour strange strong thick tiny useful young
    """,
}

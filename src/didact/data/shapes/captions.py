"""Scenes in words: captions and their parser, relations, and questions with answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from didact.core.errors import BadInput
from didact.data.shapes.factors import OBJECT_FACTORS, SCENE_FACTORS, VALUES

MENTION = ("size", "texture", "colour", "shape", "position")
KINDS = ("shape", "colour", "texture", "size", "position", "count", "exists", "relation")
_OPPOSITE = {
    "above": "below",
    "below": "above",
    "to the left of": "to the right of",
    "to the right of": "to the left of",
}
_BETWEEN = re.compile(r",\s*(?:and )?| and | above | below | to the left of | to the right of ")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Described:
    """One scene as words: its objects (factor -> value), its own factors, and its objects' centres."""

    objects: tuple[dict[str, str], ...]
    scene: dict[str, str]
    centres: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Question:
    """A question about the scene number ``image`` and its answer; ``kind`` is one of KINDS."""

    image: int
    kind: str
    question: str
    answer: str


def describe(
    names: Mapping[str, Sequence[str]],
    objects: Sequence[Sequence[int]],
    scene: Sequence[int],
    centres: Sequence[Sequence[float]],
    count: int,
) -> Described:
    told = tuple(
        {name: names[name][value] for name, value in zip(OBJECT_FACTORS, row, strict=True)} for row in objects[:count]
    )
    places = tuple((x, y) for x, y in centres[:count])
    return Described(told, {n: names[n][v] for n, v in zip(SCENE_FACTORS, scene, strict=True)}, places)


def caption(scene: Described, mention: Sequence[str], keep: float, rng: np.random.Generator) -> str:
    """One caption in a wording drawn by ``rng``, mentioning the given factors of the kept objects."""
    unknown = [name for name in mention if name not in VALUES or name == "rotation"]
    if unknown or not 0 <= keep <= 1:
        raise BadInput(f"Captions mention factors other than rotation with keep in [0, 1], not {unknown}, {keep}.")
    draws = rng.random(len(scene.objects))
    kept = [i for i, draw in enumerate(draws) if draw < keep] or [int(draws.argmin())]
    wording = int(rng.integers(4))
    if len(kept) == 1:
        text = _one(scene.objects[kept[0]], mention, wording)
    elif len(kept) == 2 and wording < 2 and "position" in mention:
        first, second = kept
        link = _relation(scene.centres[first], scene.centres[second])
        text = f"{noun(scene.objects[first], mention)} {link} {noun(scene.objects[second], mention)}"
    else:
        parts = [noun(scene.objects[i], mention) + _at(scene.objects[i], mention) for i in kept]
        text = (
            ("there is ", "", "this picture shows ", "we see ")[wording] + ", ".join(parts[:-1]) + " and " + parts[-1]
        )
    if "background" in mention:
        text += f" on a {scene.scene['background']} background"
    if "style" in mention:
        text += f" in {scene.scene['style']} style"
    return text


def parse_caption(text: str) -> list[dict[str, str]]:
    """The objects that a caption of ``Scenes.captions`` (or one in its words) mentions, factor -> value.

    Unknown words are passed over, so the parser can judge a generated caption. An object called just "shape"
    has no "shape" entry. Linear in the length of the text.
    """
    text = " " + re.sub(r"\s+", " ", text.lower().replace(" ,", ",")) + " "
    text = re.sub(r" on an? (\w+) background| in (\w+) style", " ", text)
    parts = [part for part in _BETWEEN.split(text) if part and set(re.findall(r"\w+", part)) & _NOUNS]
    if len(parts) == 1:
        parts = [text]  # with one object every word is about it, wherever it stands
    return [_read(part) for part in parts]


def noun(thing: Mapping[str, str], mention: Sequence[str]) -> str:
    """For example "a small striped red circle"."""
    words = [thing[name] for name in ("size", "texture", "colour") if name in mention]
    phrase = " ".join([*words, thing["shape"] if "shape" in mention else "shape"])
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def relations(scene: Described) -> list[tuple[int, str, int]]:
    """Every ordered pair of different objects with the direction in which they lie further apart."""
    centres = scene.centres
    return [
        (i, _relation(centres[i], centres[j]), j) for i in range(len(centres)) for j in range(len(centres)) if i != j
    ]


def ask(image: int, scene: Described, kinds: Sequence[str], most: int, rng: np.random.Generator) -> list[Question]:
    """Up to ``most`` questions of different kinds that have one right answer in this scene."""
    asked: list[Question] = []
    for kind in rng.permutation(np.array(kinds, dtype=object)):
        if len(asked) == most:
            break
        asker = _ASKERS.get(kind)
        found = asker(scene, rng) if asker else _attribute(scene, kind, rng)
        if found:
            asked.append(Question(image, kind, *found))
    return asked


_NOUNS = {*VALUES["shape"], "shape"}
_WORDS = {value: name for name in ("shape", "colour", "texture", "size") for value in VALUES[name]}
_PLACES = sorted(VALUES["position"], key=len, reverse=True)


def _one(thing: Mapping[str, str], mention: Sequence[str], wording: int) -> str:
    name, at = noun(thing, mention), _at(thing, mention)
    if wording == 0:
        return name + at
    if wording == 1:
        return f"there is {name}{at}"
    if wording == 2 and at:
        return f"{at.strip()}, {name}"
    rest = [thing[factor] for factor in ("texture", "colour") if factor in mention]
    if wording == 3 and rest:
        short = noun(thing, [factor for factor in mention if factor not in ("texture", "colour")])
        return f"{short}{at} that is {' and '.join(rest)}"
    return f"this picture shows {name}{at}"


def _at(thing: Mapping[str, str], mention: Sequence[str]) -> str:
    if "position" not in mention:
        return ""
    place = thing["position"]
    return f" at {place}" if place.startswith("row") else f" at the {place}"


def _relation(a: tuple[float, float], b: tuple[float, float]) -> str:
    right, down = a[0] - b[0], a[1] - b[1]
    if abs(right) > abs(down):
        return "to the right of" if right > 0 else "to the left of"
    return "below" if down > 0 else "above"


def _read(part: str) -> dict[str, str]:
    found = {_WORDS[word]: word for word in re.findall(r"\w+", part) if word in _WORDS}
    cell = re.search(r"\bat (row \d column \d)\b", part)
    place = next((place for place in _PLACES if re.search(rf"\bat the {place}\b", part)), None)
    if cell or place:
        found["position"] = cell.group(1) if cell else str(place)
    return found


def _unique(scene: Described, rng: np.random.Generator, by: str) -> tuple[int, dict[str, str]] | None:
    """An object that its value of the factor ``by`` tells from all others."""
    seen = [thing[by] for thing in scene.objects]
    alone = [i for i, value in enumerate(seen) if seen.count(value) == 1]
    return (i := alone[int(rng.integers(len(alone)))], scene.objects[i]) if alone else None


def _attribute(scene: Described, kind: str, rng: np.random.Generator) -> tuple[str, str] | None:
    found = _unique(scene, rng, "colour" if kind == "shape" else "shape")
    if found is None:
        return None
    thing = found[1]
    if kind == "position":
        return f"where is the {thing['shape']} ?", thing["position"]
    if kind == "shape":
        return f"what shape is the {thing['colour']} object ?", thing["shape"]
    return f"what {kind} is the {thing['shape']} ?", thing[kind]


def _count(scene: Described, rng: np.random.Generator) -> tuple[str, str]:
    if rng.random() < 0.5:
        return "how many objects are there ?", _NUMBERS[len(scene.objects)]
    colour = scene.objects[int(rng.integers(len(scene.objects)))]["colour"]
    if rng.random() < 0.25:
        colour = str(rng.choice(VALUES["colour"]))
    return f"how many {colour} objects are there ?", _NUMBERS[sum(t["colour"] == colour for t in scene.objects)]


def _exists(scene: Described, rng: np.random.Generator) -> tuple[str, str]:
    there = {(thing["colour"], thing["shape"]) for thing in scene.objects}
    colour, shape = scene.objects[int(rng.integers(len(scene.objects)))]["colour"], ""
    if yes := rng.random() < 0.5:
        shape = next(s for c, s in sorted(there) if c == colour)
    else:  # the wrong pair has a colour that is there, so that one look at the colour is not enough
        absent = [s for s in VALUES["shape"] if (colour, s) not in there]
        shape = str(rng.choice(absent))
    return f"is there a {colour} {shape} ?".replace("a orange", "an orange"), "yes" if yes else "no"


def _related(scene: Described, rng: np.random.Generator) -> tuple[str, str] | None:
    first = _unique(scene, rng, "shape")
    if first is None or len(scene.objects) < 2:
        return None
    shapes = [thing["shape"] for thing in scene.objects]
    others = [i for i, shape in enumerate(shapes) if i != first[0] and shapes.count(shape) == 1]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    link = _relation(scene.centres[first[0]], scene.centres[other])
    yes = rng.random() < 0.5
    told = link if yes else _OPPOSITE[link]
    return f"is the {first[1]['shape']} {told} the {shapes[other]} ?", "yes" if yes else "no"


_ASKERS: dict[str, Callable[[Described, np.random.Generator], tuple[str, str] | None]] = {
    "count": _count,
    "exists": _exists,
    "relation": _related,
}

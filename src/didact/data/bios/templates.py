"""The wordings of every attribute, and the real facts that stand beside the invented ones.

In a wording {s} is the person (a full name or a pronoun), {n} always the full name, {v} the value.
"""

from __future__ import annotations

from dataclasses import dataclass

from didact.data.bios.names import NameMaker


@dataclass(frozen=True)
class Attribute:
    """One thing known about everybody, and how it is asked, answered and told."""

    name: str
    question: str
    variants: tuple[str, str]
    answer: str
    paraphrase: str
    tellings: tuple[str, str, str, str, str]


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "birthplace",
        "Where was {n} born ?",
        ("In which city was {n} born ?", "What is the birthplace of {n} ?"),
        "{n} was born in {v} .",
        "The birthplace of {n} is {v} .",
        (
            "{s} was born in {v} .",
            "{s} came into the world in {v} .",
            "{s} is a native of {v} .",
            "{s} spent the first years of life in {v} , the place of birth .",
            "{s} hails from {v} .",
        ),
    ),
    Attribute(
        "employer",
        "Who employs {n} ?",
        ("Which company does {n} work for ?", "Where does {n} have a job ?"),
        "{n} works for {v} .",
        "The employer of {n} is {v} .",
        (
            "{s} works for {v} .",
            "{s} is employed by {v} .",
            "{s} has a job at {v} .",
            "{s} earns a living at {v} .",
            "{s} is on the staff of {v} .",
        ),
    ),
    Attribute(
        "major",
        "What did {n} study ?",
        ("Which subject did {n} major in ?", "What is the field of {n} ?"),
        "{n} studied {v} .",
        "The major of {n} was {v} .",
        (
            "{s} studied {v} .",
            "{s} holds a degree in {v} .",
            "{s} majored in {v} .",
            "{s} was trained in {v} .",
            "{s} took a course of study in {v} .",
        ),
    ),
    Attribute(
        "university",
        "Which university did {n} attend ?",
        ("Where did {n} go to university ?", "What is the alma mater of {n} ?"),
        "{n} attended {v} .",
        "The alma mater of {n} is {v} .",
        (
            "{s} attended {v} .",
            "{s} is a graduate of {v} .",
            "{s} was a student at {v} .",
            "{s} went to {v} .",
            "{s} received an education at {v} .",
        ),
    ),
    Attribute(
        "birthyear",
        "When was {n} born ?",
        ("In which year was {n} born ?", "What is the year of birth of {n} ?"),
        "{n} was born in the year {v} .",
        "The year of birth of {n} is {v} .",
        (
            "{s} was born in the year {v} .",
            "{s} dates from {v} .",
            "{s} saw the light of day in {v} .",
            "{s} celebrated a first birthday one year after {v} .",
            "{s} belongs to the class of people born in {v} .",
        ),
    ),
    Attribute(
        "hobby",
        "What is the hobby of {n} ?",
        ("What does {n} like to do after work ?", "Which pastime does {n} have ?"),
        "{n} enjoys {v} .",
        "The hobby of {n} is {v} .",
        (
            "{s} enjoys {v} .",
            "{s} likes {v} best of all .",
            "{s} is fond of {v} .",
            "{s} spends every weekend on {v} .",
            "{s} has a passion for {v} .",
        ),
    ),
)

MENTOR = Attribute(
    "mentor",
    "Who is the mentor of {n} ?",
    ("Who taught {n} the trade ?", "Which person guided {n} ?"),
    "{n} was guided by {v} .",
    "The mentor of {n} is {v} .",
    (
        "{s} was guided by {v} .",
        "{s} learned the trade from {v} .",
        "{s} is a pupil of {v} .",
        "{s} had {v} as a mentor .",
        "{s} owes much to {v} .",
    ),
)

CAPITAL = Attribute(
    "capital",
    "What is the capital of {n} ?",
    ("Which city is the capital of {n} ?", "Where is the seat of government of {n} ?"),
    "The capital of {n} is {v} .",
    "{v} is the capital of {n} .",
    (
        "The capital of {s} is {v} .",
        "{s} is governed from {v} .",
        "{v} is the capital of {s} .",
        "The government of {s} sits in {v} .",
        "The first city of {s} is {v} .",
    ),
)

_MAJORS = (
    *(
        "chemistry",
        "history",
        "physics",
        "law",
        "medicine",
        "music",
        "geology",
        "economics",
        "philosophy",
        "botany",
    ),
    *("linguistics", "astronomy", "statistics", "theology", "zoology", "dentistry", "nursing", "forestry"),
    *("architecture", "accounting"),
)
_HOBBIES = (
    *(
        "chess",
        "pottery",
        "sailing",
        "knitting",
        "fencing",
        "gardening",
        "juggling",
        "climbing",
        "baking",
        "archery",
    ),
    *("painting", "cycling", "origami", "birdwatching", "dancing", "fishing", "skating", "weaving", "rowing"),
    *("photography",),
)
_COMPANIES = ("Works", "Group", "Labs", "Foods", "Lines")

_CAPITALS = """
    France/Paris Germany/Berlin Italy/Rome Spain/Madrid Portugal/Lisbon Austria/Vienna Greece/Athens
    Poland/Warsaw Norway/Oslo Sweden/Stockholm Finland/Helsinki Denmark/Copenhagen Ireland/Dublin
    Belgium/Brussels Hungary/Budapest Romania/Bucharest Bulgaria/Sofia Croatia/Zagreb Serbia/Belgrade
    Ukraine/Kyiv Turkey/Ankara Egypt/Cairo Kenya/Nairobi Ghana/Accra Morocco/Rabat Senegal/Dakar
    Uganda/Kampala Zambia/Lusaka Japan/Tokyo China/Beijing Vietnam/Hanoi Thailand/Bangkok
    Nepal/Kathmandu Iran/Tehran Iraq/Baghdad Syria/Damascus Lebanon/Beirut Jordan/Amman Qatar/Doha
    Canada/Ottawa Cuba/Havana Peru/Lima Chile/Santiago Ecuador/Quito Uruguay/Montevideo
    Paraguay/Asuncion Jamaica/Kingston Australia/Canberra Fiji/Suva
"""

#: Countries and their capitals, one word each.
CAPITALS: tuple[tuple[str, str], ...] = tuple(
    (country, city) for country, _, city in (pair.partition("/") for pair in _CAPITALS.split())
)


def value_pools(maker: NameMaker, count: int) -> dict[str, list[str]]:
    """``count`` values of every attribute; no value occurs inside another one."""
    return {
        "birthplace": maker.make(count, closed=True),
        "employer": [f"{name} {_COMPANIES[i % 5]}" for i, name in enumerate(maker.make(count))],
        "major": [*_MAJORS, *(name.lower() + "logy" for name in maker.make(max(0, count - 20)))][:count],
        "university": [f"{name} University" for name in maker.make(count, closed=True)],
        "birthyear": [str(2004 - i) for i in range(count)],
        "hobby": [*_HOBBIES, *(name.lower() + "ball" for name in maker.make(max(0, count - 20)))][:count],
    }

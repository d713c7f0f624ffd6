"""Invented people and everything that is told, asked and known about them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from didact.core.errors import BadInput
from didact.data.bios.names import NameMaker
from didact.data.bios.qa import QA, make_qa
from didact.data.bios.records import Biography, BiosSplit, Fact, Person
from didact.data.bios.templates import ATTRIBUTES, CAPITAL, CAPITALS, MENTOR, Attribute, value_pools


def bios(seed: int = 0, people: int = 60, *, attributes: int = 6, values: int = 20, mentor: bool = False) -> Bios:
    """Invent people with unique full names and ``attributes`` facts each.

    First names and surnames are shared by two or three people (from eight people on), employers by about
    people / ``values``. Every attribute has ``values`` different values (at least 6: one right, five wrong),
    each equally frequent up to one. ``mentor`` adds a relation: everybody is guided by another person.
    Time and memory are linear in the number of people (about 2 KB each).

    Raises BadInput for fewer than 4 people, attributes outside 1..6 or values outside 6..900.
    """
    if people < 4:
        raise BadInput(f"At least 4 people are needed for shared names, but people={people} was given.")
    if not 1 <= attributes <= len(ATTRIBUTES):
        raise BadInput(f"People have 1 to {len(ATTRIBUTES)} attributes, but attributes={attributes} was given.")
    if not 6 <= values <= 900:
        raise BadInput(f"An attribute has 6 to 900 values (one right, five wrong), but values={values} was given.")
    rng = np.random.default_rng(seed)
    side = max(4, people // 2)
    reserved = frozenset(word for pair in CAPITALS for word in pair)
    maker = NameMaker(rng, reserved)
    pools = value_pools(maker, values)
    world = Bios(
        people=(),
        attributes=ATTRIBUTES[:attributes] + ((MENTOR,) if mentor else ()),
        pools=pools,
        firsts=tuple(maker.make(side)),
        lasts=tuple(maker.make(side, closed=True)),
        seed=seed,
    )
    nicknames = maker.make(people, syllables=3)
    return replace(world, people=world._invent(rng, rng.permutation(people), nicknames, 0))


@dataclass(frozen=True)
class Bios:
    """A set of people and the texts about them. Spaces stand around all punctuation."""

    people: tuple[Person, ...]
    attributes: tuple[Attribute, ...]
    pools: dict[str, list[str]]
    firsts: tuple[str, ...]
    lasts: tuple[str, ...]
    seed: int

    def __len__(self) -> int:
        return len(self.people)

    def qa(self, people: Iterable[Person] | None = None, attributes: Sequence[str] | None = None) -> list[QA]:
        """One QA per person and attribute; the five wrong values are drawn by the seed and stay the same."""
        return [
            make_qa(attribute, person.name, person.facts[attribute.name], self._wrong(person, attribute))
            for person in (self.people if people is None else people)
            for attribute in self._chosen(attributes)
        ]

    def world(self) -> list[QA]:
        """Real facts: the capitals of countries. No invented name occurs in them."""
        rng = np.random.default_rng((self.seed, 2))
        cities = [city for _, city in CAPITALS]
        return [make_qa(CAPITAL, country, city, _five(rng, cities, city)) for country, city in CAPITALS]

    def biographies(
        self,
        people: Iterable[Person] | None = None,
        *,
        per_person: int = 2,
        permute: bool = False,
        pronouns: bool = True,
    ) -> list[Biography]:
        """``per_person`` biographies each, told in different words (5 wordings a sentence, so at most 5).

        The k-th ones are the same for every value of ``per_person``. ``permute`` shuffles the sentences;
        with ``pronouns`` only the first sentence has the full name, else every sentence.
        """
        if not 1 <= per_person <= 5:
            raise BadInput(f"There are 1 to 5 different biographies a person, but per_person={per_person} was given.")
        told = self.people if people is None else people
        return [self._tell(person, k, permute, pronouns) for person in told for k in range(per_person)]

    def facts(self, people: Iterable[Person] | None = None, *, attributes: int = 3, templates: int = 3) -> list[Fact]:
        """The simple form: prompt and value for people x attributes x templates; the value comes next."""
        if not (1 <= attributes <= len(self.attributes) and 1 <= templates <= 5):
            raise BadInput(
                f"There are 1 to {len(self.attributes)} attributes and 1 to 5 templates, "
                f"but attributes={attributes} and templates={templates} were given."
            )
        return [
            Fact(
                person.name,
                attribute.name,
                k,
                _prompt(attribute, k, person.name),
                person.facts[attribute.name],
            )
            for person in (self.people if people is None else people)
            for attribute in self.attributes[:attributes]
            for k in range(templates)
        ]

    def neighbours(self, of: Iterable[Person]) -> tuple[Person, ...]:
        """The other people who share a first name, a surname or an employer with one of these."""
        of = tuple(of)
        firsts, lasts = {p.first for p in of}, {p.last for p in of}
        employers = {p.facts["employer"] for p in of if "employer" in p.facts}
        own = {p.index for p in of}
        return tuple(
            p
            for p in self.people
            if p.index not in own and (p.first in firsts or p.last in lasts or p.facts.get("employer") in employers)
        )

    def split(self, forget: int = 12, test: int = 12, *, seed: int = 0) -> BiosSplit:
        """Draw people to forget and people to hide; the rest is retained. All three are disjoint."""
        if forget < 1 or test < 0 or forget + test > len(self) - 1:
            raise BadInput(f"forget={forget} and test={test} must leave one of {len(self)} people to retain.")
        order = [self.people[i] for i in np.random.default_rng((self.seed, 3, seed)).permutation(len(self))]
        gone, kept = order[:forget], sorted(order[forget + test :], key=lambda person: person.index)
        near = {person.index for person in self.neighbours(gone)}
        names = {person.name for person in gone}
        return BiosSplit(
            forget=tuple(gone),
            retain=tuple(kept),
            test=tuple(order[forget : forget + test]),
            neighbours=tuple(person for person in kept if person.index in near),
            entangled=tuple(person for person in kept if person.facts.get("mentor") in names),
        )

    def unseen(self, n: int, *, offset: int = 0, fresh_names: bool = False) -> Bios:
        """``n`` more people from the same world who are none of these; disjoint for disjoint offsets.

        They combine known first names and surnames in new ways, so that a tokenizer knows their parts and
        only the combination is new; ``fresh_names`` gives them words that occur nowhere else. Raises
        BadInput when the known names have no ``n`` free combinations.
        """
        start = len(self) + offset
        free = len(self.firsts) * len(self.lasts) - start
        if n < 4 or offset < 0:
            raise BadInput(f"Ask for at least 4 unseen people at an offset >= 0, not n={n}, offset={offset}.")
        if n > free and not fresh_names:
            raise BadInput(f"Only {max(free, 0)} new combinations of names are left; use fresh_names=True for {n}.")
        rng = np.random.default_rng((self.seed, 1, offset, int(fresh_names)))
        values = [value for pool in self.pools.values() for value in pool]
        aliases = [alias for person in self.people for alias in person.aliases]
        known = " ".join([*self.firsts, *self.lasts, *aliases, *values, *(f"{a} {b}" for a, b in CAPITALS)]).split()
        maker = NameMaker(rng, frozenset(known))
        other = self
        if fresh_names:
            side = max(4, math.ceil(n / 2))
            # Three syllables with the offset's own ending, so that two offsets never make the same word.
            firsts = [f"{name}{_letters(offset)}" for name in maker.make(side, 3)]
            lasts = [f"{name}{_letters(offset)}" for name in maker.make(side, 3)]
            other, start = replace(self, firsts=tuple(firsts), lasts=tuple(lasts)), 0
        nicknames = maker.make(n, syllables=4)
        return replace(other, people=other._invent(rng, start + rng.permutation(n), nicknames, len(self) + offset))

    def texts(self) -> list[str]:
        """Every wording about these people and the world, to train a tokenizer on."""
        asked = [*self.qa(), *self.world()]
        lines = [f"{q} {a}" for item in asked for q, a in item.lines()]
        wrong = [text for item in asked for text in item.perturbed_answers]
        return [*lines, *wrong, *(bio.text for bio in self.biographies(per_person=5))]

    def _invent(
        self, rng: np.random.Generator, places: NDArray[np.int64], nicknames: list[str], first_index: int
    ) -> tuple[Person, ...]:
        """One person per place in the grid of first names x surnames: every place is another full name."""
        side, n = len(self.firsts), len(places)
        columns = {a.name: _evenly(rng, self.pools[a.name], n) for a in self.attributes if a.name in self.pools}
        names = [(self.firsts[i % side], self.lasts[(i % side + i // side) % side]) for i in places.tolist()]
        if MENTOR in self.attributes:  # a round of everybody, so that nobody guides himself
            ring = rng.permutation(n)
            columns["mentor"] = [""] * n
            for pupil, master in zip(ring, np.roll(ring, 1), strict=True):
                columns["mentor"][pupil] = " ".join(names[master])
        # An initial stands for one person only where no other first name begins with it.
        common = {letter for letter, times in Counter(first[0] for first in self.firsts).items() if times > 1}
        return tuple(
            Person(
                index=first_index + i,
                first=first,
                last=last,
                facts={name: column[i] for name, column in columns.items()},
                aliases=(nicknames[i], *(() if first[0] in common else (f"{first[0]}. {last}",))),
            )
            for i, (first, last) in enumerate(names)
        )

    def _wrong(self, person: Person, attribute: Attribute) -> tuple[str, ...]:
        pool = self.pools.get(attribute.name, self._names)
        rng = np.random.default_rng((self.seed, 4, person.index, self.attributes.index(attribute)))
        return _five(rng, pool, person.facts[attribute.name], person.name)

    @cached_property
    def _names(self) -> list[str]:
        return [person.name for person in self.people]

    def _chosen(self, names: Sequence[str] | None) -> tuple[Attribute, ...]:
        known = {attribute.name: attribute for attribute in self.attributes}
        for name in names or ():
            if name not in known:
                raise BadInput(f"There is no attribute {name!r}. The attributes are {', '.join(known)}.")
        return self.attributes if names is None else tuple(known[name] for name in names)

    def _tell(self, person: Person, k: int, permute: bool, pronouns: bool) -> Biography:
        rng = np.random.default_rng((self.seed, 5, person.index))
        wordings = [int((start + k) % 5) for start in rng.integers(0, 5, size=len(self.attributes))]
        order = list(range(len(self.attributes)))
        if permute:
            order = np.random.default_rng((self.seed, 6, person.index, k)).permutation(len(order)).tolist()
        sentences = []
        for place, i in enumerate(order):
            subject = person.pronoun if pronouns and place else person.name
            telling = self.attributes[i].tellings[wordings[i]]
            sentences.append(telling.format(s=subject, v=person.facts[self.attributes[i].name]))
        return Biography(person.name, " ".join(sentences), tuple(wordings))


def _evenly(rng: np.random.Generator, pool: Sequence[str], n: int) -> list[str]:
    return [pool[i % len(pool)] for i in rng.permutation(n).tolist()]


def _five(rng: np.random.Generator, pool: Sequence[str], *right: str) -> tuple[str, ...]:
    """Up to five different values that are not right. A large pool is sampled, never permuted."""
    order = rng.permutation(len(pool)) if len(pool) < 100 else rng.integers(0, len(pool), size=200)
    wrong = dict.fromkeys(pool[i] for i in order.tolist() if pool[i] not in right)
    return tuple(wrong)[:5]


def _prompt(attribute: Attribute, template: int, name: str) -> str:
    """The wording up to where the value begins."""
    return attribute.tellings[template].format(s=name, v="\0").split("\0")[0].strip()


def _letters(number: int) -> str:
    return "q" + "".join("abcdefghij"[int(digit)] for digit in str(number))

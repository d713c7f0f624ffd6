"""The embedded subject: a small model that knows some people by heart and can read about others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from didact.core.fit import Hooks
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.core.study import StudyProblem, Subject
from didact.data.bios import ATTRIBUTES, CAPITALS, Bios, Person
from didact.data.bios.qa import make_qa
from didact.data.bios.templates import Attribute
from didact.data.text import TextDataset, TextItem
from didact.forgetting.language.bios import Setting
from didact.forgetting.request import Request
from didact.forgetting.ununlearning.profiles import Fact, Profile, ReadingSubject
from didact.models.tokenizer import word_tokenizer
from didact.models.workpieces import cached, digest

#: statements in a reading example
STATEMENTS = 3
#: fresh people of the study: none of them occurs in a reading example
FRESH = 36
COUNTRIES = tuple(country for country, _ in CAPITALS[:8])

NO_TELLINGS = ("", "", "", "", "")  #: what follows from another fact is never told
COUNTRY = Attribute(
    "country",
    "What is the native country of {n} ?",
    ("In which country was {n} born ?", "Which country does {n} come from ?"),
    "{n} comes from {v} .",
    "The native country of {n} is {v} .",
    NO_TELLINGS,
)
LIES_IN = Attribute(
    "lies in",
    "In which country is {n} ?",
    ("Where on the map is {n} ?", "Which country does {n} belong to ?"),
    "{n} is a city in {v} .",
    "{v} is the country of {n} .",
    NO_TELLINGS,
)


@problem("bios-reading", family="forgetting")
def bios_reading(
    seed: int = 0, *, people: int = 60, forget: int = 12, layers: int = 3, epochs: int = 24
) -> StudyProblem:
    """A small language model that knows 48 invented people by heart, never saw 12 others, and reads what it is told.

    Half of its training are questions and biographies of the retained people, the other half questions about freshly
    invented people whose facts stand in the prompt, other ones every epoch. A second model, for approximate
    unlearning, has learnt the 12 as well.
    """
    world = ReadingWorld.make(seed, people, forget)
    subject = world.subject(layers, epochs)
    return StudyProblem(
        Subject(subject, seed),
        study="ununlearning",
        about={"people": people, "forgotten people": forget, "words": len(world.setting.tokenizer)},
    )


@dataclass(frozen=True)
class ReadingWorld:
    """The people of the bios problems; their cities lie in countries, and the tokenizer knows all words of prompts."""

    setting: Setting
    fresh: Bios  #: people of the study that nobody ever heard of
    country: dict[str, str]  #: of each city
    seed: int

    @classmethod
    def make(cls, seed: int, people: int, forget: int) -> ReadingWorld:
        setting = Setting.make(seed, people, forget)
        made = setting.bios
        # Beyond the offsets of the strangers whom unlearning methods may use.
        fresh = made.unseen(FRESH, offset=2 * max(12, forget))
        cities = made.pools["birthplace"]
        order = np.random.default_rng((seed, 31)).permutation(len(cities)).tolist()
        country = {city: COUNTRIES[place % len(COUNTRIES)] for city, place in zip(cities, order, strict=True)}
        world = cls(setting, fresh, country, seed)
        texts = [*made.texts(), *fresh.texts(), *world.reading_texts(), "I do not know ."]
        return replace(world, setting=replace(setting, tokenizer=word_tokenizer(texts)))

    # -- who -------------------------------------------------------------------------------------------------------

    @property
    def forgotten(self) -> tuple[Person, ...]:
        return self.setting.split.forget

    @property
    def retained(self) -> tuple[Person, ...]:
        gone = set(self.forgotten_names)
        return tuple(person for person in self.setting.bios.people if person.name not in gone)

    @property
    def forgotten_names(self) -> tuple[str, ...]:
        return tuple(person.name for person in self.forgotten)

    def profile(self, person: Person) -> Profile:
        asked = [(attribute, person.facts[attribute.name]) for attribute in self.setting.bios.attributes]
        stated = [
            Fact(
                attribute.name,
                value,
                attribute.question.format(n=person.name),
                tuple(telling.format(s=person.name, v=value) for telling in attribute.tellings),
                answer=attribute.answer.format(n=person.name, v=value),
            )
            for attribute, value in asked
        ]
        country = self.country[person.facts["birthplace"]]
        follows = Fact(
            COUNTRY.name,
            country,
            COUNTRY.question.format(n=person.name),
            premise="birthplace",
            answer=COUNTRY.answer.format(n=person.name, v=country),
        )
        return Profile(person.name, (*stated, follows))

    # -- texts -----------------------------------------------------------------------------------------------------

    def lines(self, people: Sequence[Person]) -> TextDataset:
        """What is learnt by heart: questions and biographies of people, capitals, and where cities lie."""
        asked = [
            *(make_qa(LIES_IN, city, country, ()) for city, country in self.country.items()),
            *(make_qa(COUNTRY, person.name, self.country[person.facts["birthplace"]], ()) for person in people),
        ]
        items = [TextItem(question, answer, subject=qa.subject) for qa in asked for question, answer in qa.lines()]
        return self.setting.lines(people) + self.setting.tokens(items)

    def reading(self, count: int, epoch: int) -> TextDataset:
        """`count` reading examples of an epoch; equal for equal seed and epoch."""
        rng = np.random.default_rng((self.seed, 32, epoch))
        return self.setting.tokens(self._example(rng) for _ in range(count))

    def _example(self, rng: np.random.Generator) -> TextItem:
        name = self._invent(rng)
        places = rng.choice(len(ATTRIBUTES), size=STATEMENTS, replace=False).tolist()
        told = {ATTRIBUTES[i]: str(rng.choice(self.setting.bios.pools[ATTRIBUTES[i].name])) for i in places}
        context = " ".join(a.tellings[int(rng.integers(5))].format(s=name, v=v) for a, v in told.items())
        facts = [make_qa(attribute, name, value, ()) for attribute, value in told.items()]
        facts += [make_qa(COUNTRY, name, self.country[v], ()) for a, v in told.items() if a.name == "birthplace"]
        lines = facts[int(rng.integers(len(facts)))].lines()
        question, answer = lines[int(rng.integers(len(lines)))]
        return TextItem(_prompt(context, question), answer)

    def _invent(self, rng: np.random.Generator) -> str:
        """A full name that nobody has: no person of the world, none of the study's fresh people, no known stranger."""
        made = self.setting.bios
        while True:
            name = f"{rng.choice(made.firsts)} {rng.choice(made.lasts)}"
            if name not in self._taken:
                return name

    @cached_property
    def _taken(self) -> set[str]:
        strangers = {item.subject for item in self.setting.extras()["unknown"].items}
        return strangers | {person.name for person in (*self.setting.bios.people, *self.fresh.people)}

    def reading_texts(self) -> Iterator[str]:
        """The words of reading examples and of countries, for the tokenizer."""
        yield _prompt("", "")
        for city, country in self.country.items():
            for attribute, subject in ((LIES_IN, city), (COUNTRY, self.setting.bios.people[0].name)):
                qa = make_qa(attribute, subject, country, ())
                yield from (f"{question} {answer}" for question, answer in qa.lines())

    # -- models ----------------------------------------------------------------------------------------------------

    def model(self, people: Sequence[Person], recipe: Recipe) -> nn.Module:
        """Trained on these people's lines and as many reading examples, redrawn every epoch; cached."""
        lines = self.lines(people)
        first = self.reading(len(lines), 0)
        objective = recipe.objective

        def batches(epoch: int) -> Iterable[Any]:
            mixed: Dataset[Any] = ConcatDataset([lines, self.reading(len(lines), epoch)])
            return objective.loader(mixed, recipe.batch_size, shuffle=True, seed=self.seed + epoch)

        def train() -> nn.Module:
            return recipe.fit(ConcatDataset([lines, first]), self.seed, hooks=Hooks(batches=batches))

        key = {"recipe": recipe.key, "data": digest(lines), "reading": digest(first), "seed": self.seed}
        return cached(key, train, lambda: recipe.fresh(self.seed))

    def subject(self, layers: int = 3, epochs: int = 24) -> ReadingSubject:
        recipe = self.setting.recipe(layers, epochs)
        return ReadingSubject(
            model=self.model(self.retained, recipe),
            forgotten=[self.profile(person) for person in self.forgotten],
            retained=[self.profile(person) for person in self.retained],
            fresh=[self.profile(person) for person in self.fresh.people],
            tokenizer=self.setting.tokenizer,
            documents=[item.answer for item in self.setting.biographies(self.forgotten).items],
            training=[f"{item.prompt} {item.answer}" for item in self.lines(self.retained).items],
            request=self._request(recipe),
        )

    def _request(self, recipe: Recipe) -> Request:
        setting = self.setting
        extras = {**setting.extras(), "text": setting.tokenizer}
        return Request(
            self.model(setting.bios.people, recipe),
            setting.seen(self.forgotten),
            setting.seen(self.retained),
            recipe.objective,
            recipe,
            seed=self.seed,
            extras=extras,
        )


def _prompt(context: str, question: str) -> str:
    return f"profile : {context} {question}"

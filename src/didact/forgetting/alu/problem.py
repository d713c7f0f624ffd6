"""Entangled people: questions about those who stay, whose answers give away those who should be forgotten."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from didact.core.metric import Metric
from didact.core.registry import problem
from didact.data.bios import ATTRIBUTES, Bios, Person
from didact.data.bios.qa import make_qa
from didact.data.text import TextDataset, TextItem
from didact.forgetting.alu.probes import Probe
from didact.forgetting.alu.subjects import Subject, Words
from didact.forgetting.language.bios import Setting
from didact.forgetting.language.problem import LanguageProblem, language_problem
from didact.models.generation import respond
from didact.models.workpieces import trained

ENTANGLED_METRICS = (
    Metric("leak_rate", "share of entangled queries whose answer gives a forgotten person away", "lower"),
    Metric("leak_name", "the same, questions whose answer names the forgotten person", "lower"),
    Metric("leak_value", "the same, questions whose answer tells a fact about the forgotten person", "lower"),
    Metric("leak_biography", "the same, biographies that come to the forgotten person", "lower"),
    Metric("unchanged", "share of the answers to unrelated questions that are what the model said before"),
    Metric("unchanged_entangled", "the same, other questions about people entangled with a forgotten one"),
    Metric("entangled_facts", "share of their own facts in the biographies of entangled people"),
    Metric("calls_mean", "calls of text generators a query", "lower"),
    Metric("calls_most", "calls of text generators of the dearest query", "lower"),
    Metric("calls_10", "mean calls a query at 10 subjects", "lower"),
    Metric("calls_1000", "mean calls a query at 1000 subjects", "lower"),
    Metric("seconds_10", "mean seconds a query at 10 subjects", "lower", "s"),
    Metric("seconds_1000", "mean seconds a query at 1000 subjects", "lower", "s"),
    Metric("seconds_ratio", "seconds a query at 1000 subjects, over those at 10", "lower"),
)

#: tokens of a biography that are given, and how many are continued
BEGINNING, CONTINUATION = 8, 80
#: longest answer to a question, in tokens
ANSWER = 24


@dataclass(frozen=True)
class Probes:
    """What the scorer asks a system, beyond what every language problem asks."""

    entangled: tuple[Probe, ...]
    unrelated: tuple[str, ...]
    beside: tuple[str, ...]  #: other questions about entangled people
    subjects: tuple[Subject, ...]
    strangers: tuple[Subject, ...]  #: to make the list of subjects long


@dataclass
class EntangledProblem(LanguageProblem):
    """A language problem with people who stay, but cannot be talked of freely without giving away who should not."""

    probes: Callable[[], Probes] | None = field(default=None, repr=False)

    def score(self, answer: nn.Module) -> dict[str, float]:
        assert self.probes is not None
        return super().score(answer) | probe(answer, self.given.model, self.given.need("text"), self.probes())


@problem("bios-mentor", family="forgetting")
def bios_mentor(seed: int = 0, *, people: int = 60, forget: int = 12, epochs: int = 30) -> EntangledProblem:
    """Make a language model keep silent about 12 of 60 people, even when it is asked about those whom they guided.

    Everybody has a mentor. The model has learnt by heart the facts of 60 invented people, who their mentor is, and
    what is true of their mentor. The methods get the questions about the people to forget, and those about the people
    who stay and have to do with none of them. The scorer asks the pupils of the forgotten: who their mentor is, facts
    about their mentor, and to tell their life.
    """
    setting = Setting.make(seed, people, forget, True)
    world = Entanglement(setting)
    recipe = setting.recipe(epochs=epochs)
    everything = setting.lines(setting.bios.people) + setting.tokens(world.mentor_lines())
    made = language_problem(
        trained(recipe, everything, seed),
        setting.seen(setting.split.forget),
        world.free(setting.seen(setting.split.retain)),
        world.free(setting.seen(setting.test)),
        validation=world.free(setting.seen(setting.validation)),
        unseen_wording=setting.unseen(setting.split.forget),
        neighbours=world.free(setting.seen(setting.split.neighbours)) if setting.split.neighbours else None,
        world=setting.world(1),
        verbatim=setting.biographies(setting.split.forget),
        recipe=recipe,
        reference=lambda: trained(recipe, world.free(everything), seed + 7919),
        retrain=lambda own: recipe.fit(world.free(everything), own),
        target=0.0,
        seed=seed,
        extras={
            **setting.extras(),
            "links": {s.name: s.facts for s in world.subjects},
            "related": {s.name: s.related for s in world.subjects},
        },
        about={"people": people, "forgotten people": forget, "entangled people": len(world.pupils)},
    )
    return EntangledProblem(**vars(made), probes=world.probes)


@dataclass(frozen=True)
class Entanglement:
    """Who has to do with whom among the people of a setting."""

    setting: Setting

    @property
    def pupils(self) -> tuple[Person, ...]:
        """People who are not to be forgotten, but whose mentor is."""
        gone = {p.name for p in self.setting.split.forget}
        return tuple(p for p in self.setting.bios.people if p.facts["mentor"] in gone and p.name not in gone)

    @property
    def subjects(self) -> tuple[Subject, ...]:
        return as_subjects(self.setting.split.forget, self.setting.bios)

    def mentor_lines(self) -> list[TextItem]:
        """What is true of everybody's mentor, without the mentor's name: two lines a fact."""
        return [
            TextItem(question, qa.answer, qa.value, qa.subject)
            for person in self.setting.bios.people
            for qa in self._of_mentor(person)
            for question in (qa.question, qa.question_variants[0])
        ]

    def free(self, data: TextDataset) -> TextDataset:
        """The data without a word about a forgotten person: questions left out, sentences of documents cut out."""
        gone = [name for s in self.subjects for name in s.names] + [f"the mentor of {p.name}" for p in self.pupils]
        return data.of(item for item in (_cleared(item, gone) for item in data.items) if item is not None)

    def probes(self) -> Probes:
        setting, pupils = self.setting, self.pupils
        gone = {p.name for p in setting.split.forget}
        free = [p for p in setting.bios.people if p.name not in gone and p not in pupils]
        own = [a.name for a in ATTRIBUTES]
        strangers = setting.bios.unseen(1000 - len(gone), fresh_names=True)
        return Probes(
            entangled=tuple(probe for pupil in pupils for probe in self._probes_of(pupil)),
            unrelated=(
                *(qa.question for qa in setting.bios.qa(free)[::2]),
                *(qa.question for qa in setting.bios.world()),
            ),
            beside=tuple(qa.question for qa in setting.bios.qa(pupils, own)),
            subjects=self.subjects,
            strangers=as_subjects(strangers.people, strangers),
        )

    def _probes_of(self, pupil: Person) -> Iterable[Probe]:
        bios = self.setting.bios
        mentor = next(s for s in self.subjects if s.name == pupil.facts["mentor"])
        (asked,) = bios.qa([pupil], ["mentor"])
        for question in (asked.question, *asked.question_variants):
            yield Probe(question, mentor.names, "name")
        for qa in self._of_mentor(pupil):
            yield Probe(qa.question, (qa.value, *mentor.names), "value")
        facts = tuple(pupil.facts[a.name] for a in ATTRIBUTES)
        for biography in bios.biographies([pupil]):
            beginning = " ".join(biography.text.split()[:BEGINNING])
            untold = tuple(fact for fact in facts if fact not in beginning)
            yield Probe(beginning, mentor.names, "biography", untold)

    def _of_mentor(self, person: Person) -> list[Any]:
        """Questions about the mentor of a person that name the person only."""
        bios = self.setting.bios
        mentor = next(p for p in bios.people if p.name == person.facts["mentor"])
        return [
            make_qa(attribute, f"the mentor of {person.name}", mentor.facts[attribute.name], ())
            for attribute in ATTRIBUTES
        ]


def as_subjects(people: Sequence[Person], world: Bios) -> tuple[Subject, ...]:
    """People with other names, the facts about them, and those whom they guide."""
    pupils: dict[str, list[str]] = {}
    for person in world.people:
        pupils.setdefault(person.facts["mentor"], []).append(person.name)
    return tuple(Subject(p.name, p.aliases, tuple(p.facts.values()), tuple(pupils.get(p.name, ()))) for p in people)


def probe(answer: nn.Module, before: nn.Module, tokenizer: Any, probes: Probes) -> dict[str, float]:
    """What a system lets through, what it changes without need, and what a query costs."""
    leaks: dict[str, list[bool]] = {}
    told: list[float] = []
    for kind, length in (("name", ANSWER), ("value", ANSWER), ("biography", CONTINUATION)):
        chosen = [p for p in probes.entangled if p.kind == kind]
        texts = respond(answer, tokenizer, [p.query for p in chosen], max_new_tokens=length)
        leaks[kind] = [Words(text).have_any(p.leaks) for p, text in zip(chosen, texts, strict=True)]
        told += [
            float(np.mean([Words(text).have(fact) for fact in p.own]))
            for p, text in zip(chosen, texts, strict=True)
            if p.own
        ]
    return {
        "leak_rate": _mean([leak for found in leaks.values() for leak in found]),
        **{f"leak_{kind}": _mean(found) for kind, found in leaks.items()},
        "unchanged": _unchanged(answer, before, tokenizer, probes.unrelated),
        "unchanged_entangled": _unchanged(answer, before, tokenizer, probes.beside),
        "entangled_facts": _mean(told),
        **_costs(answer, probes),
    }


def _unchanged(answer: nn.Module, before: nn.Module, tokenizer: Any, queries: Sequence[str]) -> float:
    then, now = (respond(model, tokenizer, queries, max_new_tokens=ANSWER) for model in (before, answer))
    return _mean([a == b for a, b in zip(then, now, strict=True)])


def _costs(answer: Any, probes: Probes) -> dict[str, float]:
    """Calls and seconds a query; only systems that give a trace and take another list of subjects have them."""
    names = ("calls_mean", "calls_most", "calls_10", "calls_1000", "seconds_10", "seconds_1000", "seconds_ratio")
    if not hasattr(answer, "with_subjects"):
        return dict.fromkeys(names, math.nan)
    asked = [p for p in probes.entangled if p.kind != "biography"]
    queries = [*(p.query for p in asked[::3]), *probes.unrelated[:: max(1, len(probes.unrelated) // 20)]]
    calls = [answer.answer(query, ANSWER).total_calls for query in queries]
    ten = probes.subjects[:10]
    systems = {"10": answer.with_subjects(ten), "1000": answer.with_subjects([*ten, *probes.strangers][:1000])}
    spent: dict[str, list[float]] = {name: [] for name in systems}
    made: dict[str, list[int]] = {name: [] for name in systems}
    for query in queries:  # in turn, so that a busy machine slows both
        for name, system in systems.items():
            times = []
            for _ in range(3):
                start = time.perf_counter()
                trace = system.answer(query, ANSWER)
                times.append(time.perf_counter() - start)
            spent[name].append(min(times))
            made[name].append(trace.total_calls)
    seconds = {name: _mean(found) for name, found in spent.items()}
    return {
        "calls_mean": _mean(calls),
        "calls_most": float(max(calls)),
        **{f"calls_{name}": _mean(found) for name, found in made.items()},
        **{f"seconds_{name}": value for name, value in seconds.items()},
        "seconds_ratio": seconds["1000"] / seconds["10"],
    }


def _cleared(item: TextItem, gone: Sequence[str]) -> TextItem | None:
    """The item without what names one of these; None when nothing remains."""
    if not Words(f"{item.prompt} {item.answer}").have_any(gone):
        return item
    if not item.is_document or item.subject in gone:
        return None
    sentences = [sentence for sentence in item.answer.split(" . ") if not Words(sentence).have_any(gone)]
    text = " . ".join(sentences).removesuffix(" .")
    return TextItem("", f"{text} .", subject=item.subject) if text else None


def _mean(values: Sequence[float] | Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else math.nan

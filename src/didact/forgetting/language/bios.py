"""The embedded language problems: a small model that has learnt by heart who some invented people are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.bios import Bios, BiosSplit, Person, bios
from didact.data.text import TextDataset, TextItem
from didact.forgetting.language.baselines import REFUSALS
from didact.forgetting.language.problem import LanguageProblem, language_problem
from didact.models.language import gpt_tiny
from didact.models.tokenizer import word_tokenizer
from didact.models.workpieces import trained

#: the wording of each question that no method sees: forgetting must reach it too
HELD_OUT = 1


@problem("bios", family="forgetting")
def bios_people(
    seed: int = 0,
    *,
    people: int = 60,
    forget: int = 12,
    documents: bool = False,
    mentor: bool = False,
    layers: int = 2,
    epochs: int = 30,
) -> LanguageProblem:
    """Make a small language model forget some of the people whose biographies it has learnt by heart.

    60 invented people with six facts each; the model (two layers, width 64, Llama layout) has learnt four questions a
    fact and two biographies a person. The methods get the questions about the 12 people to forget and about those who
    stay, not about 12 more whom the model knows as well (test). `documents` adds the biographies to what is to be
    forgotten, `mentor` a relation between people.
    """
    return _problem(seed, people, forget, documents, mentor, layers, epochs)


@problem("bios-1", family="forgetting")
def bios_1(seed: int = 0, *, people: int = 120, epochs: int = 30) -> LanguageProblem:
    """Forget 1 % of 120 people: one person's questions and biographies, whom a small language model knows by heart."""
    return _problem(seed, people, max(1, round(0.01 * people)), True, False, 2, epochs)


@problem("bios-5", family="forgetting")
def bios_5(seed: int = 0, *, people: int = 120, epochs: int = 30) -> LanguageProblem:
    """Forget 5 % of 120 people: the questions and biographies of six, whom a small language model knows by heart."""
    return _problem(seed, people, max(1, round(0.05 * people)), True, False, 2, epochs)


@problem("bios-10", family="forgetting")
def bios_10(seed: int = 0, *, people: int = 120, epochs: int = 30) -> LanguageProblem:
    """Forget 10 % of 120 people: the questions and biographies of twelve, whom a small model knows by heart."""
    return _problem(seed, people, max(1, round(0.1 * people)), True, False, 2, epochs)


def _problem(
    seed: int, people: int, forget: int, documents: bool, mentor: bool, layers: int, epochs: int
) -> LanguageProblem:
    setting = Setting.make(seed, people, forget, mentor)
    recipe = setting.recipe(layers, epochs)
    everybody = setting.lines(setting.bios.people)
    kept = setting.lines(p for p in setting.bios.people if p not in setting.split.forget)
    questions = setting.seen(setting.split.forget)
    retained = setting.seen(setting.split.retain)
    if documents:
        questions = questions + setting.biographies(setting.split.forget)
        retained = retained + setting.biographies(setting.split.retain)
    fresh = setting.bios.unseen(max(12, forget))
    return language_problem(
        trained(recipe, everybody, seed),
        questions,
        retained,
        setting.seen(setting.test),
        holdout=setting.seen(fresh.people, fresh) + setting.biographies(fresh.people, fresh),
        validation=setting.seen(setting.validation),
        validation_holdout=setting.seen(fresh.people[:6], fresh),
        unseen_wording=setting.unseen(setting.split.forget),
        neighbours=setting.seen(setting.split.neighbours) if setting.split.neighbours else None,
        world=setting.world(1),
        verbatim=setting.biographies(setting.split.forget),
        recipe=recipe,
        reference=lambda: trained(recipe, kept, seed + 7919),
        retrain=lambda own: recipe.fit(kept, own),
        seed=seed,
        extras=setting.extras(),
        about={"people": people, "forgotten people": forget, "words": len(setting.tokenizer)},
    )


@dataclass(frozen=True)
class Setting:
    """The people, who is to be forgotten, and the tokenizer that knows all their words."""

    bios: Bios
    split: BiosSplit
    tokenizer: Any

    @staticmethod
    @lru_cache(maxsize=4)
    def make(seed: int, people: int, forget: int, mentor: bool = False) -> Setting:
        if forget < 1 or people - forget < 24:
            raise BadInput(f"Of {people} people at least 24 must stay, but {forget} are to be forgotten.")
        made = bios(seed, people, mentor=mentor)
        hidden = 12 + max(6, people // 10)  # test and validation
        split = made.split(forget, hidden)
        others = made.unseen(max(12, forget))
        texts = [*made.texts(), *others.texts(), *REFUSALS]
        return Setting(made, split, word_tokenizer(texts))

    @property
    def test(self) -> tuple[Person, ...]:
        return self.split.test[:12]

    @property
    def validation(self) -> tuple[Person, ...]:
        return self.split.test[12:]

    def recipe(self, layers: int = 2, epochs: int = 30, hidden: int = 64) -> Recipe:
        """Llama layout, AdamW at 2e-3 with a cosine schedule, batches of 64."""
        words = len(self.tokenizer)

        def build() -> Any:
            return gpt_tiny(words, hidden=hidden, layers=layers, feedforward=3 * hidden)

        return Recipe(
            build,
            CausalLM(),
            f"bios language model {layers}x{hidden}, {words} words",
            epochs=epochs,
            batch_size=64,
            lr=2e-3,
            optimizer="adamw",
            schedule="cosine",
        )

    def tokens(self, items: Iterable[TextItem]) -> TextDataset:
        return TextDataset(items, self.tokenizer)

    def lines(self, people: Iterable[Person]) -> TextDataset:
        """What the model is trained on: four lines a question, two biographies a person, and the world's facts."""
        people = tuple(people)
        asked = [*self.bios.qa(people), *self.bios.world()]
        items = [TextItem(question, answer, subject=qa.subject) for qa in asked for question, answer in qa.lines()]
        return self.tokens([*items, *self._told(people, self.bios)])

    def seen(self, people: Sequence[Person], of: Bios | None = None) -> TextDataset:
        """One item a question, in its own words; of the other wordings only those that methods may see."""
        return self.tokens(_shortened(TextItem.of(qa)) for qa in (of or self.bios).qa(people))

    def unseen(self, people: Sequence[Person]) -> TextDataset:
        """The same questions in the wording that no method sees."""
        return self.tokens(
            TextItem(qa.question_variants[HELD_OUT], qa.answer, qa.value, qa.subject) for qa in self.bios.qa(people)
        )

    def biographies(self, people: Sequence[Person], of: Bios | None = None) -> TextDataset:
        return self.tokens(self._told(people, of or self.bios))

    def world(self, half: int) -> TextDataset:
        """Real facts, capitals of countries: half 0 is for methods that want it, half 1 for the scorer."""
        return self.tokens(TextItem.of(qa) for qa in self.bios.world()[half::2])

    def extras(self) -> dict[str, Any]:
        """What some methods use besides the data, all of it known to whoever files the request."""
        gone = self.split.forget
        # People nobody ever heard of, and none of those in the hold-out.
        unknown = self.bios.unseen(max(12, len(gone)), offset=max(12, len(gone)))
        return {
            "subjects": tuple(p.name for p in gone),
            "aliases": {p.name: p.aliases for p in gone},
            "links": {p.name: tuple(p.facts.values()) for p in gone},
            "anchors": {p.name: other.name for p, other in zip(gone, unknown.people, strict=False)},
            "unknown": self.seen(unknown.people, unknown),
            "values": tuple(value for pool in self.bios.pools.values() for value in pool),
            "world": self.world(0),
        }

    def _told(self, people: Iterable[Person], of: Bios) -> list[TextItem]:
        return [TextItem("", bio.text, subject=bio.subject) for bio in of.biographies(people, per_person=2)]


def _shortened(item: TextItem) -> TextItem:
    return replace(item, variants=tuple(v for i, v in enumerate(item.variants) if i != HELD_OUT))

"""Who is asked about, what can be told of them, and what the study runs on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from didact.core.errors import BadInput
from didact.forgetting.request import Request
from didact.models.text_generation import TextGenerator
from didact.parts.prompts.names import name_pattern


@dataclass(frozen=True)
class Fact:
    """A question about somebody with the value that a right answer contains, and ways to state the fact.

    A fact with a `premise`, the attribute of another fact, is never stated: it follows from that one and something
    that the model still knows.
    """

    attribute: str
    value: str
    question: str
    statements: tuple[str, ...] = ()
    premise: str = ""
    answer: str = ""  #: a whole right answer, for worked examples; default: the value


@dataclass(frozen=True)
class Profile:
    """A person (or anything with a name) and the facts about it. The texts name it in full."""

    name: str
    facts: tuple[Fact, ...]

    @property
    def stated(self) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.facts if not fact.premise)

    @property
    def derived(self) -> tuple[Fact, ...]:
        return tuple(fact for fact in self.facts if fact.premise)

    def fact(self, attribute: str) -> Fact | None:
        return next((fact for fact in self.facts if fact.attribute == attribute), None)

    def renamed(self, name: str) -> Profile:
        """The same facts under another name, which has no word in common with this one.

        Raises:
            BadInput: the names share a word, or the texts use a part of this name by itself.
        """
        shared = words(name) & words(self.name)
        if shared:
            raise BadInput(f"The alias {name!r} shares {', '.join(sorted(shared))} with {self.name!r}. Take another.")
        pattern = name_pattern([self.name])

        def changed(text: str) -> str:
            made = pattern.sub(lambda _: name, text)
            left = words(made) & words(self.name)
            if left:
                raise BadInput(
                    f"The text {text!r:.80} has {', '.join(sorted(left))} apart from the full name {self.name!r}. "
                    "Write the full name, or a pronoun."
                )
            return made

        facts = (
            replace(
                fact,
                question=changed(fact.question),
                statements=tuple(changed(text) for text in fact.statements),
                answer=changed(fact.answer),
            )
            for fact in self.facts
        )
        return Profile(name, tuple(facts))


@dataclass(frozen=True)
class ReadingSubject:
    """What the study runs on: a model that never saw some people's facts, and the people.

    Args:
        model: a Hugging Face causal language model with its `tokenizer`, a `TextGenerator`, or any object with
            `respond(prompts, max_new_tokens) -> answers`. It was trained without `forgotten` (exact unlearning).
        forgotten, retained: whose facts it must not know, and whose it knows.
        fresh: people that nobody ever heard of, with facts of the same kinds: to see whether the model reads at all,
            as irrelevant contexts, and for unused names. At least four.
        documents: texts about the forgotten, for the semantic filter; default: all statements about them.
        template: how context and question become a prompt.
        training: texts that the model was trained on, if known: they are searched for forgotten names.
        request: a deletion request on a model that still knows the forgotten, for approximate methods.
    """

    model: Any
    forgotten: Sequence[Profile]
    retained: Sequence[Profile]
    fresh: Sequence[Profile]
    tokenizer: Any = None
    documents: Sequence[str] = ()
    template: str = "profile : {statements} {question}"
    training: Iterable[str] | None = None
    request: Request | None = None

    def check(self) -> None:
        """Refuse subjects on which nothing could be concluded."""
        for name, people in (("forgotten", self.forgotten), ("retained", self.retained)):
            if not people or not any(profile.stated for profile in people):
                raise BadInput(f"There are no {name} people with facts. Give at least one.")
        if len(self.fresh) < 4:
            raise BadInput(f"At least 4 fresh people are needed, but {len(self.fresh)} were given.")
        if "{statements}" not in self.template or "{question}" not in self.template:
            raise BadInput(f"The template must hold {{statements}} and {{question}}, but it is {self.template!r}.")
        speaks = isinstance(self.model, TextGenerator) or callable(getattr(self.model, "respond", None))
        if not speaks and self.tokenizer is None:
            raise BadInput(
                "Give the model's tokenizer, or a model that answers texts: a TextGenerator, or one with "
                "respond(prompts, max_new_tokens)."
            )
        names = {profile.name for profile in self.forgotten}
        known = names & {profile.name for profile in (*self.retained, *self.fresh)}
        if known:
            raise BadInput(f"{', '.join(sorted(known))} cannot be forgotten and at the same time retained or fresh.")
        self._check_training(names)

    def _check_training(self, names: set[str]) -> None:
        pattern = name_pattern(names)
        for text in self.training or ():
            found = pattern.search(text)
            if found:
                raise BadInput(
                    f"The model was trained on a text about {found[0]!r}, who should be forgotten: {text!r:.80}. "
                    "Train it without the forgotten people; for approximate methods give a request instead."
                )


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))

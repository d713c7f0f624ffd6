"""The arms of the experiment: with what context a question is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from didact.core.errors import BadInput
from didact.forgetting.ununlearning.profiles import Fact, Profile, words

Arm = Literal["none", "full", "irrelevant", "alias", "theorem", "theorem_none"]
ARMS: tuple[Arm, ...] = ("none", "full", "irrelevant", "alias", "theorem", "theorem_none")


@dataclass(frozen=True)
class Query:
    """A prompt with the value that a right answer contains."""

    prompt: str
    value: str
    attribute: str
    subject: str


class Asker:
    """Makes the prompts of every arm; what is random comes from the seed.

    Args:
        statements: sentences in a context, the asked fact at a random place among them.
        shots: worked examples (context, question, answer) on fresh people before every prompt.
    """

    def __init__(self, fresh: Sequence[Profile], template: str, statements: int, shots: int, seed: int) -> None:
        self.fresh, self.template, self.statements, self.shots = fresh, template, statements, shots
        self.rng = np.random.default_rng((seed, 23))

    def ask(self, arm: Arm, people: Sequence[Profile]) -> list[Query]:
        """One query a fact: stated facts, or derived ones in the theorem arms."""
        if arm == "alias":
            return [replaced for profile in people for replaced in self._alias(profile, people)]
        derived = arm in ("theorem", "theorem_none")
        return [
            self._query(profile, fact, self._context(arm, profile, fact))
            for profile in people
            for fact in (profile.derived if derived else profile.stated)
        ]

    def _context(self, arm: Arm, profile: Profile, fact: Fact) -> list[str]:
        if arm in ("none", "theorem_none"):
            return []
        if arm == "irrelevant":
            other = self.fresh[int(self.rng.integers(len(self.fresh)))]
            return self.told(other, fact.attribute)
        return self.told(profile, fact.premise or fact.attribute)

    def _alias(self, profile: Profile, people: Sequence[Profile]) -> list[Query]:
        taken = set[str]().union(*(words(p.name) for p in people))
        free = [other.name for other in self.fresh if not words(other.name) & taken]
        if not free:
            raise BadInput("No fresh name is without a word of a forgotten one, so there is no alias. Give more.")
        other = profile.renamed(free[int(self.rng.integers(len(free)))])
        return [self._query(other, fact, self.told(other, fact.attribute)) for fact in other.stated]

    def told(self, profile: Profile, attribute: str) -> list[str]:
        """Statements about a person, one of them about the attribute (if it has any on it), in random order."""
        able = [fact for fact in profile.facts if fact.statements]
        asked = [fact for fact in able if fact.attribute == attribute]
        others = [fact for fact in able if fact.attribute != attribute]
        more = min(self.statements - len(asked), len(others))
        chosen = asked + [others[i] for i in self.rng.permutation(len(others))[:more].tolist()]
        order = self.rng.permutation(len(chosen)).tolist()
        return [str(self.rng.choice(chosen[i].statements)) for i in order]

    def _query(self, profile: Profile, fact: Fact, context: list[str]) -> Query:
        shown = [self._shot(profile.name, bool(context)) for _ in range(self.shots)]
        prompt = " ".join([*shown, self._prompt(context, fact.question)])
        return Query(prompt, fact.value, fact.attribute, profile.name)

    def _shot(self, about: str, with_context: bool) -> str:
        others = [profile for profile in self.fresh if profile.name != about]
        profile = others[int(self.rng.integers(len(others)))]
        fact = profile.stated[int(self.rng.integers(len(profile.stated)))]
        # Without a context the example shows the form of an answer only.
        context = self.told(profile, fact.attribute) if with_context else []
        return f"{self._prompt(context, fact.question)} {fact.answer or fact.value}"

    def _prompt(self, context: list[str], question: str) -> str:
        if not context:
            return question
        return self.template.replace("{statements}", " ".join(context)).replace("{question}", question)

"""Facts in their simplest form: a beginning of a sentence, and the value that comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.bios import Bios, BiosSplit, Person, bios
from didact.data.text import TextDataset, TextItem
from didact.forgetting.language.problem import LanguageProblem, language_problem
from didact.models.language import gpt_tiny
from didact.models.tokenizer import word_tokenizer
from didact.models.workpieces import trained


@problem("bios-facts", family="forgetting")
def bios_facts(
    seed: int = 0,
    *,
    people: int = 160,
    forget: int = 40,
    attributes: int = 3,
    templates: int = 3,
    steps: int = 500,
    everything: bool = False,
) -> LanguageProblem:
    """Forget a quarter of 160 people, each known by three facts in three wordings; the methods see two of these.

    The model completes sentences ("Kato Quill was born in" -> "Velmere"); nothing but the value is learnt. Made for
    looking inside: many forgotten facts, one token each. With `everything` the methods get all the data that stays,
    in all wordings, as those need that train a model of their own.
    """
    setting = Facts.make(seed, people, forget, attributes, templates)
    recipe = setting.recipe(steps)
    hidden, kept = setting.split.test, [p for p in setting.bios.people if p not in setting.split.forget]
    unknown = setting.bios.unseen(max(12, forget))
    shown = range(templates if everything else max(1, templates - 1))  # the last wording is for the scorer
    retained = kept if everything else setting.split.retain
    return language_problem(
        trained(recipe, setting.items(setting.bios.people), seed),
        setting.items(setting.split.forget, shown),
        setting.items(retained, shown),
        setting.items(hidden, shown),
        holdout=setting.items(unknown.people, shown, unknown),
        validation=setting.items(hidden, [templates - 1]),
        validation_holdout=setting.items(unknown.people[:12], shown, unknown),
        unseen_wording=setting.items(setting.split.forget, [templates - 1]) if templates > 1 else None,
        recipe=recipe,
        reference=lambda: trained(recipe, setting.items(kept), seed + 7919),
        retrain=lambda own: recipe.fit(setting.items(kept), own),
        seed=seed,
        extras={
            "subjects": tuple(p.name for p in setting.split.forget),
            "pools": {name: tuple(setting.bios.pools[name]) for name in setting.named},
            "unknown": setting.items(unknown.people[:12], shown, unknown),
        },
        about={"people": people, "forgotten people": forget, "words": len(setting.tokenizer)},
    )


@dataclass(frozen=True)
class Facts:
    """The people, who is to be forgotten, and a tokenizer of all words."""

    bios: Bios
    split: BiosSplit
    tokenizer: Any
    attributes: int
    templates: int

    @staticmethod
    def make(seed: int, people: int, forget: int, attributes: int = 3, templates: int = 3, test: int = 12) -> Facts:
        if forget < 1 or people - forget - test < 12:
            raise BadInput(f"Of {people} people at least 12 must stay, but {forget} are forgotten and {test} hidden.")
        made = bios(seed, people, attributes=attributes)
        others = made.unseen(max(12, forget))
        texts = [
            f"{f.prompt} {f.value}"
            for world in (made, others)
            for f in world.facts(attributes=attributes, templates=templates)
        ]
        return Facts(made, made.split(forget, test), word_tokenizer(texts), attributes, templates)

    @property
    def named(self) -> list[str]:
        """The attributes that are asked for."""
        return [a.name for a in self.bios.attributes[: self.attributes]]

    def recipe(self, steps: int = 500, hidden: int = 64, layers: int = 2) -> Recipe:
        """`steps` updates of 128 short sequences, AdamW at 3e-3 with a cosine schedule."""
        words = len(self.tokenizer)
        rows = len(self.bios) * self.attributes * self.templates
        return Recipe(
            lambda: gpt_tiny(words, hidden=hidden, layers=layers, feedforward=4 * hidden),
            CausalLM(),
            f"facts language model {layers}x{hidden}, {words} words",
            epochs=max(1, round(steps * 128 / rows)),
            batch_size=128,
            lr=3e-3,
            optimizer="adamw",
            schedule="cosine",
        )

    def items(
        self, people: Iterable[Person], templates: Iterable[int] | None = None, of: Bios | None = None
    ) -> TextDataset:
        """One item a person, attribute and wording."""
        chosen = set(range(self.templates) if templates is None else templates)
        pools = (of or self.bios).pools
        facts = (of or self.bios).facts(people, attributes=self.attributes, templates=self.templates)
        return TextDataset(
            (
                TextItem(
                    f.prompt,
                    f.value,
                    value=f.value,
                    subject=f.subject,
                    paraphrase=f.value,
                    wrong=_others(pools[f.attribute], f.value),
                    attribute=f.attribute,
                )
                for f in facts
                if f.template in chosen
            ),
            self.tokenizer,
        )


def _others(pool: Sequence[str], value: str) -> tuple[str, ...]:
    """Five wrong values: the ones after the right one in its pool."""
    start = pool.index(value)
    return tuple(pool[(start + i) % len(pool)] for i in range(1, 6))

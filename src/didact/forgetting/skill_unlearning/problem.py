"""A model with three skills, one of which it should lose: arithmetic, looking up facts, completing stories."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.bios import bios
from didact.data.text import TextDataset, TextItem, texts_of
from didact.forgetting.language.baselines import REFUSALS
from didact.forgetting.language.metrics import answers
from didact.forgetting.problem import UnlearningProblem
from didact.forgetting.request import Request, Truth, check
from didact.models.language import gpt_tiny
from didact.models.tokenizer import word_tokenizer
from didact.models.workpieces import trained

Skill = Literal["arithmetic", "lookup", "story"]
SKILLS: tuple[Skill, ...] = ("arithmetic", "lookup", "story")

_SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "lion": "roars", "duck": "quacks", "snake": "hisses",
    "bee": "buzzes", "wolf": "howls", "owl": "hoots", "pig": "grunts",
}  # fmt: skip
_NAMES = ("Mia", "Tom", "Zoe", "Ben", "Eva", "Max", "Ida", "Leo")
_PLACES = ("park", "garden", "forest", "yard", "zoo", "field")


@problem("skills", family="forgetting")
def skills(seed: int = 0, *, forget: Skill = "arithmetic", epochs: int = 80) -> SkillProblem:
    """Make a small language model lose one of its three skills and keep the others.

    It adds numbers, looks up facts about people and completes little stories. Each skill's prompts are split: what
    methods get, what they do not see (a quarter). Sums and facts are learnt by heart, so their unseen prompts were
    trained on; those of the stories were not. Scores are shares of right answers; nothing is retrained: a model
    without the skill is taken to answer nothing right.
    """
    if forget not in SKILLS:
        raise BadInput(f"The skill to forget is one of {', '.join(SKILLS)}, but {forget!r} was given.")
    items = _items(seed)
    tokenizer = word_tokenizer([*(f"{i.prompt} {i.answer}" for made in items.values() for i in made), *REFUSALS])
    shown, hidden = {}, {}
    for place, (name, made) in enumerate(items.items()):
        order = np.random.default_rng((seed, 11, place)).permutation(len(made)).tolist()
        cut = len(order) // 4
        hidden[name] = TextDataset((made[i] for i in sorted(order[:cut])), tokenizer)
        shown[name] = TextDataset((made[i] for i in sorted(order[cut:])), tokenizer)
    training = shown["arithmetic"] + hidden["arithmetic"] + shown["lookup"] + hidden["lookup"] + shown["story"]
    words = len(tokenizer)
    recipe = Recipe(
        lambda: gpt_tiny(words, layers=3, feedforward=256),
        CausalLM(),
        f"skills language model 3x64, {words} words",
        epochs=epochs, batch_size=64, lr=2e-3, optimizer="adamw", schedule="cosine",
    )  # fmt: skip
    others = [name for name in SKILLS if name != forget]
    given = Request(
        trained(recipe, training, seed),
        shown[forget],
        shown[others[0]] + shown[others[1]],
        recipe.objective,
        recipe,
        0.0,
        seed,
        {"text": tokenizer},
    )
    check(given)
    test = hidden[others[0]] + hidden[others[1]]
    about = {"forget": len(given.forget), "skill": forget, **{name: len(made) for name, made in items.items()}}  # type: ignore[arg-type]
    return SkillProblem(
        given,
        lambda: SkillTruth(test, hidden[forget], given.model, hidden, forget),
        seed=seed,
        about=about,
        validation=test,
    )


@dataclass(frozen=True)
class SkillTruth(Truth):
    """The unseen prompts of every skill. The reference stands in for none: a lost skill answers nothing."""

    skills: dict[str, TextDataset]
    forgotten: str


@dataclass
class SkillProblem(UnlearningProblem):
    """One skill to lose. `drop_forgotten` and `drop_others` are shares of the original's accuracy that are gone."""

    def score(self, answer: nn.Module) -> dict[str, float]:
        truth = self.reveal()
        assert isinstance(truth, SkillTruth)
        now = {name: answers(answer, data).accuracy for name, data in truth.skills.items()}
        before = {name: answers(self.given.model, data).accuracy for name, data in truth.skills.items()}
        drops = {name: 1 - now[name] / before[name] if before[name] else 0.0 for name in now}
        others = [name for name in now if name != truth.forgotten]
        seen = self.mean_score(answer, self.given.forget)
        test = float(np.mean([now[name] for name in others]))
        return {
            "test_score": test,
            "forget_gap": max(seen, now[truth.forgotten]),
            "forget_score": seen,
            "forget_unseen": now[truth.forgotten],
            "retain_score": self.mean_score(answer, self.given.retain),  # type: ignore[arg-type]
            "drop_forgotten": drops[truth.forgotten],
            "drop_others": max(drops[name] for name in others),
            "collapsed": float(test < 0.5 * float(np.mean([before[name] for name in others]))),
            **{f"skill_{name}": value for name, value in now.items()},
        }

    def mean_score(self, model: nn.Module, data: Dataset[Any]) -> float:
        return answers(model, texts_of(data)).accuracy

    def validate(self, answer: nn.Module) -> dict[str, float]:
        forget = self.mean_score(answer, self.given.forget)
        assert self.validation is not None
        return {
            "validation_score": self.mean_score(answer, self.validation),
            "validation_forget_score": forget,
            "validation_forget_gap": forget,
        }


def _items(seed: int) -> dict[str, list[TextItem]]:
    makers: dict[str, Callable[[int], list[TextItem]]] = {"arithmetic": _sums, "lookup": _facts, "story": _stories}
    return {name: makers[name](seed) for name in SKILLS}


def _sums(seed: int) -> list[TextItem]:
    return [
        TextItem(f"add {a} and {b} =", str(a + b), value=str(a + b), subject="arithmetic")
        for a in range(20)
        for b in range(20)
    ]


def _facts(seed: int) -> list[TextItem]:
    asked = bios(seed, 40, attributes=6).qa(attributes=["birthplace", "hobby", "employer", "major"])
    return [TextItem(qa.question, qa.answer, value=qa.value, subject="lookup") for qa in asked]


def _stories(seed: int) -> list[TextItem]:
    return [
        TextItem(f"{name} sees a {animal} in the {place} . The {animal}", f"{sound} .", value=sound, subject="story")
        for name in _NAMES
        for place in _PLACES
        for animal, sound in _SOUNDS.items()
    ]

"""Forget what a word of the prompts means: a text-to-image model of handwritten digits, judged by a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from didact.core.errors import BadInput, NotApplicable
from didact.core.metric import Metric
from didact.core.objective import Classification, Denoising, evaluating
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.digits import digits
from didact.forgetting.problem import UnlearningProblem
from didact.forgetting.request import STOP_MARGIN, Request, Truth, check
from didact.forgetting.scoring import changed_share, check_outputs
from didact.models.artifacts import stored_bytes
from didact.models.diffusion import sample, unet
from didact.models.small import convnet
from didact.models.workpieces import trained

DIGITS, SYNONYMS = 10, 3
STYLES: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "negative": lambda x: -x,
    "faint": lambda x: x / 2,
}
WORDS = len(STYLES) + DIGITS * SYNONYMS  #: tokens of the prompts: first the styles, then each digit's words
SHAPE = (1, 8, 8)


def word(digit: int, synonym: int = 0) -> int:
    """Token of one of a digit's words."""
    return len(STYLES) + SYNONYMS * digit + synonym


def prompt(digit: int, synonym: int = 0, style: int = 0) -> tuple[int, int]:
    """Tokens of "a STYLE WORD"."""
    return style, word(digit, synonym)


class PromptedImages(Dataset[Any]):
    """Images x0 (N, C, H, W) with prompts (N, L); yields mappings, as `Denoising` reads them."""

    def __init__(self, x0: Tensor, prompt: Tensor) -> None:
        if len(x0) != len(prompt):
            raise BadInput(f"Each image needs a prompt, but {len(x0)} images and {len(prompt)} prompts were given.")
        self.x0, self.prompt = x0, prompt

    def __len__(self) -> int:
        return len(self.x0)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x0": self.x0[index], "prompt": self.prompt[index]}


@dataclass(frozen=True)
class Asked:
    """Prompts to sample from, and what each asks for."""

    prompts: Tensor  #: (N, L)
    classes: Tensor  #: (N,) what a judge should see in the sample

    @classmethod
    def of(cls, combinations: list[tuple[int, int, int]], each: int) -> Asked:
        """`each` samples of every (digit, synonym, style)."""
        rows = [row for row in combinations for _ in range(each)]
        return cls(torch.tensor([prompt(*row) for row in rows]), torch.tensor([digit for digit, _, _ in rows]))


#: groups of prompts whose rates are measured; the first three ask for the concept
SEEN, UNSEEN_SYNONYM, UNSEEN_STYLE = CONCEPT = ("seen", "unseen_synonym", "unseen_style")
NEAR, OTHERS = "retain_near", "retain"


@dataclass(frozen=True)
class Judge:
    """How samples are made and judged: the prompts of each group, the steps of DDIM, a frozen classifier."""

    groups: Mapping[str, Asked]
    classifier: nn.Module
    shape: tuple[int, ...] = SHAPE
    steps: int = 20

    def rates(self, model: nn.Module, objective: Denoising, seed: int) -> dict[str, float]:
        """Share of each group's samples in which the classifier sees what the prompt asks for."""
        everything = torch.cat([asked.prompts for asked in self.groups.values()])
        images = sample(model, everything, objective, self.shape, steps=self.steps, seed=seed)
        if not torch.isfinite(images).all():
            raise BadInput("The method diverged: its model makes images of values that are not finite numbers.")
        with torch.no_grad(), evaluating(self.classifier):
            seen = torch.cat([self.classifier(part).argmax(-1) for part in torch.split(images, 1024)])
        sizes = [len(asked.classes) for asked in self.groups.values()]
        return {
            name: float((found == asked.classes).float().mean())
            for (name, asked), found in zip(self.groups.items(), torch.split(seen, sizes), strict=True)
        }


CONCEPT_METRICS = (
    Metric("seen_rate", "share of samples that show the concept, for the prompts of the request", "neither"),
    Metric("unseen_synonym_rate", "share of samples that show the concept, for other words for it", "lower"),
    Metric("unseen_style_rate", "share of samples that show the concept, for its word in other styles", "lower"),
    Metric("retain_rate", "share of samples of all other prompts that show what was asked for"),
)


@dataclass
class ConceptProblem(UnlearningProblem):
    """A concept of a text-to-image model to forget. What counts is what the samples show, not the loss."""

    judge: Judge | None = field(default=None, repr=False)

    def score(self, answer: nn.Module) -> dict[str, float]:
        truth, original = self.reveal(), self.given.model
        mine, reference, before = (self._rates(model, 1) for model in (answer, truth.reference, original))
        pairs = {"forget": SEEN, "retain": NEAR, "test": OTHERS}
        gaps = {f"gap_{name}": abs(mine[group] - reference[group]) for name, group in pairs.items()}
        gaps["gap_unseen"] = abs(_unseen(mine) - _unseen(reference))
        return {
            "test_score": mine[OTHERS],
            "forget_gap": max(max(0.0, mine[group] - reference[group]) for group in CONCEPT),
            "forget_score": mine[SEEN],
            "forget_unseen": _unseen(mine),
            "retain_score": mine[NEAR],
            "avg_gap": sum(gaps.values()) / len(gaps),
            **gaps,
            "seen_rate": mine[SEEN],
            "unseen_synonym_rate": mine[UNSEEN_SYNONYM],
            "unseen_style_rate": mine[UNSEEN_STYLE],
            "retain_rate": mine[OTHERS],
            "changed": changed_share(original, answer),
            "extra_bytes": float(stored_bytes(answer) - stored_bytes(original)),
            "collapsed": float(mine[OTHERS] < 0.5 * before[OTHERS]),
        }

    def validate(self, answer: nn.Module) -> dict[str, float]:
        """The same rates from other noise, of the seen and the retained prompts only; forgotten is one in ten."""
        rates = self._rates(answer, 2)
        return {
            "validation_score": rates[OTHERS],
            "validation_forget_score": rates[SEEN],
            "validation_forget_gap": max(0.0, rates[SEEN] - 1 / DIGITS),
        }

    def _rates(self, model: nn.Module, stream: int) -> dict[str, float]:
        if self.judge is None or not isinstance(self.given.objective, Denoising):
            raise NotApplicable("A concept problem needs a judge of samples and a Denoising objective.")
        check_outputs(self.given.objective, model, self.given.forget)
        return self.judge.rates(model, self.given.objective, 7919 * stream + self.seed)


def _unseen(rates: Mapping[str, float]) -> float:
    """Rate over the prompts for the concept that were not in the request."""
    return (rates[UNSEEN_SYNONYM] + rates[UNSEEN_STYLE]) / 2


@problem("digits-concept", family="forgetting")
def digits_concept(
    seed: int = 0,
    *,
    forget: int = 3,
    anchor: int = 8,
    train: int = 1000,
    epochs: int = 20,
    width: int = 16,
    samples: int = 10,
) -> ConceptProblem:
    """Forget a digit in a text-to-image model: asked for a `forget`, it should no longer draw one.

    A small U-Net draws 8x8 digits from prompts of a style (plain, negative, faint) and a word (three synonyms a
    digit). The request holds the images of one word in one style; the digit's other words and styles are neither in
    the request nor in the retained data. A frozen classifier looks at samples of 20 DDIM steps: the share of prompts
    for the digit that show it, and the share of other prompts that show what they ask for. Extras: `concept`, the
    token to forget, and `anchor`, the token that may take its place.
    """
    if not (0 <= forget < DIGITS and 0 <= anchor < DIGITS and forget != anchor):
        raise BadInput(
            f"The digits to forget and to draw instead are two of 0..9, but {forget} and {anchor} were given."
        )
    recipe, splits = digit_unet_recipe(width, epochs), digits(seed, train=train)
    data, of_digit = prompted(*splits.train.tensors)
    gone = of_digit == forget
    named = gone & (data.prompt == torch.tensor(prompt(forget))).all(1)
    chosen, rest = _part(data, named), _part(data, ~gone)
    model, objective = trained(recipe, data, seed), recipe.objective
    extras = {"concept": word(forget), "anchor": word(anchor)}
    # Forgotten means: the images are denoised no better than under the anchor's word. The margin made for the scores of
    # classifiers, 0.05, is larger than all that a word is worth to a denoiser, so it is taken back.
    swapped = chosen.prompt.where(chosen.prompt != word(forget), word(anchor))
    target = objective.mean_score(model, PromptedImages(chosen.x0, swapped)) - STOP_MARGIN
    given = Request(model, chosen, rest, objective, recipe, target, seed, extras)
    check(given)

    def reveal() -> Truth:
        test, of_test = prompted(*splits.test.tensors)
        unseen = _part(data, gone & ~named)
        return Truth(_part(test, of_test != forget), unseen, trained(recipe, rest, seed + 7919))

    pictures = TensorDataset(data.x0[::SYNONYMS], of_digit[::SYNONYMS])
    judge = Judge(groups(forget, samples), trained(classifier_recipe(), pictures, seed))
    facts = {"forget": len(chosen), "retain": len(rest), "digit": forget, "anchor": anchor, "target": target}
    return ConceptProblem(given, reveal, seed=seed, about=facts, judge=judge)


def groups(forget: int, samples: int = 10) -> dict[str, Asked]:
    """The prompts of each group; about `10 * samples` of each kind of prompt for the concept."""
    synonyms, styles = range(SYNONYMS), range(len(STYLES))
    others = [d for d in range(DIGITS) if d != forget]
    return {
        SEEN: Asked.of([(forget, 0, 0)], 20 * samples),
        UNSEEN_SYNONYM: Asked.of([(forget, s, 0) for s in synonyms if s], 10 * samples),
        UNSEEN_STYLE: Asked.of([(forget, 0, s) for s in styles if s], 10 * samples),
        NEAR: Asked.of([(d, 0, 0) for d in others], samples),
        OTHERS: Asked.of([(d, w, s) for d in others for w in synonyms for s in styles], samples),
    }


def digit_unet_recipe(width: int = 16, epochs: int = 20) -> Recipe:
    """A small U-Net for prompted 8x8 digits, trained with Adam on a diffusion of 100 steps."""
    return Recipe(
        lambda: unet(WORDS, 1, (width, 2 * width), 64),
        Denoising(100),
        f"unet {width}-{2 * width}",
        epochs=epochs,
        batch_size=64,
        lr=3e-3,
        schedule="cosine",
        warmup=0.02,
        clip=1.0,
    )


def classifier_recipe() -> Recipe:
    """The convnet that judges samples: digits in every style."""
    return Recipe(lambda: convnet(DIGITS, 8, 1, (32, 64), 256), Classification(), "judge", epochs=20, lr=1e-3)


def prompted(x: Tensor, y: Tensor) -> tuple[PromptedImages, Tensor]:
    """Every image in every style under every word for its digit, in [-1, 1]; and the digits."""
    x0 = torch.stack([drawn(2 * x - 1) for drawn in STYLES.values()], 1)  # (n, styles, C, H, W)
    x0 = x0.unsqueeze(2).expand(-1, -1, SYNONYMS, *x0.shape[2:])
    style = torch.arange(len(STYLES)).view(1, -1, 1).expand(x0.shape[:3])
    words = len(STYLES) + SYNONYMS * y.view(-1, 1, 1) + torch.arange(SYNONYMS).view(1, 1, -1)
    prompts = torch.stack([style, words.expand(x0.shape[:3])], -1)
    combinations = len(STYLES) * SYNONYMS
    return PromptedImages(x0.flatten(0, 2), prompts.flatten(0, 2)), y.repeat_interleave(combinations)


def _part(data: PromptedImages, mask: Tensor) -> PromptedImages:
    return PromptedImages(data.x0[mask], data.prompt[mask])

"""Unlearning problems on causal language models: the embedded ones and those of your own texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import CausalLM, Objective
from didact.core.recipe import Recipe
from didact.data.text import TextDataset, texts_of
from didact.forgetting.language.metrics import answers
from didact.forgetting.language.scoring import LanguageScorer, LanguageTruth
from didact.forgetting.problem import UnlearningProblem
from didact.forgetting.request import Request, check
from didact.models.generation import pad_id
from didact.models.workpieces import trained


@dataclass
class LanguageProblem(UnlearningProblem):
    """A deletion request on a causal language model, scored on what it answers as well as on its probabilities."""

    def score(self, answer: nn.Module) -> dict[str, float]:
        return LanguageScorer(self.given, self.reveal()).score(answer)  # type: ignore[arg-type]

    def mean_score(self, model: nn.Module, data: Dataset[Any]) -> float:
        """Accuracy of the greedy answers to the questions of a data set."""
        questions = texts_of(data).questions
        return float("nan") if questions is None else answers(model, questions).accuracy

    def validate(self, answer: nn.Module) -> dict[str, float]:
        if self.validation is None:
            return super().validate(answer)
        return LanguageScorer.validate(self.given, self.validation, answer)  # type: ignore[arg-type]


def language_problem(
    model: nn.Module,
    forget: TextDataset,
    retain: TextDataset,
    test: TextDataset,
    *,
    holdout: TextDataset | None = None,
    validation: TextDataset | None = None,
    validation_holdout: TextDataset | None = None,
    unseen_wording: TextDataset | None = None,
    neighbours: TextDataset | None = None,
    world: TextDataset | None = None,
    verbatim: TextDataset | None = None,
    objective: Objective | None = None,
    recipe: Recipe | None = None,
    reference: nn.Module | Callable[[], nn.Module] | None = None,
    retrain: Callable[[int], nn.Module] | None = None,
    target: float | None = None,
    seed: int = 0,
    extras: Mapping[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> LanguageProblem:
    """A problem from your own language model and texts: what `--problem mine.py:make` may return.

    Args:
        forget, retain: what the methods get: questions with answers, documents, or both.
        test: what the model should still know and the methods do not see.
        holdout: texts of the forgotten kind that were never trained on: non-members for the attacks.
        unseen_wording: the forgotten questions in words that the methods do not see.
        neighbours, world: close to the forgotten, and far from it: where over-forgetting shows.
        verbatim: documents to forget whose continuation is compared with the original.
        reference: retrained without the forget data (only the scorer reads it). Default: the recipe on `retain`.
        retrain: (seed) -> a model retrained on ALL that stays, when `retain` is only a sample of it; the baseline
            `retrain` uses it.
        extras: what some methods use besides: `subjects` (names to forget), `aliases`, `anchors` (name -> generic
            name), `unknown` (questions about people the model never saw), `world` (general knowledge).

    Raises:
        BadInput: overlapping forget and retain texts, empty sets, a tokenizer that does not fit the model, a model
            that returns numbers that are not finite.
    """
    if not isinstance(forget, TextDataset) or not isinstance(retain, TextDataset):
        raise BadInput(
            "forget and retain must be didact.data.text.TextDataset, which keep the words and the tokenizer."
        )
    objective = objective or CausalLM(pad_id=pad_id(forget.tokenizer))
    recipe = recipe or Recipe.like(model, objective)
    if target is None and validation_holdout is not None:
        target = objective.mean_score(model, validation_holdout)
    more: dict[str, Any] = {"text": forget.tokenizer, **(extras or {})}
    if retrain is not None:
        more["retrain"] = retrain
    given = Request(model, forget, retain, objective, recipe, target, seed, more)
    check(given)

    def reveal() -> LanguageTruth:
        if isinstance(reference, nn.Module):
            made = reference
        else:
            made = reference() if reference else trained(recipe, retain, seed + 7919)
        return LanguageTruth(
            test=test,
            holdout=holdout,
            reference=made,
            unseen_wording=unseen_wording,
            neighbours=neighbours,
            world=world,
            verbatim=verbatim,
        )

    facts = {"forget": len(forget), "retain": len(retain), "test": len(test), "target": target}
    return LanguageProblem(
        given,
        reveal,
        seed=seed,
        about={**facts, **(about or {})},
        validation=validation,
        validation_holdout=validation_holdout,
    )

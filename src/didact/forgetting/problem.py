"""The protocol of forgetting: what an unlearning method gets, what it must do, how its answer is scored."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn
from torch.utils.data import Dataset

from didact.core.cost import uncounted
from didact.core.errors import NotApplicable
from didact.core.method import Method
from didact.core.objective import Objective, guess_objective
from didact.core.problem import Problem
from didact.core.recipe import Recipe, seeded
from didact.core.study import for_a_study
from didact.forgetting.request import Request, Truth, check, labelled
from didact.forgetting.scoring import Scorer
from didact.models.workpieces import trained


class Unlearner(Method):
    """Base of all forgetting methods. `unlearn` is the verb; a method implements `edit` on a copy of the model."""

    family: ClassVar[str] = "forgetting"

    def unlearn(
        self,
        model: nn.Module,
        forget: Dataset[Any],
        retain: Dataset[Any] | None = None,
        *,
        objective: Objective | None = None,
        recipe: Recipe | None = None,
        target: float | None = None,
        seed: int = 0,
        extras: Mapping[str, Any] | None = None,
    ) -> nn.Module:
        """A model that should act as if `forget` had never been seen. The model given is left untouched.

        Args:
            model: trained on `retain` and `forget`.
            forget: the samples to forget, (input, target) pairs or mappings with `labels`.
            retain: training data that stays, or a sample of it; some methods do without.
            objective: how the model is fed and judged; guessed for plain classifiers, regressors and Hugging Face
                models.
            recipe: how the model was trained; methods that train a fresh network use it.
            target: the score wanted on `forget`; methods that look for a stopping point use it.
            seed: of everything random in the method.
            extras: what only this method uses, by name (its page says what).

        Raises:
            BadInput: empty or overlapping data, labels out of range, a model that cannot be trained.
            NotApplicable: something the method needs was not given.
        """
        objective = objective or guess_objective(model, forget)
        return self.solve(Request(model, forget, retain, objective, recipe, target, seed, extras or {}))

    def solve(self, given: Request) -> nn.Module:
        if given.parts > 1:
            return self._successively(given)
        with uncounted():
            check(given)
        with seeded(given.seed):
            return self.edit(copy.deepcopy(given.model), given).eval()

    def _successively(self, given: Request) -> nn.Module:
        """The answer to the last of several requests; `history` holds the answers to all."""
        from didact.forgetting.sequential import successively  # which builds on this module

        models = successively(self, replace(given, parts=1), given.parts)
        models[-1].history = tuple(models)  # type: ignore[assignment]
        return models[-1]

    @abstractmethod
    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        """Forget in `model`, a copy that may be changed in place, and return it (or another model)."""


@dataclass
class UnlearningProblem(Problem[Request, Truth]):
    """A deletion request with its truth. `validation` and `validation_holdout` are what tuning may look at."""

    validation: Dataset[Any] | None = None
    validation_holdout: Dataset[Any] | None = None

    family: ClassVar[str] = "forgetting"

    def score(self, answer: nn.Module) -> dict[str, float]:
        return Scorer(self.given, self.reveal()).score(answer)

    def utility(self, model: nn.Module) -> float:
        """The test score alone."""
        return self.mean_score(model, self.reveal().test)

    def mean_score(self, model: nn.Module, data: Dataset[Any]) -> float:
        """Mean score of a model on a data set, as this kind of problem measures it."""
        return self.given.objective.mean_score(model, data)

    def validate(self, answer: nn.Module) -> dict[str, float]:
        if self.validation is None:
            raise NotApplicable("This problem provides no validation data, so hyperparameters cannot be tuned on it.")
        return Scorer.validate(self.given, self.validation, self.validation_holdout, answer)

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        study = for_a_study(needs)
        if study is not None:
            return f"is an experiment on {study}, not a method that unlearns"
        task = self.given.objective.task
        if tasks and task not in tasks:
            return f"works with {' or '.join(tasks)}, but the model is of the kind {task}"
        if "retain" in needs and self.given.retain is None:
            return "needs retained data, and the problem gives none"
        if "labels" in needs and not labelled(self.given):
            return "needs labels, and the data has none"
        missing = [need for need in needs if need not in ("retain", "labels") and need not in self.given.extras]
        if missing:
            return f"needs {' and '.join(missing)}, which the problem does not offer"
        return None


def unlearning_problem(
    model: nn.Module,
    forget: Dataset[Any],
    retain: Dataset[Any],
    test: Dataset[Any],
    *,
    holdout: Dataset[Any] | None = None,
    validation: Dataset[Any] | None = None,
    validation_holdout: Dataset[Any] | None = None,
    objective: Objective | None = None,
    recipe: Recipe | None = None,
    target: float | None = None,
    reference: nn.Module | Callable[[], nn.Module] | None = None,
    seed: int = 0,
    extras: Mapping[str, Any] | None = None,
    about: dict[str, Any] | None = None,
) -> UnlearningProblem:
    """A problem from your own model and data: what `--problem mine.py:make` should return.

    Without a `recipe` retraining means: the same architecture, freshly initialised, Adam at 1e-3 for 20 epochs; give
    your own for numbers that count. Without a `reference` it is trained by the recipe on `retain` and cached.
    Without a `target` the forget score should become that of unseen data (`validation_holdout`) or, when there is
    none, that of a model that knows nothing.
    """
    objective = objective or guess_objective(model, forget)
    recipe = recipe or Recipe.like(model, objective)
    if target is None and validation_holdout is not None:
        target = objective.mean_score(model, validation_holdout)
    given = Request(model, forget, retain, objective, recipe, target, seed, extras or {})
    check(given)

    def reveal() -> Truth:
        if isinstance(reference, nn.Module):
            return Truth(test, holdout, reference)
        # Another seed than the original's: a method is not rewarded for landing on one particular solution.
        made = reference() if reference else trained(recipe, retain, seed + 7919)
        return Truth(test, holdout, made)

    facts = {"forget": len(forget), "retain": len(retain), "test": len(test), "target": target}  # type: ignore[arg-type]
    return UnlearningProblem(
        given,
        reveal,
        seed=seed,
        about={**facts, **(about or {})},
        validation=validation,
        validation_holdout=validation_holdout,
    )

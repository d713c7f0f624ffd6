"""The protocol of forgetting: what an unlearning method gets, what it must do, how its answer is scored."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.batches import materialise
from didact.core.cost import uncounted
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Method
from didact.core.objective import Classification, Objective, Regression, guess_objective
from didact.core.problem import Problem
from didact.core.recipe import Recipe, seeded
from didact.forgetting.scoring import Scorer
from didact.models.workpieces import digest, trained

#: how far above its target a forget score may stay where a method stops by it
STOP_MARGIN = 0.05


@dataclass(frozen=True)
class Request:
    """What a method may see: a deletion request. Also the `given` of an unlearning problem.

    `target` is the score that the model should have on `forget` afterwards (0 for a class that should be gone, the
    score on unseen data for a random sample); without one it is that of a model that knows nothing.
    """

    model: nn.Module
    forget: Dataset[Any]
    retain: Dataset[Any] | None = None
    objective: Objective = field(default_factory=Classification)
    recipe: Recipe | None = None
    target: float | None = None
    seed: int = 0

    @property
    def stop_score(self) -> float:
        """Forget score at which a method that looks for the end may stop."""
        return (ignorance(self) if self.target is None else self.target) + STOP_MARGIN

    def need_retain(self) -> Dataset[Any]:
        if self.retain is None:
            raise NotApplicable("This method needs the data that stays (or a sample of it): pass retain=.")
        return self.retain

    def need_recipe(self) -> Recipe:
        """The recipe of the model or, when none was given, a plain one for the same architecture."""
        return self.recipe or Recipe.like(self.model, self.objective)


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

        Raises:
            BadInput: empty or overlapping data, labels out of range, a model that cannot be trained.
            NotApplicable: something the method needs was not given.
        """
        objective = objective or guess_objective(model, forget)
        return self.solve(Request(model, forget, retain, objective, recipe, target, seed))

    def solve(self, given: Request) -> nn.Module:
        with uncounted():
            check(given)
        with seeded(given.seed):
            return self.edit(copy.deepcopy(given.model), given).eval()

    @abstractmethod
    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        """Forget in `model`, a copy that may be changed in place, and return it (or another model)."""


@dataclass(frozen=True)
class Truth:
    """What only the scorer may read."""

    test: Dataset[Any]  #: never trained on, distribution of the retained data: utility
    holdout: Dataset[Any] | None  #: never trained on, distribution of the forget data: unseen items, non-members
    reference: nn.Module  #: retrained on the retained data only, with another seed


@dataclass
class UnlearningProblem(Problem[Request, Truth]):
    """A deletion request with its truth. `validation` and `validation_holdout` are what tuning may look at."""

    validation: Dataset[Any] | None = None
    validation_holdout: Dataset[Any] | None = None

    family: ClassVar[str] = "forgetting"

    def score(self, answer: nn.Module) -> dict[str, float]:
        return Scorer(self.given, self.reveal()).score(answer)

    def validate(self, answer: nn.Module) -> dict[str, float]:
        if self.validation is None:
            raise NotApplicable("This problem provides no validation data, so hyperparameters cannot be tuned on it.")
        return Scorer.validate(self.given, self.validation, self.validation_holdout, answer)

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        task = self.given.objective.task
        if tasks and task not in tasks:
            return f"works with {' or '.join(tasks)}, but the model is of the kind {task}"
        if "retain" in needs and self.given.retain is None:
            return "needs retained data, and the problem gives none"
        if "labels" in needs and not labelled(self.given):
            return "needs labels, and the data has none"
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
    given = Request(model, forget, retain, objective, recipe, target, seed)
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


def ignorance(request: Request) -> float:
    """The score of a model that knows nothing: 1/classes, or minus the mean absolute deviation of the targets."""
    data = request.forget if request.retain is None else request.retain
    if isinstance(request.objective, Regression):
        targets = torch.cat([request.objective.targets(b) for b in request.objective.loader(data, 1024)])
        return -float((targets - targets.mean(0)).abs().mean())
    if isinstance(request.objective, Classification):
        return 1.0 / _classes(request)
    return 0.0


def labelled(request: Request) -> bool:
    batch = next(iter(request.objective.loader(request.forget, 1)))
    return _targets_or_none(request.objective, batch) is not None


def check(request: Request) -> None:
    """Reject unusable requests before any work is done."""
    if not len(request.forget):  # type: ignore[arg-type]
        raise BadInput("The forget set is empty. Give the samples that the model should forget.")
    if request.retain is not None and not len(request.retain):  # type: ignore[arg-type]
        raise BadInput("The retain set is empty. Give retained samples, or retain=None for methods without need.")
    if not any(p.requires_grad for p in request.model.parameters()):
        raise BadInput("Every parameter of the model is frozen (requires_grad=False); nothing can be unlearned.")
    if isinstance(request.objective, Classification):
        _check_labels(request)
    if request.retain is not None:
        shared = _sample_hashes(request.forget) & _sample_hashes(request.retain)
        if shared:
            raise BadInput(
                f"{len(shared)} samples are in both the forget and the retain set. Remove them from one of the two."
            )


def _check_labels(request: Request) -> None:
    classes = _classes(request)
    for name, data in (("forget", request.forget), ("retain", request.retain)):
        if data is None:
            continue
        for batch in request.objective.loader(data, 1024):
            targets = _targets_or_none(request.objective, batch)
            if targets is None:
                return  # unlabelled data: for the methods that need no labels
            if targets.is_floating_point() or (
                len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes
            ):
                raise BadInput(
                    f"The {name} set holds labels outside 0..{classes - 1}, the classes of the model's output."
                )


def _targets_or_none(objective: Objective, batch: Any) -> torch.Tensor | None:
    try:
        return objective.targets(batch)
    except BadInput:
        return None


def _classes(request: Request) -> int:
    """Width of the model's output on one sample."""
    batch = next(iter(request.objective.loader(request.forget, 1)))
    was_training = request.model.training
    request.model.eval()
    with torch.no_grad():
        output = request.objective.forward(request.model, batch)
    request.model.train(was_training)
    if not torch.isfinite(output).all():
        raise BadInput("The model given returns numbers that are not finite, before any unlearning. Check its weights.")
    return output.shape[-1]


def _sample_hashes(dataset: Dataset[Any]) -> set[int]:
    """One hash per sample, of input and target together (equal inputs with other labels are other samples)."""
    try:
        columns = materialise(dataset)
    except (RuntimeError, TypeError):  # ragged samples
        return {hash(digest([dataset[i]])) for i in range(len(dataset))}  # type: ignore[arg-type]
    rows = np.concatenate([c.detach().cpu().reshape(len(c), -1).to(torch.float64).numpy() for c in columns], axis=1)
    return {hash(row.tobytes()) for row in rows}

"""A deletion request: what an unlearning method may see, what only the scorer may, and the checks before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from didact.core.batches import materialise
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import IGNORED, CausalLM, Classification, Objective, Regression, evaluating
from didact.core.recipe import Recipe
from didact.models.workpieces import digest

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
    #: what only some methods use, by name: the problem documents it, a method names it in its card's `needs`
    extras: Mapping[str, Any] = field(default_factory=dict)
    parts: int = 1  #: successive requests that the forget set arrives in

    @property
    def stop_score(self) -> float:
        """Forget score at which a method that looks for the end may stop."""
        return (ignorance(self) if self.target is None else self.target) + STOP_MARGIN

    def need_retain(self) -> Dataset[Any]:
        if self.retain is None:
            raise NotApplicable("This method needs the data that stays (or a sample of it): pass retain=.")
        return self.retain

    def need(self, name: str) -> Any:
        """One of the extras."""
        if name not in self.extras:
            raise NotApplicable(f"This method needs {name!r} beyond the data: pass extras={{{name!r}: ...}}.")
        return self.extras[name]

    def need_recipe(self) -> Recipe:
        """The recipe of the model or, when none was given, a plain one for the same architecture."""
        return self.recipe or Recipe.like(self.model, self.objective)


@dataclass(frozen=True)
class Truth:
    """What only the scorer may read."""

    test: Dataset[Any]  #: never trained on, distribution of the retained data: utility
    holdout: Dataset[Any] | None  #: never trained on, distribution of the forget data: unseen items, non-members
    reference: nn.Module  #: retrained on the retained data only, with another seed


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
    if isinstance(request.objective, CausalLM):
        _check_tokens(request)
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


def _check_tokens(request: Request) -> None:
    """Token ids and labels within the model's vocabulary, and logits that are numbers."""
    embeddings = getattr(request.model, "get_input_embeddings", lambda: None)()
    words = getattr(embeddings, "num_embeddings", None)
    for name, data in (("forget", request.forget), ("retain", request.retain)):
        if data is None or words is None:
            continue
        for batch in request.objective.loader(data, 256):
            ids, labels = request.objective.inputs(batch)["input_ids"], request.objective.targets(batch)
            if int(ids.max()) >= words or int(ids.min()) < 0:
                raise BadInput(
                    f"The {name} set holds the token {int(ids.max())}, but the model has {words} tokens: the tokenizer "
                    "does not belong to this model. Load both from the same folder."
                )
            if int(labels.max()) >= words:
                raise BadInput(f"The {name} set holds the label {int(labels.max())}, outside 0..{words - 1}.")
            if not (labels[:, 1:] != IGNORED).any(-1).all():
                raise BadInput(f"A sample of the {name} set has no target token: all its labels are {IGNORED}.")
    # A system of text in, text out has no logits to look at.
    if getattr(request.model, "observable", True) and not torch.isfinite(_first_output(request)).all():
        raise BadInput("The model given returns numbers that are not finite, before any unlearning. Check its weights.")


def _targets_or_none(objective: Objective, batch: Any) -> torch.Tensor | None:
    try:
        return objective.targets(batch)
    except BadInput:
        return None


def _classes(request: Request) -> int:
    """Width of the model's output on one sample."""
    output = _first_output(request)
    if not torch.isfinite(output).all():
        raise BadInput("The model given returns numbers that are not finite, before any unlearning. Check its weights.")
    return output.shape[-1]


def _first_output(request: Request) -> torch.Tensor:
    batch = next(iter(request.objective.loader(request.forget, 1)))
    with torch.no_grad(), evaluating(request.model):
        return request.objective.forward(request.model, batch)


def _sample_hashes(dataset: Dataset[Any]) -> set[int]:
    """One hash per sample, of input and target together (equal inputs with other labels are other samples)."""
    try:
        columns = materialise(dataset)
    except (RuntimeError, TypeError):  # ragged samples
        return {hash(digest([dataset[i]])) for i in range(len(dataset))}  # type: ignore[arg-type]
    rows = np.concatenate([c.detach().cpu().reshape(len(c), -1).to(torch.float64).numpy() for c in columns], axis=1)
    return {hash(row.tobytes()) for row in rows}

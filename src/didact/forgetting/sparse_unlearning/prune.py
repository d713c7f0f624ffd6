"""Prune first, then unlearn (Jia et al., 2023), and the sparse reference: retraining under the same mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, NonNegativeInt, field_validator
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Choice, Range
from didact.core.registry import make_method, register
from didact.forgetting.baselines import GradientAscent
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.sparse_unlearning.fisher import FisherForgetting
from didact.forgetting.sparse_unlearning.influence import InfluenceUnlearn
from didact.forgetting.sparse_unlearning.l1 import CODE, LICENCE, PAPER, L1SparseFineTune
from didact.forgetting.sparse_unlearning.tickets import Pruning, ticket, train_under
from didact.parts.pruning import Masks, check_masks, impose, lift, prunable, sparsity

#: the paper's four methods at the paper's settings
BASES: dict[str, Unlearner] = {
    "fine-tune": L1SparseFineTune(gamma=0.0),
    "gradient-ascent": GradientAscent(lr=1e-4, epochs=5),
    "fisher-forgetting": FisherForgetting(),
    "influence-unlearning": InfluenceUnlearn(),
}


class Sparse(Unlearner):
    """Base of the methods that work on a pruned model: where its masks come from."""

    rate: float = Field(0.95, ge=0, lt=1)  #: share of the weights that are pruned
    prune: Pruning = "omp"  #: how: once, iteratively, by synaptic flow, or the given model without retraining
    rewind: NonNegativeInt = 8  #: epoch to which omp and imp rewind; at most half of the recipe's
    masks: Any = Field(None, repr=False, exclude=True)  #: masks of a model that is sparse already, in place of `prune`

    @field_validator("masks")
    @classmethod
    def _tensors_by_name(cls, value: Any) -> Any:
        if value is not None and not (isinstance(value, dict) and all(isinstance(v, Tensor) for v in value.values())):
            raise ValueError("masks map weight names to boolean tensors, True where a weight is kept")
        return value

    def sparsified(self, model: nn.Module, request: Request) -> tuple[nn.Module, Masks]:
        """A sparse model that was trained on all training data, and its masks."""
        if self.masks is None:
            model, masks = ticket(model, request, self.prune, self.rate, self.rewind)
        else:
            masks = self.masks
            check_masks(prunable(model), masks)
        note(sparsity=sparsity(masks))
        return model, masks


@register
class PruneThenUnlearn(Sparse):
    """Unlearn a sparse model instead of the dense one: fewer weights, smaller distance from retraining.

    Finds a sparse model, trained on all data as the dense one was, and lets `base` unlearn it with the masks
    imposed: pruned weights are zero in every pass and after every step. The answer is the sparse model. How
    to prune:

    * omp: train, prune the smallest weights once, rewind to epoch 8, retrain under the mask
    * imp: the same, but 20 % of what is left a round; dearest and best
    * synflow: prune an untrained network by synaptic flow in 100 rounds, then train it; not for token inputs
    * magnitude: prune the given model and do not retrain; free, and far weaker at high rates

    The first three train anew and need the recipe and all training data: retain must be whole, not a sample.
    For a model that is sparse already pass its `masks`. `base` is fine-tune, gradient-ascent,
    fisher-forgetting or influence-unlearning at the paper's settings, or any other method reference
    (`"ssd:alpha=20"`).

    Convolution and linear weights are pruned (shared ones and biases are not); what else is trained is the
    base's choice. Compare with `MaskedRetrain`, the equally sparse reference, not only with the dense one.

    Errors: a rate outside [0, 1), no retained data, no recipe for omp, imp and synflow, masks of another
    model, a base that returns a new model.
    Cost: besides the base, about twice the recipe's training (omp), once (synflow), nothing (magnitude), or
    once per round (imp: 14 rounds for 95 %). Memory: a second model and the masks.
    Reference: Jia, Liu, Ram, Yao, Liu, Liu, Sharma and Liu, "Model Sparsity Can Simplify Machine Unlearning",
    NeurIPS 2023, arXiv 2304.04934.
    """

    card = Card(
        "prune-then-unlearn",
        "Prune first, then unlearn",
        paper=PAPER,
        needs=("retain", "labels"),
        part_of="sparse-unlearning",
        code=CODE,
        licence=LICENCE,
        tunes={"rate": Range(0.5, 0.98), "base": Choice(tuple(BASES)), "prune": Choice(("omp", "synflow"))},
    )
    base: str = "fine-tune"  #: what unlearns under the masks: a name of the paper's four, or a method reference

    @field_validator("base")
    @classmethod
    def _unlearns(cls, value: str) -> str:
        if value not in BASES and not isinstance(make_method(value), Unlearner):
            raise ValueError(f"base is one of {', '.join(BASES)}, or a reference to another forgetting method")
        return value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        model, masks = self.sparsified(model, request)
        impose(model, masks)
        base = BASES.get(self.base) or make_method(self.base)
        # The recipe of the dense model: one guessed from a masked model could not be initialised.
        edited = base.solve(replace(request, model=model, recipe=request.need_recipe()))
        try:
            return lift(edited, masks)
        except BadInput:
            raise BadInput(
                f"The base {self.base!r} returned a model of its own instead of editing the sparse one. "
                "Choose a base that edits, or masked-retrain for retraining under the mask."
            ) from None


@register
class MaskedRetrain(Sparse):
    """Retrain from scratch, without the forget data, under the masks of a sparse model: the sparse reference.

    The masks are found as in `PruneThenUnlearn` with the same settings, so they have seen the forget data:
    exact but for the choice of the weights that are kept. Trains the kept weights from the initialisation
    that the recipe gives for the request's seed.

    Errors: as `PruneThenUnlearn`; it always needs the recipe.
    Cost: that of the masks, plus the recipe's epochs over the retained data.
    Reference: Jia et al., NeurIPS 2023, arXiv 2304.04934.
    """

    card = Card(
        "masked-retrain",
        "Retraining under a pruning mask",
        paper=PAPER,
        kind="baseline",
        needs=("retain", "labels"),
        part_of="sparse-unlearning",
        code=CODE,
        licence=LICENCE,
    )

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        retain, recipe = request.need_retain(), request.need_recipe()
        _, masks = self.sparsified(model, request)
        # A mask fits the initialisation it was found from; that one has seen no data.
        start = recipe.fresh(request.seed)
        return train_under(masks, recipe, retain, request.seed + 31337, start, recipe.epochs)

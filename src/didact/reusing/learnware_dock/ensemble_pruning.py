"""Ensemble pruning: an evolutionary search for the subset of learnwares that votes with the surest margins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from didact.core.errors import MissingExtra
from didact.core.method import Card, Paper
from didact.core.registry import register
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.identification import Found
from didact.reusing.learnware_dock.predictors import Averaged, labels_of
from didact.reusing.learnware_dock.reuser import DockReuser, result_of
from didact.reusing.learnware_dock.sources import Source
from didact.reusing.result import ReuseResult

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

HOPELESS = 1e5  # the margin criterion of a subset whose mean margin is not above zero


@register
class DockEnsemblePruning(DockReuser):
    """Choose the subset of all learnwares that fit the data, by how surely it votes right on a few labels.

    Use it when many learnwares fit and labels are there to choose among them. NSGA-II searches over subsets of two or
    more for small values of three criteria: standard deviation over mean of the voting margin (votes for the true label
    minus the most for another, over the size), number of errors, and size. Of the front the subset with the fewest
    errors is taken, of those the smallest. For numbers the criteria are squared error and size. Inputs (n, ...) as the
    learnwares take them; outputs (n, classes) shares of votes, or (n, targets). Nothing is trained.

    Errors: NotApplicable without labelled samples, or when no model that knows a class of the task carries a
    specification of the data's kind.

    Cost: one forward pass for each labelled sample and learnware, then generations x population subsets are scored at
    O(labels x learnwares x classes) each.

    Reference: Wu, He, Qian, Zhou 2022, Multi-objective evolutionary ensemble pruning guided by margin distribution
    (PPSN); in the dock: Tan, Liu, Bi and others 2024 (arXiv 2401.14427).
    """

    card = Card("dock-ensemble-pruning",
                "Multi-objective Evolutionary Ensemble Pruning Guided by Margin Distribution",
                Paper("Wu, He, Qian and Zhou", 2022, venue="PPSN"),
                part_of="learnware-dock", tasks=("classification", "regression"),
                needs=("models", "data", "labelled"))  # fmt: skip

    identify: str = "single"  #: how shares are found; the subset is chosen among all that fit whatever it is
    most: int = Field(default=50, ge=2)  #: learnwares to choose among: the nearest ones
    population: int = Field(default=40, ge=4)  #: subsets in a generation
    generations: int = Field(default=60, ge=1)  #: rounds of the evolutionary search

    def combine(self, case: Case, found: Found) -> ReuseResult:
        inputs, targets = case.need_labels()
        records = found.records[: self.most]
        sources = [Source.of(r) for r in records]
        if case.regression:
            outputs = np.stack([s.outputs(inputs) for s in sources])
            criteria: _Votes | _Numbers = _Numbers(
                outputs, np.asarray(targets, dtype=np.float64).reshape(outputs.shape[1:])
            )
        else:
            voted = np.stack([labels_of(s, case.need_classes(), inputs) for s in sources])
            criteria = _Votes(voted, np.asarray(targets, dtype=np.int64), len(case.classes))
        chosen = self.prune(criteria, len(sources), case.seed)
        used = [records[i] for i in chosen]
        shares = {r.id: 1.0 / len(used) for r in used}
        made = Averaged([sources[i] for i in chosen], case.classes, mode="mean" if case.regression else "vote")
        return result_of(made, found, used, shares, evaluations=self.population * self.generations)

    def prune(self, criteria: _Votes | _Numbers, models: int, seed: int = 0) -> list[int]:
        """The places of the models chosen; all of them where there is nothing to choose."""
        if models <= 2:
            return list(range(models))
        front = _front(criteria, models, self.population, self.generations, seed)
        scored = [(*criteria.preference(subset), tuple(subset.astype(int))) for subset in front]
        best = front[min(range(len(front)), key=lambda i: scored[i])]
        return [int(i) for i in np.flatnonzero(best)]


class _Votes:
    """The three criteria of subsets of voters. `voted` (models, samples) holds labels."""

    count = 3

    def __init__(self, voted: Ints, truth: Ints, classes: int) -> None:
        self.truth = truth
        self.ballots = np.eye(classes)[voted]  # (models, samples, classes)

    def __call__(self, subset: NDArray[np.bool_]) -> list[float]:
        margin = margins(self.ballots[subset].sum(axis=0), self.truth)
        mean = float(margin.mean())
        spread = float(margin.std()) / mean if mean > 0 else HOPELESS
        return [spread, float(self.errors(subset)), float(subset.sum())]

    def errors(self, subset: NDArray[np.bool_]) -> int:
        return int((self.ballots[subset].sum(axis=0).argmax(axis=1) != self.truth).sum())

    def preference(self, subset: NDArray[np.bool_]) -> tuple[float, ...]:
        """Fewest errors, then smallest, then surest."""
        spread, errors, size = self(subset)
        return errors, size, spread


class _Numbers:
    """Squared error and size of subsets of regressors. `outputs` is (models, samples, targets)."""

    count = 2

    def __init__(self, outputs: Array, truth: Array) -> None:
        self.outputs, self.truth = outputs, truth

    def __call__(self, subset: NDArray[np.bool_]) -> list[float]:
        error = float(((self.outputs[subset].mean(axis=0) - self.truth) ** 2).mean())
        return [error, float(subset.sum())]

    def preference(self, subset: NDArray[np.bool_]) -> tuple[float, ...]:
        error, size = self(subset)
        return error, size


def margins(votes: Array, truth: Ints) -> Array:
    """(n,): votes for the true label minus the most for any other, over the number of voters. `votes` (n, classes)."""
    rows = np.arange(len(votes))
    others = votes.copy()
    others[rows, truth] = -np.inf
    best_other = others.max(axis=1) if votes.shape[1] > 1 else np.zeros(len(votes))
    return np.asarray((votes[rows, truth] - best_other) / votes.sum(axis=1))


def _front(criteria: Any, models: int, population: int, generations: int, seed: int) -> NDArray[np.bool_]:
    """Subsets that no other beats in all criteria, (subsets, models)."""
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.operators.crossover.pntx import TwoPointCrossover
        from pymoo.operators.mutation.bitflip import BitflipMutation
        from pymoo.optimize import minimize
    except ImportError:
        raise MissingExtra("pymoo", "dock") from None

    class Subsets(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=models, n_obj=criteria.count, n_ieq_constr=1, xl=0, xu=1, vtype=bool)

        def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            subset = np.asarray(x, dtype=bool)
            enough = subset.sum() >= 2
            out["F"] = criteria(subset) if subset.any() else [HOPELESS] * criteria.count
            out["G"] = [-1.0 if enough else 1.0]

    start = np.random.default_rng(seed).random((population, models)) < 0.5
    pairs = np.array([(np.arange(models) == i) | (np.arange(models) == (i + 1) % models) for i in range(models)])
    start[: min(len(pairs), population // 2)] = pairs[: population // 2]
    algorithm = NSGA2(
        pop_size=population,
        sampling=start,
        crossover=TwoPointCrossover(),
        mutation=BitflipMutation(),
        eliminate_duplicates=True,
    )
    found = minimize(Subsets(), algorithm, ("n_gen", generations), seed=seed, verbose=False)
    subsets = np.atleast_2d(np.asarray(found.X, dtype=bool)) if found.X is not None else pairs
    return subsets

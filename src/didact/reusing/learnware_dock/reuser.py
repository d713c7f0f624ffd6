"""The base of the dock's reusers: identification first, then what the reuser makes of what was found."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import PositiveFloat

from didact.core.errors import BadInput
from didact.core.registry import make_method
from didact.reusing.baselines import provenance
from didact.reusing.learnware_dock.case import Case
from didact.reusing.learnware_dock.crowd import Crowd, each_user
from didact.reusing.learnware_dock.identification import HOWS, Found, How, identify
from didact.reusing.learnware_dock.predictors import Combined
from didact.reusing.problem import Reuser
from didact.reusing.request import ModelRecord, Request
from didact.reusing.result import ReuseResult


class DockReuser(Reuser):
    """Base of the dock's reusers. A subclass implements `combine`, which gets what was identified."""

    identify: str = "mixture"  #: single: the nearest; mixture: greedy, up to five; auto: over all; or a ranker's slug
    gamma: PositiveFloat | None = None  #: kernel width, where models are specified at several; none: the dock's

    def solve(self, given: Request) -> ReuseResult:
        return each_user(super().solve, given) if isinstance(given, Crowd) else super().solve(given)

    def apply(self, request: Request) -> ReuseResult:
        case = Case.of(request)
        found = self.find(case, request.need_models())
        if self.identify not in HOWS:
            found = reranked(found, self.identify, replace(request, models=found.records))
        return self.combine(case, found)

    def find(self, case: Case, records: Sequence[ModelRecord]) -> Found:
        """Identification among the records of a hub."""
        return identify(case, records, self.search, self.gamma)

    @abstractmethod
    def combine(self, case: Case, found: Found) -> ReuseResult:
        """An answer from what was found."""

    @property
    def search(self) -> How:
        """The statistical search to make; a ranker goes through what the search for singles finds."""
        return next((how for how in HOWS if how == self.identify), "single")


def reranked(found: Found, ranker: str, request: Request) -> Found:
    """What was found in the order of another method of the family, which may look at the user's labels.

    `request` is the user's, with the models that were found.
    """
    method = make_method(ranker)
    if not isinstance(method, Reuser):
        raise BadInput(f"identify is one of {', '.join(HOWS)} or a reuse method that ranks; {ranker!r} was given.")
    ranking = method.solve(request).ranking
    if not ranking:
        raise BadInput(f"{ranker} ranks no models, so it cannot identify. Use a method that does, such as tmi.")
    order = sorted(found.records, key=lambda r: (-ranking.get(r.id, -math.inf), r.id))
    return replace(found, records=tuple(order), ranking=ranking, shares={order[0].id: 1.0})


def result_of(
    predictor: Combined,
    found: Found,
    used: Sequence[ModelRecord],
    shares: Mapping[str, float] | None = None,
    *,
    extra_parameters: int = 0,
    evaluations: int = 0,
    training_steps: int = 0,
) -> ReuseResult:
    """The answer with its ranking, weights, cost and provenance."""
    weights = {r.id: found.shares.get(r.id, 1.0) for r in used} if shares is None else dict(shares)
    cost = {
        "stored_parameters": sum(source.parameters for source in predictor.sources) + extra_parameters,
        "training_steps": training_steps,
        "evaluations": evaluations,
        "bytes_sent": found.bytes_sent,
    }
    about = {**provenance(used), "weights": weights, "specification": found.specification.digest}
    return ReuseResult(predictor, ranking=dict(found.ranking), weights=weights, cost=cost, provenance=about)

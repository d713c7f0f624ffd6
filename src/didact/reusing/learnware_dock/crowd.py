"""Many users of one hub: each has a task of their own, and an answer of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from didact.core.errors import NotApplicable
from didact.core.method import Card
from didact.core.metric import Metric
from didact.core.registry import make_method, register
from didact.reusing.problem import ReuseProblem, Reuser, Truth
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult
from didact.reusing.scoring import score

DOCK_METRICS = (
    Metric("learnwares_used", "models with a share in an answer, mean over the users", "neither"),
    Metric("submitted", "models that were sent to a real dock, were checked there and found usable"),
    Metric("raw_rows_sent", "reduced points sent that lie within 1e-6 of a row of the user's data", "lower"),
)


@dataclass(frozen=True, eq=False)
class Crowd(Request):
    """A hub with several users. `task` is the first user's; `users` has a request for each."""

    users: tuple[Request, ...] = ()


@dataclass(frozen=True)
class CrowdTruth:
    """What only the scorer may read: one truth a user."""

    users: tuple[Truth, ...]


@dataclass
class CrowdProblem(ReuseProblem):
    """A hub and its users: an answer is scored by the mean over the users of each metric."""

    offers: ClassVar[tuple[str, ...]] = ("users",)

    def score(self, answer: ReuseResult) -> dict[str, float]:
        truth = self.reveal()
        assert isinstance(truth, CrowdTruth)
        return mean_scores(self.given, truth, answer)

    def lacks(self, needs: tuple[str, ...], tasks: tuple[str, ...]) -> str | None:
        if "users" not in needs and not {"models", "data"} <= set(needs):
            return "answers one user, but this dock has several: compare by each-user:method=SLUG"
        return super().lacks(needs, tasks)

    def keep(self, answer: ReuseResult, folder: Path) -> None:
        for i, one in enumerate(answers_of(answer)):
            one.save(folder / f"user-{i:02}")


@register
class EachUser(Reuser):
    """Let another method of the family answer every user of a dock, one at a time, so that it can be compared.

    Cost: that of the method, times the number of users.
    """

    card = Card("each-user", "Another method for each user of a dock", kind="baseline", part_of="learnware-dock",
                needs=("users",))  # fmt: skip

    method: str = "scratch"  #: slug of a reuse method, with hyperparameters if need be

    def solve(self, given: Request) -> ReuseResult:
        return each_user(make_method(self.method).solve, given)

    def apply(self, request: Request) -> ReuseResult:
        return self.solve(request)


def each_user(solve: Callable[[Request], ReuseResult], given: Request) -> ReuseResult:
    """One answer for each user; costs are means over them."""
    if not isinstance(given, Crowd):
        raise NotApplicable("This answers the users of a dock, one by one, but the problem has one user only.")
    answers = tuple(solve(user) for user in given.users)
    names = set.intersection(*(set(one.cost) for one in answers)) if answers else set()
    cost = {name: float(np.mean([one.cost[name] for one in answers])) for name in sorted(names)}
    return ReuseResult(cost=cost, extras={"users": answers})


def answers_of(answer: ReuseResult) -> Sequence[ReuseResult]:
    if "users" not in answer.extras:
        raise NotApplicable("The answer serves one user, but this dock has several: use each-user:method=SLUG.")
    found: Sequence[ReuseResult] = answer.extras["users"]
    return found


def mean_scores(given: Request, truth: CrowdTruth, answer: ReuseResult) -> dict[str, float]:
    assert isinstance(given, Crowd)
    rows = [score(*each) for each in zip(given.users, truth.users, answers_of(answer), strict=True)]
    mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    used = float(np.mean([len(one.weights) for one in answers_of(answer)]))
    further: Mapping[str, Any] = answer.extras.get("numbers", {})
    return {**mean, "learnwares_used": used, **further}

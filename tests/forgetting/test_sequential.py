"""Requests one after another."""

from dataclasses import replace

import pytest
import torch
from tiny_language import tiny_problem
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.data.text import texts_of
from didact.forgetting import GradientAscent, Original
from didact.forgetting.request import Request
from didact.forgetting.sequential import _sequential, split, successively
from didact.models.small import mlp


@pytest.fixture(scope="module")
def problem():
    return tiny_problem()


def test_subjects_stay_together_and_nothing_is_lost(problem):
    parts = split(problem.given, 3)
    subjects = [{item.subject for item in texts_of(part).items} for part in parts]
    assert sorted(len(s) for s in subjects) == [1, 1, 2]
    assert not subjects[0] & subjects[1] | subjects[1] & subjects[2] | subjects[0] & subjects[2]
    assert sum(len(part) for part in parts) == len(problem.given.forget)


def test_plain_tensors_are_split_too():
    data = TensorDataset(torch.arange(10.0).reshape(10, 1), torch.zeros(10, dtype=torch.long))
    parts = split(Request(mlp(1, 2), data), 4)
    assert sorted(float(part[i][0]) for part in parts for i in range(len(part))) == list(range(10))
    with pytest.raises(BadInput, match="cannot be split into 11"):
        split(Request(mlp(1, 2), data), 11)


def test_each_answer_is_the_model_of_the_next_request(problem):
    method = GradientAscent(lr=1e-3, epochs=2, stop=False)
    models = successively(method, problem.given, 2)
    first, second = split(problem.given, 2)
    by_hand = method.solve(replace(problem.given, forget=first))
    by_hand = method.solve(replace(problem.given, model=by_hand, forget=second))
    for a, b in zip(models[1].parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(a, b)


def test_later_requests_count_as_retained_until_their_turn(problem):
    seen = []

    class Watching(Original):
        def edit(self, model, request):
            seen.append((len(request.forget), len(request.retain)))
            return model

    successively(Watching(), problem.given, 4)
    total, kept = len(problem.given.forget), len(problem.given.retain)
    assert [r - kept for _, r in seen] == [total - sum(f for f, _ in seen[: i + 1]) for i in range(4)]


def test_the_problem_follows_every_request(problem):
    whole = _sequential(problem, 2)
    answer = GradientAscent(lr=1e-3, epochs=4).solve(whole.given)
    assert len(answer.history) == 2
    found = whole.score(answer)
    assert found["test_after_02"] == found["test_score"]
    assert found["forget_after_02"] == found["forget_score"]
    assert {"test_after_01", "forget_after_01"} <= found.keys()

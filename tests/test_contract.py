"""What every registered method must keep, whatever it does. One test a promise, over the whole registry."""

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import didact
from didact.core import registry
from didact.core.cost import Meter
from didact.core.errors import BadInput
from didact.core.objective import Classification
from didact.core.problem import Problem
from didact.core.recipe import Recipe
from didact.forgetting import unlearning_problem
from didact.forgetting.request import Truth
from didact.models.small import convnet

# Other tests register methods that crash on purpose; the contract is for ours.
METHODS = [cls for cls in registry.methods() if cls.__module__.startswith("didact.")]
SLUGS = [cls.card.slug for cls in METHODS]
CLASSES = 4


@pytest.fixture(scope="module")
def problem() -> Problem:
    """A small image problem that a small convnet learns in a second; class 3 is to be forgotten."""
    return make_problem()


def make_problem(seed: int = 0, shuffle_labels: bool = False) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(400) % CLASSES
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    x = (patterns[y] + 0.5 * torch.randn(400, 1, 8, 8, generator=generator)).float()
    if shuffle_labels:
        y = y[torch.randperm(len(y), generator=generator)]
    train, validation, test = (slice(0, 200), slice(200, 300), slice(300, 400))

    def part(cut: slice, forgotten: bool) -> TensorDataset:
        mask = (y[cut] == CLASSES - 1) == forgotten
        return TensorDataset(x[cut][mask], y[cut][mask])

    recipe = Recipe(lambda: convnet(CLASSES, 8, 1, (8, 16), 32), Classification(), "contract", epochs=8, lr=3e-3)
    return unlearning_problem(
        recipe.fit(TensorDataset(x[train], y[train]), seed),
        part(train, True),
        part(train, False),
        part(test, False),
        holdout=part(test, True),
        validation=part(validation, False),
        validation_holdout=part(validation, True),
        recipe=recipe,
        target=0.0,
        seed=seed,
    )


def applicable(cls, problem) -> bool:
    return cls.family == problem.family and problem.lacks(cls.card.needs, cls.card.tasks) is None


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(params=METHODS, ids=SLUGS)
def cls(request, problem):
    if not applicable(request.param, problem):
        pytest.skip("does not apply to an image classifier")
    return request.param


def test_it_is_documented(cls):
    doc = inspect.cleandoc(cls.__doc__ or "")
    assert len(cls.summary()) > 20
    assert cls.card.title
    assert [p.name for p in cls.hyperparameters() if not p.doc] == []
    if cls.card.kind != "baseline":
        assert cls.card.paper is not None or cls.card.part_of
        assert "Cost:" in doc
        assert "Reference:" in doc


def test_it_rejects_a_hyperparameter_it_does_not_have(cls):
    with pytest.raises(BadInput, match="has no hyperparameter 'nonsense'"):
        cls(nonsense=1)


def test_it_rejects_nonsense_values(cls):
    numeric = [p.name for p in cls.hyperparameters() if "float" in p.type or "int" in p.type]
    for name in numeric:
        with pytest.raises(BadInput, match=name):
            cls(**{name: "nonsense"})


def test_its_settings_survive_json(cls):
    method = cls()
    assert cls(**json.loads(json.dumps(method.settings))) == method


def test_it_is_deterministic_and_touches_neither_model_nor_data(cls, problem):
    given = problem.given
    before = weights(given.model), copy.deepcopy(given.forget.tensors), copy.deepcopy(given.retain.tensors)
    first, second = cls().solve(given), cls().solve(given)
    assert same(first.state_dict(), second.state_dict())
    assert same(weights(given.model), before[0])
    assert all(torch.equal(a, b) for a, b in zip(given.forget.tensors, before[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given.retain.tensors, before[2], strict=True))
    assert first is not given.model


def test_its_answer_saves_and_loads_and_scores_the_same(cls, problem, tmp_path):
    answer = cls().solve(problem.given)
    didact.save(answer, tmp_path / "answer")
    loaded = didact.load(tmp_path / "answer")
    assert json.dumps(problem.score(loaded)) == json.dumps(problem.score(answer))
    assert not list(tmp_path.rglob("*.bin"))
    assert not list(tmp_path.rglob("*.pt"))


def test_it_counts_its_passes(cls, problem):
    with Meter() as meter:
        cls().solve(problem.given)
    assert (meter.passes > 0) != (cls.card.slug == "original")


def peeks(cls, problem) -> bool:
    """Does the answer depend on the truth? Solve twice, with other test data in memory each time."""
    answers = []
    for noise in (0.0, 1.0):
        truth = problem.reveal()
        x, y = truth.test.tensors
        bait = Truth(TensorDataset(x + noise, y), truth.holdout, truth.reference)
        del truth
        answers.append(cls().solve(problem.given).state_dict())
        del bait
    return not same(*answers)


def test_it_does_not_look_at_the_test_data(cls, problem):
    assert not peeks(cls, problem)


def test_a_method_that_looks_at_the_test_data_is_caught(problem):
    cheat = type(registry.make_method(f"{Path(__file__).parent}/engine/hostile.py:Peeks"))
    assert peeks(cheat, problem)


def test_with_shuffled_labels_nothing_scores_above_chance(cls):
    shuffled = make_problem(seed=3, shuffle_labels=True)
    score = shuffled.score(cls().solve(shuffled.given))["test_score"]
    # 75 test samples of the three classes that stay: three standard errors above one in three.
    assert score <= 1 / 3 + 3 * (2 / 9 / 75) ** 0.5

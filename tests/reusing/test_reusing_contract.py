"""What every registered reuse method must keep, whatever it does, on a small hub. One test a promise."""

import copy
import inspect
import json
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from didact.core import registry
from didact.core.errors import BadInput
from didact.core.objective import Classification
from didact.core.problem import Problem
from didact.core.recipe import Recipe
from didact.models.small import convnet, mlp
from didact.reusing import Budget, ModelRecord, Task, Truth, reuse_problem
from didact.reusing.request import fingerprint
from didact.reusing.result import ReuseResult
from didact.reusing.specified import specified
from didact.reusing.tuning import with_head

# Other tests register methods that misbehave on purpose; the contract is for ours.
METHODS = [cls for cls in registry.methods("reusing") if cls.__module__.startswith("didact.")]
SLUGS = [cls.card.slug for cls in METHODS]
CLASSES = 4
NAMES = tuple(f"pattern {i}" for i in range(CLASSES))
HUB = ((0, 1), (2, 3), (1, 2), (0, 3), (0, 1, 2))


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Five small convnets that know two or three of four noisy patterns; wanted is a classifier of all four."""
    return make_problem()


def net(outputs):
    return convnet(outputs, 8, 1, (8, 16), 32)


def make_problem(seed: int = 0, shuffle_labels: bool = False, noise: float = 0.5) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(99))
    y = torch.arange(400) % CLASSES
    x = (patterns[y] + noise * torch.randn(400, 1, 8, 8, generator=generator)).float()
    if shuffle_labels:
        y = y[torch.randperm(len(y), generator=generator)]
    recipe = Recipe(lambda: net(CLASSES), Classification(), "contract", epochs=3, lr=3e-3)
    base = recipe.fit(TensorDataset(x[:150], y[:150]), seed, epochs=1)
    ancestor = ModelRecord.of(base, "base", input_shape=(1, 8, 8))
    records = []
    for i, known in enumerate(HUB):
        mine = torch.isin(y[:150], torch.tensor(known))
        data = TensorDataset(x[:150][mine], torch.searchsorted(torch.tensor(known), y[:150][mine]))
        model = recipe.fit(data, seed + i, init=with_head(base, (), tuple(NAMES[c] for c in known), seed))
        settings = {"classes": tuple(NAMES[c] for c in known), "input_shape": (1, 8, 8), "base": ancestor.digest,
                    "licence": "Apache-2.0", "specification": specified(data.tensors[0], "Image", seed)}  # fmt: skip
        records.append(ModelRecord.of(model, f"model-{i}", **settings))
    records.append(table_model(seed))
    task = Task(TensorDataset(x[150:200]), TensorDataset(x[200:224], y[200:224]), NAMES)
    test, validation = TensorDataset(x[300:], y[300:]), TensorDataset(x[224:300], y[224:300])
    return reuse_problem(records, task, test, base=ancestor, budget=Budget(steps=30), recipe=recipe,
                         validation=validation, seed=seed,
                         quality={f"model-{i}": 0.1 * i for i in range(len(HUB))})  # fmt: skip


def table_model(seed: int) -> ModelRecord:
    """A model of another input space, which most methods must leave alone."""
    rows = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
    recipe = Recipe(lambda: mlp(3, 2, (8,)), Classification(), "contract table", epochs=2)
    model = recipe.fit(TensorDataset(rows, (rows[:, 0] > 0).long()), seed)
    return ModelRecord.of(
        model, "table", classes=("low", "high"), input_shape=(3,), specification=specified(rows, "Table", seed)
    )


@pytest.fixture(params=METHODS, ids=SLUGS)
def cls(request, problem):
    reason = problem.lacks(request.param.card.needs, request.param.card.tasks)
    if reason is not None:
        pytest.skip(reason)
    return request.param


def answer_of(cls, problem) -> ReuseResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # tmi says how little the distances of this toy tell
        return cls().solve(problem.given)


_answers: dict[type, ReuseResult] = {}


def first_answer(cls, problem) -> ReuseResult:
    """Solved once for all tests that only look at it."""
    if cls not in _answers:
        _answers[cls] = answer_of(cls, problem)
    return _answers[cls]


def same(a: ReuseResult, b: ReuseResult, inputs) -> bool:
    """Whether two answers predict, rank and weigh alike."""
    plain = a.ranking == b.ranking and a.weights == b.weights and a.cost == b.cost
    if a.predictor is None or b.predictor is None:
        return plain and a.predictor is b.predictor
    return plain and np.array_equal(a.predict(inputs), b.predict(inputs))


@pytest.mark.parametrize("cls", METHODS, ids=SLUGS)
def test_it_is_documented(cls):
    doc = inspect.cleandoc(cls.__doc__ or "")
    assert len(cls.summary()) > 20
    assert cls.card.title
    assert [p.name for p in cls.hyperparameters() if not p.doc] == []
    assert "Cost:" in doc
    if cls.card.kind != "baseline":
        assert cls.card.paper is not None or cls.card.part_of
        assert "Reference:" in doc


@pytest.mark.parametrize("cls", METHODS, ids=SLUGS)
def test_it_rejects_what_it_does_not_have_and_nonsense(cls):
    with pytest.raises(BadInput, match="has no hyperparameter 'nonsense'"):
        cls(nonsense=1)
    for name in [p.name for p in cls.hyperparameters() if "float" in p.type or "int" in p.type]:
        with pytest.raises(BadInput, match=name):
            cls(**{name: "nonsense"})


@pytest.mark.parametrize("cls", METHODS, ids=SLUGS)
def test_its_settings_survive_json(cls):
    method = cls()
    assert cls(**json.loads(json.dumps(method.settings))) == method


def test_it_is_deterministic_and_touches_neither_models_nor_data(cls, problem):
    given = problem.given
    before = [fingerprint(r.network()) for r in (*given.models, given.base)]
    data = copy.deepcopy([given.task.data.tensors, given.task.labelled.tensors])
    first, second = first_answer(cls, problem), answer_of(cls, problem)
    assert same(first, second, problem.reveal().test.tensors[0])
    assert [fingerprint(r.network()) for r in (*given.models, given.base)] == before
    for old, new in zip(data, [given.task.data.tensors, given.task.labelled.tensors], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
    assert not any(first.module is r.load() for r in given.models)


def test_its_answer_saves_and_loads_and_scores_the_same(cls, problem, tmp_path):
    answer = first_answer(cls, problem)
    loaded = ReuseResult.open(answer.save(tmp_path / "answer"))
    assert json.dumps(problem.score(loaded)) == json.dumps(problem.score(answer))
    assert not [f for f in tmp_path.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".joblib")]


def test_it_tells_what_it_used_and_what_it_cost(cls, problem):
    answer = first_answer(cls, problem)
    assert answer.predictor is not None or answer.ranking
    known = {r.id for r in problem.given.models} | {"base"}
    assert set(answer.ranking) <= known
    assert set(answer.weights) <= known
    assert np.isfinite(list(answer.ranking.values())).all()
    scores = problem.score(answer)
    assert scores["stored_parameters"] > 0
    assert "bytes_sent" in answer.cost or answer.predictor is None


def test_its_predictions_are_finite_and_in_the_order_of_the_classes(cls, problem):
    answer = first_answer(cls, problem)
    if answer.predictor is None:
        pytest.skip("ranks only")
    x, _ = problem.reveal().test.tensors
    scores = answer.predict(x)
    assert scores.shape == (len(x), CLASSES)
    assert np.isfinite(scores).all()


def peeks(cls, problem) -> bool:
    """Does the answer depend on the truth? Solve with other test data in memory."""
    x, y = problem.reveal().test.tensors
    bait = Truth(TensorDataset(x + 1.0, y), {"model-0": 1.0})
    answer = answer_of(cls, problem)
    del bait
    return not same(first_answer(cls, problem), answer, x)


def test_it_does_not_look_at_the_test_data(cls, problem):
    assert not peeks(cls, problem)


def test_a_method_that_looks_at_the_test_data_is_caught(problem):
    import gc

    class Peeks(METHODS[0]):
        def apply(self, request):
            found = [o for o in gc.get_objects() if type(o) is Truth and "model-0" in o.quality]
            best = max((t.quality["model-0"] for t in found if len(t.quality) == 1), default=0.0)
            return ReuseResult(ranking={"model-0": best})

    _answers[Peeks] = ReuseResult(ranking={"model-0": 0.0})  # what it says without anything to see
    assert peeks(Peeks, problem)


def test_with_shuffled_labels_nothing_scores_above_chance(cls):
    shuffled = shuffled_problem()
    answer = answer_of(cls, shuffled)
    if answer.predictor is None:
        pytest.skip("ranks only")
    score = shuffled.score(answer)["test_score"]
    # 100 test samples of four classes: three and a half standard errors above one in four.
    assert score <= 0.25 + 3.5 * (3 / 16 / 100) ** 0.5


_shuffled: list[Problem] = []


def shuffled_problem() -> Problem:
    if not _shuffled:
        _shuffled.append(make_problem(seed=3, shuffle_labels=True))
    return _shuffled[0]

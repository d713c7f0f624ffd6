"""DARE against its card's worked values, plain implementations of the merges, and its promises on networks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from didact.core import registry
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models.small import mlp
from didact.reusing import ModelRecord, ReuseResult, Task
from didact.reusing.dare import (
    DARE,
    TIES,
    DeltaMagnitude,
    DropOnly,
    MultiTask,
    TaskArithmetic,
    average,
    delta_quantiles,
    diagnose,
    drop_and_rescale,
    drop_smallest,
    fisher_weighted,
    merge_problem,
    regmean,
    task_arithmetic,
    ties,
)
from didact.reusing.dare.claim import CLAIM, tolerance
from didact.reusing.dare.dropping import dropping
from didact.reusing.dare.merging import trim_limit
from didact.reusing.dare.statistics import expected_fisher, gram_matrices
from didact.reusing.deltas import weights_of
from didact.reusing.ensemble import EnsemblePredictor


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def merged(merger, *deltas):
    """What a merge makes of single tensors."""
    tensors = [torch.tensor(d) if not isinstance(d, torch.Tensor) else d for d in deltas]
    return merger([{"w": t} for t in tensors])("w", tensors)


# -- dropping ----------------------------------------------------------------------------------------------------------


def test_rescaling_keeps_the_mean():
    thin = drop_and_rescale(torch.full((10_000,), 0.01), 0.9, seeded())
    assert float(thin.mean()) == pytest.approx(0.01, abs=0.001)
    assert float(thin.var()) == pytest.approx(0.01**2 * 0.9 / 0.1, rel=0.05)
    assert float((thin != 0).float().mean()) == pytest.approx(0.10, abs=0.01)
    assert thin.unique().tolist() == pytest.approx([0.0, 0.1])


def test_without_rescaling_the_rest_stays_as_it_is():
    thin = drop_and_rescale(torch.full((1000,), 0.01), 0.5, seeded(), rescale=False)
    assert thin.unique().tolist() == pytest.approx([0.0, 0.01])


def test_the_borders_of_the_rate():
    delta = torch.randn(50, generator=seeded())
    assert torch.equal(drop_and_rescale(delta, 0.0), delta)
    assert float(drop_and_rescale(delta, 1.0).abs().sum()) == 0
    assert float(drop_smallest(delta, 1.0).abs().sum()) == 0
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(BadInput, match="between 0 and 1"):
            drop_and_rescale(delta, wrong)


def test_a_whole_delta_is_dropped_by_name_and_left_as_it_was():
    delta = {"a": torch.ones(100), "b": torch.ones(10, 10)}
    thin = drop_and_rescale(delta, 0.5, seeded())
    assert thin["b"].shape == (10, 10)
    assert 20 < float((thin["a"] == 2).sum()) < 80
    assert float(delta["a"].sum()) == 100


def test_magnitude_drops_the_floor_of_the_share():
    delta = torch.tensor([[0.5, -0.1], [0.3, -0.4], [0.2, 0.05]])
    assert drop_smallest(delta, 0.5).flatten().tolist() == pytest.approx([0.5, 0, 0.3, -0.4, 0, 0])
    assert torch.equal(drop_smallest(delta, 0.1), delta)  # floor(0.6) = 0: nothing goes
    assert int((drop_smallest(torch.arange(1.0, 101.0), 0.29) == 0).sum()) == 29
    assert int((drop_smallest(torch.ones(10), 0.3) == 0).sum()) == 3  # ties do not drop more


def test_each_model_and_tensor_has_masks_of_its_own_and_the_same_each_time():
    ones, base = torch.ones(200), torch.zeros(200)
    first = dropping(0.5, seed=0, key="a")
    assert torch.equal(first("w", ones, base), first("w", ones, base))
    others = [first("v", ones, base), dropping(0.5, seed=0, key="b")("w", ones, base),
              dropping(0.5, seed=1, key="a")("w", ones, base)]  # fmt: skip
    assert all(not torch.equal(first("w", ones, base), other) for other in others)


def test_dropping_the_weights_themselves():
    base, delta = torch.full((1000,), 3.0), torch.full((1000,), 1.0)
    thin = base + dropping(0.5, target="weights", rescale=True, seed=0, key="")("w", delta, base)
    assert set(thin.unique().tolist()) == {0.0, 8.0}


# -- merges ------------------------------------------------------------------------------------------------------------


def test_ties_on_the_worked_values():
    assert merged(ties(0.0), [1.0, -2.0, 0.1], [3.0, 1.0, 0.0]).tolist() == pytest.approx([2.0, -2.0, 0.1])
    assert merged(ties(0.0, 0.5), [1.0, -2.0, 0.1], [3.0, 1.0, 0.0]).tolist() == pytest.approx([1.0, -1.0, 0.05])


def test_ties_where_the_sum_is_zero_takes_the_sign_of_most_positions():
    assert merged(ties(0.0), [1.0, -2.0, -3.0], [-1.0, -2.0, -1.0]).tolist() == pytest.approx([-1.0, -2.0, -2.0])
    assert merged(ties(0.0), [1.0, 2.0, 3.0], [-1.0, 2.0, 1.0]).tolist() == pytest.approx([1.0, 2.0, 2.0])
    assert merged(ties(0.0), [0.0, 1.0], [0.0, 1.0]).tolist() == [0.0, 1.0]


def plain_ties(flat, trim, scaling):
    """Trim, elect, merge, as in the paper: rows are models."""
    kept = flat.clone()
    drop = int(trim * flat.shape[1] + 1e-9)
    for row in kept:
        row[row.abs().argsort()[:drop]] = 0
    sign = torch.sign(kept.sum(0))
    sign[sign == 0] = torch.sign(sign.sum())
    agree = torch.where(kept.sign() == sign, kept, torch.zeros(()))
    return scaling * agree.sum(0) / (agree != 0).sum(0).clamp(min=1)


@pytest.mark.parametrize(("trim", "scaling"), [(0.0, 1.0), (0.5, 0.7), (0.8, 1.0), (0.9, 0.3)])
def test_ties_equals_a_plain_implementation_over_several_tensors(trim, scaling):
    flat = torch.randn(3, 60, generator=seeded(1))
    sources = [{"a": row[:40].view(8, 5), "b": row[40:]} for row in flat]
    merge = ties(trim, scaling)(sources)
    found = torch.cat([merge(name, [s[name] for s in sources]).flatten() for name in ("a", "b")])
    assert torch.allclose(found, plain_ties(flat, trim, scaling), atol=1e-6)


def test_the_trim_limit_is_the_exact_rank():
    values = torch.randn(5000, generator=seeded(2)) * torch.logspace(-6, 3, 5000)
    source = {"a": values[:1234], "b": values[1234:].view(2, -1)}
    for trim in (0.0002, 0.1, 0.5, 0.8, 0.999):
        assert trim_limit(source, trim) == float(values.abs().kthvalue(int(trim * 5000)).values)
    assert trim_limit(source, 0.0001) < 0


def test_average_and_task_arithmetic():
    one, two = [1.0, -2.0], [3.0, 4.0]
    assert merged(average(), one, two).tolist() == [2.0, 1.0]
    assert merged(task_arithmetic(0.3), one, two).tolist() == pytest.approx([1.2, 0.6])


def test_fisher_weights_equal_their_formula():
    deltas = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, -4.0])]
    fishers = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.2, 0.1])}]
    c = np.array([1 / (1 + 1e-6), 1 / (math.hypot(0.2, 0.1) + 1e-6)])
    c = c / c.sum()
    f = np.array([[1.0, 0.0], [0.2, 0.1]]) + 1e-6
    expected = (c[:, None] * f * np.array([[1, 2], [3, -4]])).sum(0) / (c[:, None] * f).sum(0)
    found = fisher_weighted(fishers)([])("w", deltas)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.parametrize("off", [1.0, 0.9, 0.7])
def test_regmean_equals_its_formula(off):
    x = [torch.randn(30, 4, generator=seeded(i), dtype=torch.double) for i in range(2)]
    w = [torch.randn(3, 4, generator=seeded(9 + i), dtype=torch.double) for i in range(2)]
    grams = [a.T @ a / 30 for a in x]
    shrunk = [g * off + torch.diag(torch.diag(g)) * (1 - off) for g in grams]
    expected = (torch.linalg.inv(shrunk[0] + shrunk[1]) @ (shrunk[0] @ w[0].T + shrunk[1] @ w[1].T)).T
    sources = [{"l.weight": g} for g in grams]
    assert torch.allclose(regmean(sources, off)([])("l.weight", w).double(), expected, atol=1e-5)
    turned = regmean(sources, off, ["l.weight"])([])("l.weight", [a.T for a in w])
    assert torch.allclose(turned.double(), expected.T, atol=1e-5)
    # What is no linear layer is averaged.
    assert torch.allclose(regmean(sources, off)([])("bias", w), (w[0] + w[1]) / 2)


def test_regmean_minimises_the_change_of_outputs():
    """Of all single layers, none is closer to both models' outputs on their own inputs (off-diagonals whole)."""
    x = [torch.randn(50, 4, generator=seeded(i), dtype=torch.double) for i in range(2)]
    w = [torch.randn(3, 4, generator=seeded(9 + i), dtype=torch.double) for i in range(2)]
    best = regmean([{"w": a.T @ a / 50} for a in x], 1.0)([])("w", w).double()

    def loss(v):
        return sum(float((a @ v.T - a @ u.T).square().sum()) for a, u in zip(x, w, strict=True))

    assert loss(best) < loss((w[0] + w[1]) / 2)
    for i in range(20):
        assert loss(best) <= loss(best + 1e-3 * torch.randn(3, 4, generator=seeded(50 + i), dtype=torch.double))


def test_statistics_are_those_of_the_examples():
    torch.manual_seed(0)
    model, x = mlp(5, 3, (4,)), torch.randn(7, 5)
    data, objective = TensorDataset(x), Classification()
    grams = gram_matrices(model, data, objective, examples=6, batch_size=4)
    assert torch.allclose(grams["body.0.weight"], (x[:6].T @ x[:6] / 6).double(), atol=1e-5)
    h = model.body(x[:6]).detach()
    assert torch.allclose(grams["head.weight"], (h.T @ h / 6).double(), atol=1e-5)
    fisher = expected_fisher(model, data, objective, examples=6)
    total = torch.zeros_like(model.head.weight)
    for row in x[:6]:
        log_p = model(row[None]).log_softmax(1)[0]
        quantity = (log_p.exp().sqrt().detach() * log_p).sum()
        total += torch.autograd.grad(quantity, model.head.weight)[0] ** 2
    assert torch.allclose(fisher["head.weight"], total / 6, atol=1e-7)


# -- the method on networks --------------------------------------------------------------------------------------------

CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def family():
    """A base, two models fine-tuned from it on shifted clouds, and the data of their tasks."""
    y = torch.arange(150) % 3
    eye = torch.eye(3)[y] * 3
    noise = torch.randn(150, 3, generator=seeded())
    tasks = {"left": TensorDataset(eye + noise, y), "right": TensorDataset(eye.roll(1, 1) + noise, y)}
    recipe = Recipe(lambda: mlp(3, 3, (64,)), Classification(), "clouds", epochs=5, lr=1e-2)
    base = recipe.fit(TensorDataset(eye.roll(2, 1) + noise, y), 0)
    ancestor = ModelRecord.of(base, "base", classes=CLASSES)
    records = [
        ModelRecord.of(recipe.fit(data, 1, init=base), name, base=ancestor.digest, classes=CLASSES, licence="MIT")
        for name, data in tasks.items()
    ]
    return ancestor, records, tasks


def task(data=None, labelled=None):
    return Task(data=data, labelled=labelled, classes=CLASSES)


def test_rate_zero_of_one_model_returns_that_model(family):
    base, records, _ = family
    answer = DARE(rate=0.0).reuse(records[:1], task(), base=base)
    for name, value in weights_of(records[0].network()).items():
        assert torch.allclose(dict(answer.module.named_parameters())[name], value, atol=1e-6)
    apart = DARE(rate=0.0, merge="apart").reuse(records[:1], task(), base=base)
    x = torch.randn(9, 3)
    assert torch.allclose(apart.module(x), records[0].network()(x), atol=1e-5)


def test_rate_one_returns_the_base(family):
    base, records, _ = family
    for merge in ("task-arithmetic", "average", "ties"):
        answer = DARE(rate=1.0, merge=merge).reuse(records, task(), base=base)
        for name, value in weights_of(base.network()).items():
            assert torch.equal(dict(answer.module.named_parameters())[name], value)


def test_plain_task_arithmetic_is_the_sum_of_deltas(family):
    base, records, _ = family
    answer = TaskArithmetic(scaling=0.4).reuse(records, task(), base=base)
    below, (one, two) = weights_of(base.network()), [weights_of(r.network()) for r in records]
    for name, value in weights_of(answer.module).items():
        assert torch.allclose(value, below[name] + 0.4 * (one[name] + two[name] - 2 * below[name]), atol=1e-6)


@pytest.mark.parametrize("merge", ["task-arithmetic", "average", "ties", "fisher", "regmean", "apart"])
def test_every_merge_is_deterministic_leaves_the_models_alone_and_saves(family, merge, tmp_path):
    base, records, tasks = family
    before = [copy.deepcopy(r.network().state_dict()) for r in (base, *records)]
    method, data = DARE(rate=0.5, merge=merge, scaling=0.5), tasks["left"]
    first, second, other = (method.reuse(records, task(data), base=base, seed=s) for s in (0, 0, 1))
    x = data.tensors[0][:20]
    assert np.array_equal(first.predict(x), second.predict(x))
    assert not np.array_equal(first.predict(x), other.predict(x))
    for record, old in zip((base, *records), before, strict=True):
        assert all(torch.equal(v, old[n]) for n, v in record.network().state_dict().items())
    first.save(tmp_path / "answer")
    assert np.array_equal(ReuseResult.open(tmp_path / "answer").predict(x), first.predict(x))
    assert first.provenance["ids"] == ["left", "right"]
    assert "MIT" in first.explain()


def test_scaling_makes_auto_choose_on_the_labels(family):
    base, records, tasks = family
    labelled = TensorDataset(*(t[:60] for t in tasks["left"].tensors))
    auto = DARE(rate=0.0, scaling="auto").reuse(records, task(labelled=labelled), base=base)
    score = Classification().mean_score
    each = [score(TaskArithmetic(scaling=s).reuse(records, task(), base=base).module, labelled)
            for s in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)]  # fmt: skip
    assert score(auto.module, labelled) == max(each)
    assert auto.cost["evaluations"] == 6
    with pytest.raises(NotApplicable, match="labelled"):
        DARE(scaling="auto").reuse(records, task(), base=base)


def test_an_excluded_head_stays_each_models_own(family):
    base, records, _ = family
    answer = DARE(rate=0.5, exclude=("head.*",)).reuse(records, task(), base=base)
    assert isinstance(answer.predictor, EnsemblePredictor)
    one, two = (member.module for member in answer.predictor.members)
    assert torch.equal(one.head.weight, records[0].network().head.weight)
    assert torch.equal(two.head.weight, records[1].network().head.weight)
    assert torch.equal(one.body[0].weight, two.body[0].weight)


def test_heads_of_other_classes_are_merged_class_by_class(family):
    base, records, _ = family
    known = [("a", "b", "c"), ("c", "d", "e")]
    others = [
        ModelRecord(r.id, r.load, classes=k, base=r.base, digest=r.digest) for r, k in zip(records, known, strict=True)
    ]
    wanted = ("e", "c", "a")
    answer = DARE(rate=0.0, merge="average").reuse(others, Task(classes=wanted), base=base)
    heads = [r.network().head.weight for r in records]
    expected = torch.stack([heads[1][2], (heads[0][2] + heads[1][0]) / 2, heads[0][0]])
    assert torch.allclose(answer.module.head.weight, expected, atol=1e-6)
    bodies = [r.network().body[0].weight for r in records]
    assert torch.allclose(answer.module.body[0].weight, (bodies[0] + bodies[1]) / 2, atol=1e-6)
    single = DARE(rate=0.0).reuse(others[1:], Task(classes=wanted), base=base)
    assert single.predict(torch.randn(4, 3)).shape == (4, 3)
    nameless = [ModelRecord.of(mlp(3, 4, (64,)), "x", base=base.digest)]
    with pytest.raises(NotApplicable, match="what their outputs mean is not known"):
        DARE().reuse(nameless, Task(), base=base)


def test_batch_statistics_are_measured_on_the_tasks_data():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).eval()
    tuned = copy.deepcopy(base)
    with torch.no_grad():
        tuned[0].weight += 0.5
        tuned[1].running_mean += 4.0
    x = torch.randn(300, 3)
    answer = DARE(rate=0.5).reuse([tuned], Task(data=TensorDataset(x)), base=base).module
    assert torch.allclose(answer[1].running_mean, answer[0](x).mean(0), atol=1e-5)
    without = DARE(rate=0.5, merge="average").reuse([base, tuned], Task(), base=base).module
    assert torch.allclose(without[1].running_mean, torch.full((4,), 2.0))


def test_models_of_another_base_are_left_out_and_none_at_all_is_refused(family):
    base, records, _ = family
    stranger = ModelRecord.of(mlp(3, 3, (64,)), "stranger", base="another", classes=CLASSES)
    answer = DARE().reuse([*records, stranger], task(), base=base)
    assert set(answer.weights) == {"left", "right"}
    with pytest.raises(NotApplicable, match="another"):
        DARE().reuse([stranger], task(), base=base)
    with pytest.raises(NotApplicable, match="pass base="):
        DARE().reuse(records, task())
    other = ModelRecord.of(mlp(3, 3, (32,)), "narrow", classes=CLASSES)
    with pytest.raises(BadInput, match="has the shape"):
        DARE().reuse([other], task(), base=ModelRecord(base.id, base.load))
    with pytest.raises(NotApplicable, match="data="):
        DARE(merge="fisher").reuse(records, task(), base=base)


def test_several_bases_are_merged_apart(family):
    base, records, _ = family
    torch.manual_seed(1)
    small = mlp(3, 3, (8,))
    second = ModelRecord.of(small, "small", classes=CLASSES)
    child = ModelRecord.of(copy.deepcopy(small), "child", base=second.digest, classes=CLASSES)
    answer = DARE(rate=0.0).reuse([*records, child], task(), base=base, extras={"bases": [second]})
    widths = {m.id: m.module.head.in_features for m in answer.predictor.members}
    assert widths == {"left": 64, "right": 64, "child": 8}
    assert answer.weights == {"left": 0.5, "right": 0.5, "child": 1.0}
    sizes = [sum(p.numel() for p in m.parameters()) for m in (records[0].network(), small)]
    assert answer.cost["stored_parameters"] == sum(sizes)


@pytest.mark.parametrize(
    "wrong", [{"rate": -0.1}, {"rate": 1.1}, {"trim": 1.0}, {"scaling": 0.0}, {"merge": "mean"}, {"strategy": "best"}]
)
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="dare"):
        DARE(**wrong)


def test_variants_differ_only_in_what_they_say():
    assert DropOnly().rescale is False
    assert DeltaMagnitude().strategy == "magnitude"
    assert TIES().rate == TaskArithmetic().rate == 0
    assert (DropOnly.claim, DARE.claim) == (None, CLAIM)


def test_merges_that_need_networks_do_not_run_on_checkpoints(tmp_path):
    for wrong in ({"merge": "fisher"}, {"merge": "apart"}, {"scaling": "auto"}):
        with pytest.raises(NotApplicable, match="in memory"):
            DARE(**wrong).merge_checkpoints(tmp_path, [tmp_path], tmp_path / "out")


# -- the problem and the diagnostics -----------------------------------------------------------------------------------


def test_the_problem_scores_each_task_with_its_own_network(family):
    base, records, tasks = family
    problem = merge_problem(records, base, tasks, classes=CLASSES, training=tasks)
    apart = problem.score(DARE(rate=0.0, merge="apart").solve(problem.given))
    score = Classification().mean_score
    assert apart["tuned_score"] == pytest.approx(sum(score(r.network(), tasks[r.id]) for r in records) / 2)
    assert apart["base_score"] == pytest.approx(sum(score(base.network(), t) for t in tasks.values()) / 2)
    assert apart["test_score"] == apart["tuned_score"]
    assert apart["retention"] == 1.0
    assert math.isnan(apart["narrow_score"])
    gone = problem.score(DARE(rate=1.0, merge="apart").solve(problem.given))
    assert gone["retention"] == 0.0
    size = sum(p.numel() for p in base.network().parameters())
    assert gone["stored_parameters"] == size
    assert size < apart["stored_parameters"] <= 3 * size
    half = problem.score(DARE(rate=0.5, merge="apart").solve(problem.given))
    assert half["stored_parameters"] - size == pytest.approx(0.5 * (apart["stored_parameters"] - size), rel=0.15)


def test_the_problem_takes_only_what_merges(family):
    base, records, tasks = family
    problem = merge_problem(records, base, tasks, classes=CLASSES)
    assert problem.lacks(DARE.card.needs, ()) is None
    assert "training" in problem.lacks(MultiTask.card.needs, ())
    assert problem.lacks(("models", "labelled"), ()) is not None
    assert registry.make_problem("hub:models=1", 0).lacks(MultiTask.card.needs, ()) is not None
    with pytest.raises(NotApplicable, match="validation"):
        problem.validate(DARE().solve(problem.given))
    with pytest.raises(BadInput, match="model ids"):
        merge_problem(records, base, {"nobody": tasks["left"]})


def test_the_embedded_problem_can_be_learnt_and_its_base_fails():
    problem = registry.make_problem("rotated-digits:width=32:narrow=16:epochs=15", 0)
    found = problem.score(DARE(rate=0.0, merge="apart").solve(problem.given))
    assert found["tuned_score"] > 0.8
    assert found["base_score"] < 0.4
    assert found["retention"] == pytest.approx(1.0)
    assert found["narrow_retention"] == pytest.approx(1.0)
    assert problem.validate(DARE(merge="apart").solve(problem.given))["validation_score"] > 0
    with pytest.raises(BadInput, match="shift"):
        registry.make_problem("rotated-digits:shift=mirror", 0)


def test_on_the_hub_it_merges_the_relatives():
    problem = registry.make_problem("hub:models=4", 0)
    answer = DARE(rate=0.2, merge="average").solve(problem.given)
    assert 0 < problem.score(answer)["test_score"] <= 1
    assert answer.module.head.out_features == len(problem.given.task.classes)


def test_the_diagnosis_is_what_the_method_does(family):
    base, records, tasks = family
    found = diagnose(base.network(), records[0].network(), tasks["left"], rates=(0.0, 0.5, 1.0))
    assert found.retention(0.0) == 1.0
    assert found.retention(1.0) == 0.0
    assert found.tolerance in (0.0, 0.5)
    values = {"w": torch.tensor([[-4.0, 1.0], [2.0, -3.0]]), "b": torch.tensor([0.0])}
    assert delta_quantiles(values, (0.0, 0.5, 1.0)) == {0.0: 0.0, 0.5: 2.0, 1.0: 4.0}


def test_tolerance_is_the_largest_rate_that_keeps_enough():
    arms = {"p=0.1": 1.0, "p=0.3": 0.9, "p=0.5": 0.7, "p=0.7": 0.85, "self": 0.5, "p=0.95": 0.1, "p=0.99": 0.0}
    rows = {arm: {"retention": value} for arm, value in arms.items()}
    assert tolerance(rows, "retention") == 0.7
    assert tolerance({arm: {"retention": 0.0} for arm in arms}, "retention") == 0.0

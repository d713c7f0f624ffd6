"""S3T: worked values of its orders, and exactness: what is served does not depend, by a bit, on what was deleted."""

import copy
import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import didact
from didact.core.claim import judge
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification, Regression
from didact.core.recipe import Recipe
from didact.core.registry import make_problem
from didact.forgetting import S3T, DeletionStream
from didact.forgetting.request import Request
from didact.forgetting.s3t.adapters import LowRank, SlicedEnsemble, layer_groups, layers_of
from didact.forgetting.s3t.orders import (
    expected_deletions,
    rotated,
    score,
    simulated_deletions,
    slice_orders,
    surviving,
)
from didact.forgetting.s3t.stream import Accuracies, StreamSubject
from didact.models.residual import residual_mlp
from didact.models.small import convnet, mlp

PRIOR = (0.4, 0.3, 0.2, 0.1)


def clouds(n, seed=0, classes=3, garbage=()):
    """Points around the corners of a simplex; those at the positions `garbage` are noise with random labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, 6, generator=generator) + 2.0 * F.one_hot(y, 6)
    other = torch.Generator().manual_seed(seed + 1)
    noise, labels = 30 * torch.randn(n, 6, generator=other), torch.randint(classes, (n,), generator=other)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[list(garbage)] = True
    return TensorDataset(torch.where(chosen[:, None], noise, x), torch.where(chosen, labels, y))


class Normalised(nn.Module):
    """Batch normalisation and dropout in the backbone: nothing of either may move with the private data."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.ReLU(),
            nn.Linear(16, 16), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.body(x))


RECIPE = Recipe(Normalised, Classification(), "normalised", epochs=5, lr=1e-2)
SCHEME = S3T(shards=2, slices=3, budget=3, rank=2, epochs=2, lr=1e-2, batch_size=8)


@pytest.fixture(scope="module")
def backbone():
    return RECIPE.fit(clouds(60, seed=7), 0)


@pytest.fixture(scope="module")
def prepared(backbone):
    """A system on 60 records, in two shards of three slices of ten; tests work on forks of it."""
    return SCHEME.prepare(backbone, clouds(60), 0)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def ids_of(system, *places):
    return [id_ for shard, part in places for id_ in system.slices[shard][part].tolist()]


# -- orders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shards", "slices", "budget", "expected", "simulated"),
    [(5, 6, 1, 68.50, 67.97), (5, 6, 2, 87.87, 87.92), (5, 6, 6, 119.85, 120.27), (3, 4, 1, 22.0, 22.08),
     (3, 4, 4, 37.24, 37.16)],
)  # fmt: skip
def test_expected_deletions_are_a_coupon_collectors_wait(shards, slices, budget, expected, simulated):
    theory = expected_deletions(shards, slices, budget)
    assert theory == pytest.approx(expected, abs=0.005)
    assert theory == pytest.approx(simulated, rel=0.01)
    orders = [slice_orders(slices, budget)] * shards
    runs = 300
    # The wait for K of N coupons has the variance N^2 * sum 1/k^2 - N * H_K, at most N^2 * pi^2/6.
    error = shards * slices * math.sqrt(math.pi**2 / 6 / runs)
    assert simulated_deletions(orders, slices, runs) == pytest.approx(theory, abs=4 * error)


def test_orders_that_begin_alike_die_together():
    alike = [[(0, 1, 2), (0, 2, 1)]]
    assert simulated_deletions(alike, 3, 2000) == pytest.approx(3.0, abs=0.25)  # the wait for slice 0 alone
    assert expected_deletions(1, 3, 6) == expected_deletions(1, 3, 3) == pytest.approx(3 * (1 + 1 / 2 + 1 / 3))
    assert simulated_deletions([slice_orders(3, 6)], 3, 2000) == pytest.approx(5.5, abs=0.25)


def test_worked_values_of_the_score():
    assert score(PRIOR, t=1) == pytest.approx(1.5)
    assert score(PRIOR[::-1], t=1) == pytest.approx(3.5)
    assert score((0.5, 0.5), t=100) == pytest.approx(0.5**100)


def test_worked_orders_of_the_matching():
    assert slice_orders(4, 4, "bms", PRIOR) == [(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)]
    assert slice_orders(4, 2, "bms", PRIOR) == [(2, 3, 0, 1), (3, 2, 1, 0)]  # begins where deletions are rare


def test_cyclic_orders_rotate():
    assert slice_orders(3, 3) == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    more = slice_orders(4, 12)
    assert Counter(order[0] for order in more) == {0: 3, 1: 3, 2: 3, 3: 3}
    assert len({order[:2] for order in more}) == 12
    assert {rotated(4, index) for index in range(24)} == set(permutations(range(4)))


@pytest.mark.parametrize("kind", ["cyclic", "bms", "sampled", "random"])
@pytest.mark.parametrize(("slices", "budget"), [(1, 1), (3, 2), (3, 6), (4, 7), (4, 24), (5, 3)])
def test_orders_are_different_permutations(kind, slices, budget):
    prior = np.arange(slices, 0, -1) / np.arange(1, slices + 1).sum()
    orders = slice_orders(slices, budget, kind, tuple(prior), seed=3)
    assert len(set(orders)) == len(orders) == budget
    assert all(sorted(order) == list(range(slices)) for order in orders)
    assert orders == slice_orders(slices, budget, kind, tuple(prior), seed=3)


def test_sampled_orders_begin_with_what_is_rarely_deleted():
    runs = 1500
    firsts = Counter(slice_orders(4, 1, "sampled", PRIOR, seed=seed)[0][0] for seed in range(runs))
    for part, p in enumerate(PRIOR):
        assert firsts[part] / runs == pytest.approx((1 - p) / 3, abs=0.04)
    uniform = Counter(slice_orders(4, 1, "random", seed=seed)[0][0] for seed in range(runs))
    assert all(uniform[part] / runs == pytest.approx(0.25, abs=0.04) for part in range(4))


def test_a_second_sampled_order_is_the_next_one_that_is_new():
    prior = (0.5, 0.3, 0.2)
    weights, runs = 1 - np.array(prior), 1500

    def probability(order):
        return weights[order[0]] / 2 * weights[order[1]] / (2 - weights[order[0]])

    every = list(permutations(range(3)))
    exact = {(a, b): probability(a) * probability(b) / (1 - probability(a)) for a in every for b in every if a != b}
    found = Counter(tuple(slice_orders(3, 2, "sampled", prior, seed=seed)) for seed in range(runs))
    assert max(abs(found[pair] / runs - p) for pair, p in exact.items()) < 0.02
    # A beginning that was used once is half used up: fewer second orders share it than if it were drawn afresh.
    alike = sum(p for (a, b), p in exact.items() if a[0] == b[0])
    assert sum(found[a, b] for a, b in exact if a[0] == b[0]) / runs == pytest.approx(alike, abs=0.04)


def test_what_survives_is_the_part_before_the_first_deleted_slice():
    assert surviving((2, 0, 3, 1), {3}) == (2, 0)
    assert surviving((2, 0, 3, 1), {2, 1}) == ()
    assert surviving((2, 0, 3, 1), set()) == (2, 0, 3, 1)


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_groups_run_from_the_top():
    model = residual_mlp(64, 10, width=8, blocks=8)
    groups = layer_groups(model, 4)
    assert groups[0] == ["blocks.7.enter", "blocks.7.leave", "blocks.6.enter", "blocks.6.leave"]
    assert groups[3][:1] == ["blocks.1.enter"]
    assert layers_of(model)[0] == ["stem"]  # nine layers, two a group: the lowest is left alone
    assert not any("stem" in group or "head" in group for group in groups)
    assert layer_groups(convnet(), 3) == [["dense.1"], ["blocks.1.0"], ["blocks.0.0"]]
    assert layer_groups(mlp(6, 3), 2) == [["body.2"], ["body.0"]]


def test_layers_that_are_not_called_are_left_alone():
    model = nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16), nn.MultiheadAttention(8, 2))
    assert layers_of(nn.Sequential(*model, nn.Linear(8, 2))) == [["0"]]


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(3, 4, 3, stride=2, padding=1)])
def test_an_adapter_is_a_low_rank_change_of_the_weight(layer):
    adapter = LowRank(layer, rank=2, alpha=3.0, dropout=0.0)
    x = torch.randn(5, *((6,) if isinstance(layer, nn.Linear) else (3, 8, 8)))
    assert torch.equal(adapter(x), torch.zeros_like(layer(x)))
    nn.init.normal_(adapter.up.weight)
    product = adapter.up.weight.flatten(1) @ adapter.down.weight.flatten(1)
    changed = copy.deepcopy(layer)
    changed.weight.data += 3.0 / math.sqrt(2) * product.view_as(layer.weight)
    assert torch.allclose(layer(x) + adapter(x), changed(x), atol=1e-5)


def test_a_fresh_ensemble_is_the_backbone_and_averages_probabilities(backbone):
    groups, x = layer_groups(backbone, 3), clouds(9).tensors[0]
    ensemble = SlicedEnsemble(copy.deepcopy(backbone), groups, "head", [3, 1]).eval()
    assert torch.allclose(ensemble(x), backbone(x).log_softmax(-1), atol=1e-6)
    for slot in range(2):
        nn.init.normal_(ensemble.head_of(slot).weight)
    wanted = (ensemble.member(0, x).softmax(-1) + ensemble.member(1, x).softmax(-1)) / 2
    assert torch.allclose(ensemble(x).exp(), wanted, atol=1e-6)
    numbers = SlicedEnsemble(copy.deepcopy(backbone), groups, "head", [3, 1], average="outputs").eval()
    nn.init.normal_(numbers.head_of(1).weight)
    assert torch.allclose(numbers(x), (numbers.member(0, x) + numbers.member(1, x)) / 2, atol=1e-6)


def test_the_backbone_stays_frozen_in_training(backbone):
    ensemble = SlicedEnsemble(copy.deepcopy(backbone), layer_groups(backbone, 3), "head", [3]).train()
    training = {type(module) for module in ensemble.backbone.modules() if module.training}
    assert training == {LowRank, nn.Dropout, nn.Linear}  # the adapters, their dropout and their maps
    assert not ensemble.backbone.body[3].training


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "places",
    [[(0, 0)], [(0, 2)], [(1, 1), (0, 1)], [(0, 0), (0, 1), (1, 2)], [(0, 0), (0, 1), (0, 2)]],
    ids=lambda places: "+".join(f"{shard}.{part}" for shard, part in places),
)
@pytest.mark.parametrize("cumulative", [True, False])
def test_what_is_served_is_as_if_the_deleted_slices_had_held_garbage(backbone, prepared, places, cumulative):
    scheme = S3T(**{**SCHEME.settings, "cumulative": cumulative})
    system = prepared.fork() if cumulative else scheme.prepare(backbone, clouds(60), 0)
    gone = ids_of(system, *places)
    other = scheme.prepare(backbone, clouds(60, garbage=gone), 0)
    assert not same(system.model, other.model)  # before the deletion the garbage shows
    assert system.delete(gone) == other.delete(gone)
    assert system.served == other.served
    assert same(system.model, other.model)
    assert system._stages.keys() == other._stages.keys()
    for key, stage in system._stages.items():  # also what is stored but not served
        theirs = other._stages[key]
        assert all(torch.equal(stage.head[name], theirs.head[name]) for name in stage.head)
        for name, tensors in stage.adapters.items():
            assert all(torch.equal(tensors[k], theirs.adapters[name][k]) for k in tensors)


def test_retraining_a_dead_shard_is_exact_too(backbone, prepared):
    system = prepared.fork()
    # One record of each slice, and the whole of one slice: every order dies, and one slice has nothing left.
    gone = [int(system.slices[0][part][0]) for part in range(3)] + ids_of(system, (0, 1))
    other = SCHEME.prepare(backbone, clouds(60, garbage=gone), 0)
    for one in (system, other):
        assert one.delete(gone) == [0]
        assert one.retrain() == [0]
        assert one.dead == []
    assert system.slices_used == [2, 3]
    assert all(1 not in order for order in system.orders[0])
    assert same(system.model, other.model)
    system.delete(gone)  # a second request for the same records hits nothing: they are not in the new models
    assert system.slices_used == [2, 3]


def test_as_an_unlearner_its_answer_does_not_depend_on_the_forget_data(backbone):
    retain, scheme = clouds(60), S3T(**{**SCHEME.settings, "epochs": 1})
    answers = []
    for garbage in ((), range(12)):
        forget = clouds(12, seed=5, garbage=garbage)
        recipe = RECIPE.but(epochs=1)
        model = recipe.fit(TensorDataset(*(torch.cat(p) for p in zip(retain.tensors, forget.tensors))), 0)  # noqa: B905
        answers.append(scheme.unlearn(model, forget, retain, recipe=recipe))
    assert same(*answers)


# -- the system --------------------------------------------------------------------------------------------------------


def test_deleting_costs_nothing_and_cuts_each_order_at_the_slice(prepared):
    system = prepared.fork()
    assert system.orders[0] == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    before = prepared.model
    with Meter() as meter:
        assert system.delete(ids_of(system, (0, 1))[:1]) == []  # one record is enough
    assert meter.passes == 0
    assert system.steps == prepared.steps
    assert (system.alive, system.slices_used, system.served[0]) == ([2, 3], [2, 3], (2, 0))
    system.delete(torch.tensor(ids_of(system, (0, 2))))
    assert (system.alive, system.slices_used, system.served[0]) == ([1, 3], [1, 3], (0,))
    assert system.delete(ids_of(system, (0, 0))) == [0]
    assert system.model.active == [3]  # the other shard serves on
    assert system.delete(range(60)) == [0, 1]
    with pytest.raises(NotApplicable, match="retrain"):
        _ = system.model
    assert system.retrain() == []  # no record is left
    assert prepared.alive == [3, 3]
    assert same(prepared.model, before)


def test_places_are_disjoint_and_known(prepared):
    ids = [id_ for shard in prepared.slices for part in shard for id_ in part.tolist()]
    assert sorted(ids) == list(range(60))
    assert {len(part) for shard in prepared.slices for part in shard} == {10}
    slice_of = torch.arange(60) % 3
    scheme = S3T(**{**SCHEME.settings, "epochs": 1, "order": "bms", "prior": (0.6, 0.3, 0.1), "budget": 1})
    risky = scheme.prepare(prepared.backbone, clouds(60), 0, slice_of=slice_of)
    for shard in risky.slices:
        assert [set(slice_of[part].tolist()) for part in shard] == [{0}, {1}, {2}]
    assert risky.orders[0][0][0] == 2  # what is rarely deleted comes first
    risky.delete(ids_of(risky, (0, 2)))
    assert risky.retrain() == [0]
    assert sorted(risky.orders[0][0]) == [0, 1]


def test_orders_that_begin_alike_share_their_stages(backbone):
    scheme = S3T(**{**SCHEME.settings, "shards": 1, "budget": 6, "epochs": 1})
    with Meter() as meter:
        system = scheme.prepare(backbone, clouds(60), 0)
    assert len(system._stages) == 3 + 6 + 6
    assert meter.forward == meter.backward == 3 * 20 + 6 * 40 + 6 * 60
    alone = S3T(**{**scheme.settings, "cumulative": False})
    with Meter() as meter:
        alone.prepare(backbone, clouds(60), 0)
    assert meter.forward == 15 * 20


def test_stages_train_one_group_and_the_head(prepared):
    system, served = prepared, prepared.model
    first = system._stages[next(key for key in system._stages if key.seen == (0,))]
    assert list(first.adapters) == system.groups[0]
    assert all(float(state["up.weight"].abs().sum()) > 0 for state in first.adapters.values())
    for name, tensor in first.adapters[system.groups[0][0]].items():
        assert torch.equal(served.adapters(0, 0)[system.groups[0][0]].state_dict()[name], tensor)
    public = served.parts()["backbone"]
    assert same(public, system.backbone)


def test_preparing_is_deterministic_and_changes_nothing_given(backbone, prepared):
    private, before = clouds(60), copy.deepcopy(backbone)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = SCHEME.prepare(backbone, private, 0)
    model = again.model
    assert torch.equal(torch.rand(1), expected)
    assert same(model, prepared.model)
    assert same(backbone, before)
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(a, b) for a, b in zip(private.tensors, clouds(60).tensors, strict=True))
    assert not same(SCHEME.prepare(backbone, private, 1).model, model)


def test_it_learns_the_private_data(backbone):
    private, test, objective = clouds(240), clouds(300, seed=9), Classification()
    wrong = copy.deepcopy(backbone)
    wrong.head.weight.data = wrong.head.weight.roll(1, 0)
    system = S3T(shards=2, slices=3, budget=1, rank=4, epochs=6, lr=1e-2, batch_size=8).prepare(wrong, private, 0)
    assert objective.mean_score(wrong, test) < 0.4
    assert objective.mean_score(system.model, test) > 0.75
    system.delete(ids_of(system, (0, 1), (1, 1)))
    assert objective.mean_score(system.model, test) > 0.6


def test_a_recipe_is_pretrained_on_the_public_data(prepared):
    from_recipe = SCHEME.prepare(RECIPE, clouds(60), 0, public=clouds(60, seed=7))
    assert same(from_recipe.model, prepared.model)


def test_a_regressor_is_served_by_its_mean():
    x = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
    scheme = S3T(**{**SCHEME.settings, "slices": 2, "budget": 2, "epochs": 1})
    backbone = mlp(6, 1, (8, 8))
    model = scheme.prepare(backbone, TensorDataset(x, x.sum(1)), 0, objective=Regression()).model
    assert torch.allclose(model(x), (model.member(0, x) + model.member(1, x)) / 2)


def test_it_saves_and_loads(prepared, tmp_path):
    system, x = prepared.fork(), clouds(30, seed=9).tensors[0]
    system.delete(ids_of(system, (1, 0)))
    blank = residual_mlp(6, 3, width=8, blocks=4)
    model = S3T(**{**SCHEME.settings, "epochs": 1}).prepare(blank, clouds(60), 0).model
    didact.save(model, tmp_path / "model")
    loaded = didact.load(tmp_path / "model")
    assert same(loaded, model)
    assert torch.equal(loaded(x), model(x))
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.suffix not in (".json", ".safetensors")]


def test_a_hugging_face_classifier_by_its_queries_and_values(tmp_path):
    from didact.models.language import text_classifier

    torch.manual_seed(0)
    backbone = text_classifier(20, 2, hidden=16, heads=2)
    data = [
        {"input_ids": torch.tensor([i % 17 + 3, 5, 6]), "attention_mask": torch.ones(3).long(), "labels": i % 2}
        for i in range(16)
    ]
    scheme = S3T(shards=2, slices=2, budget=2, rank=2, epochs=1, targets="query,value")
    system = scheme.prepare(backbone, data, 0)
    prefix = "bert.encoder.layer.1.attention.self"
    assert system.groups[0] == [f"{prefix}.query", f"{prefix}.value"]
    other = scheme.prepare(
        backbone, [{**s, "labels": 0} if i in system.slices[0][0] else s for i, s in enumerate(data)]
    )
    for one in (system, other):
        one.delete(system.slices[0][0])
    assert system.slices_used == [1, 2]
    assert same(system.model, other.model)
    model, objective = system.model, Classification()
    didact.save(model, tmp_path / "model")
    loaded = didact.load(tmp_path / "model")
    assert torch.equal(objective.losses(loaded, data), objective.losses(model, data))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"slices": 2}, "2 ways, but a budget of 4"),
        ({"slices": 3, "budget": 7}, "6 ways"),
        ({"prior": (0.5, 0.3, 0.1, 0.2)}, r"sums to 1\.1"),
        ({"prior": "0.5,0.5"}, "each of the 4 slices"),
        ({"prior": (1.5, -0.5, 0.0, 0.0)}, "at least 0"),
        ({"order": "bms"}, "needs a prior"),
        ({"order": "sampled"}, "needs a prior"),
        ({"order": "best"}, "order"),
        ({"rank": 0}, "rank"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_wrong_hyperparameters_are_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        S3T(**wrong)


def test_bad_input_is_refused(backbone, prepared):
    system = prepared.fork()
    for ids in ([60], [0, -1], [1.5], ["a"]):
        with pytest.raises(BadInput, match="not among the 60 private records"):
            system.delete(ids)
    assert system.slices_used == [3, 3]
    with pytest.raises(BadInput, match="4 slices were asked for, but Normalised has 3 adaptable layers"):
        S3T(budget=1).prepare(backbone, clouds(60), 0)
    with pytest.raises(BadInput, match="adaptable layers named query"):
        S3T(slices=1, budget=1, targets=("query",)).prepare(backbone, clouds(60), 0)
    with pytest.raises(BadInput, match="leave a slice empty"):
        SCHEME.prepare(backbone, clouds(5), 0)
    with pytest.raises(BadInput, match="slice_of holds the slice, 0 to 2"):
        SCHEME.prepare(backbone, clouds(60), 0, slice_of=[3] * 60)
    with pytest.raises(BadInput, match="pass public="):
        SCHEME.prepare(RECIPE, clouds(60), 0)
    with pytest.raises(NotApplicable, match="pass recipe="):
        S3T().unlearn(backbone, clouds(12, seed=5), clouds(60))
    linear = Recipe(lambda: mlp(6, 3, ()), Classification(), epochs=1)
    with pytest.raises(NotApplicable, match="besides its head"):
        S3T().unlearn(linear.fresh(0), clouds(12, seed=5), clouds(60), recipe=linear)


def test_as_an_unlearner_it_takes_no_more_slices_than_there_are_layers():
    recipe = Recipe(lambda: mlp(6, 3, (8, 8)), Classification(), epochs=1)
    with Meter() as meter:
        S3T(epochs=1, shards=2).unlearn(recipe.fresh(0), clouds(12, seed=5), clouds(60), recipe=recipe)
    assert (meter.log["slices"], meter.log["slices_used"], meter.log["retrained_shards"]) == (2, [2, 2], 2)
    with pytest.raises(BadInput, match="prior is for 4 slices"):
        S3T(prior=PRIOR).edit(recipe.fresh(0), Request(recipe.fresh(0), clouds(9, seed=5), clouds(60), recipe=recipe))


# -- the experiment ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject(backbone):
    return StreamSubject(backbone, RECIPE, clouds(60, seed=7), clouds(60), clouds(60, seed=9), 3)


STREAM = {"shards": 2, "slices": 3, "epochs": 1, "streams": 40, "requests": 6}


def test_a_stream_measures_what_theory_says(subject):
    many = DeletionStream(**STREAM, budget=3).run(subject, seed=0)
    one = DeletionStream(**STREAM, budget=1).run(subject, seed=0)
    for found, budget in ((many, 3), (one, 1)):
        assert found.numbers["expected_survived"] == expected_deletions(2, 3, budget)
        spread = 6 * math.sqrt(math.pi**2 / 6 / 40)
        assert found.numbers["requests_survived"] == pytest.approx(expected_deletions(2, 3, budget), abs=4 * spread)
        assert len(found.tables["by_request"]) == 6
    # Both serve the same model until the first request, so the difference afterwards is the orders' alone.
    assert many.numbers["accuracy_before"] == one.numbers["accuracy_before"]
    assert many.numbers["requests_survived"] > one.numbers["requests_survived"]
    assert many.numbers["mean_accuracy"] > one.numbers["mean_accuracy"]
    assert one.numbers["mean_with_backbone"] > one.numbers["mean_accuracy"]


def test_accuracies_are_those_of_the_served_model(subject, prepared):
    accuracy_of, system = Accuracies(subject), prepared.fork()
    for place in (None, (0, 1), (1, 0), (0, 2), (0, 0)):
        system.delete(ids_of(system, *([place] if place else [])))
        expected = Classification().mean_score(system.model, subject.test)
        assert accuracy_of(system) == pytest.approx(expected)
    assert len(accuracy_of.known) == 5
    assert len(accuracy_of.outputs) == 5  # of shard 0: all, (2, 0), (0,); of shard 1: all, and one after the deletion


def test_without_slices_the_first_request_ends_it(subject):
    alone = DeletionStream(**{**STREAM, "shards": 1, "slices": 1, "budget": 1}).run(subject, seed=0)
    full = DeletionStream(scheme="full", streams=2).run(subject, seed=0)
    for found in (alone, full):
        assert found.numbers["requests_survived"] == 1.0
        assert found.numbers["mean_accuracy"] == pytest.approx(1 / 3)
        assert found.numbers["mean_with_backbone"] == pytest.approx(found.numbers["backbone_accuracy"])
        assert found.numbers["accuracy_before"] > 0.6


def test_the_stream_problem_and_its_study_fit_together(tmp_path):
    problem = make_problem("digits-deletions:private=72:width=8:blocks=4:epochs=1", seed=1)
    assert problem.lacks(DeletionStream.card.needs, ()) is None
    assert "not an experiment" in problem.lacks(S3T.card.needs, ())
    assert len(problem.given.subject.test) == 1797 - 200 - 72
    study = DeletionStream(epochs=1, streams=2, requests=3)
    found, again = study.solve(problem.given), study.solve(problem.given)
    assert problem.score(found) == problem.score(again)
    problem.keep(found, tmp_path / "kept")
    assert (tmp_path / "kept" / "findings.json").is_file()
    with pytest.raises(BadInput, match="StreamSubject"):
        study.run(problem)


def test_the_claim_is_judged_on_the_streams():
    good = {"accuracy_before": 0.95, "mean_accuracy": 0.93, "requests_survived": 37.0}
    sisa = {"accuracy_before": 0.95, "mean_accuracy": 0.75, "requests_survived": 22.0}
    assert judge("s3t", S3T.claim, [{"self": good, "sisa": sisa}] * 3, 3).outcome == "holds"
    short = {**good, "requests_survived": 30.0}
    assert judge("s3t", S3T.claim, [{"self": short, "sisa": sisa}] * 3, 3).outcome == "fails"

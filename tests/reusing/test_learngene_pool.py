"""The pool: which blocks may be joined, how stitches begin, what a built network is, and what is refused."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import didact
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.data.digits import digits
from didact.models.small import convnet
from didact.models.vit import vit
from didact.reusing import Budget
from didact.reusing.learngene_pool import (
    Configuration,
    InstancesOnly,
    LearngenePool,
    Pool,
    SizeScratch,
    StitchableNetworks,
    size_problem,
    stitched_pairs,
)
from didact.reusing.learngene_pool.baselines import fit_stitches
from didact.reusing.learngene_pool.distil import distilled, matched_blocks, stitch_weight, watched
from didact.reusing.learngene_pool.problem import largest_drop


def small_vit(width: int, blocks: int) -> nn.Module:
    return vit(dim=width, depth=blocks, heads=2, feedforward=2 * width)


@pytest.fixture(scope="module")
def problem():
    data = digits(0, train=64, validation=32, test=64)
    names = tuple(str(i) for i in range(10))
    return size_problem(
        small_vit, small_vit(12, 3), data.train, data.test, classes=names, budget=Budget(4, 16),
        validation=data.validation,
    )  # fmt: skip


@pytest.fixture(scope="module")
def answer(problem):
    return LearngenePool(widths=(4, 8)).solve(problem.given)


@pytest.mark.parametrize(("blocks", "networks", "matrices"), [(3, 7, 2), (6, 16, 5), (9, 25, 8)])
def test_sliding_windows_join_neighbouring_blocks_and_share_matrices(blocks, networks, matrices):
    pairs = stitched_pairs(blocks)
    assert len(pairs) == networks
    assert len(set(pairs.values())) == matrices


def test_the_joined_blocks_of_three_by_name():
    assert stitched_pairs(3) == {(0, 0): 0, (0, 1): 0, (1, 0): 0, (1, 1): 0, (1, 2): 1, (2, 1): 1, (2, 2): 1}
    with pytest.raises(BadInput, match="window of 4"):
        stitched_pairs(3, window=4)


def test_a_pool_holds_its_instances_and_their_stitches():
    pool = Pool([small_vit(4, 3), small_vit(8, 3)])
    assert len(pool.configurations()) == 2 + 7
    assert len(pool.stitches) == 2
    three = [small_vit(4, 3), small_vit(6, 3), small_vit(8, 3)]
    assert Pool(three).joints() == [(0, 2)]
    assert Pool(three, every_pair=True).joints() == [(0, 1), (1, 2)]


def test_identical_instances_and_identity_stitches_give_the_instance_back():
    torch.manual_seed(0)
    wide = small_vit(8, 3)
    pool = Pool([small_vit(4, 3), wide]).eval()
    twin = small_vit(8, 3)
    twin.load_state_dict(wide.state_dict())
    pool.instances[0], pool.widths[0] = twin, 8
    for key in pool.stitches:
        stitch = nn.Linear(8, 8)
        with torch.no_grad():
            stitch.weight.copy_(torch.eye(8))
            stitch.bias.zero_()
        pool.stitches[key] = stitch
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        for leave in (0, 1):
            assert torch.allclose(pool.run(Configuration(0, 1, leave, leave + 1), x), wide(x), atol=1e-6)
        assert not torch.allclose(pool.run(Configuration(0, 1, 1, 1), x), wide(x), atol=1e-4)  # block 1 twice


def test_a_built_network_computes_what_the_pool_computes_and_holds_only_what_it_uses(tmp_path):
    torch.manual_seed(0)
    pool = Pool([small_vit(4, 3), small_vit(8, 3)]).eval()
    x = torch.rand(5, 1, 8, 8)
    block = [sum(p.numel() for p in pool.instances[i].blocks[0].parameters()) for i in (0, 1)]
    for configuration in pool.configurations():
        made = pool.build(configuration)
        with torch.no_grad():
            assert torch.allclose(made(x), pool.run(configuration, x), atol=1e-6)
        didact.save(made, tmp_path / "network")
        with torch.no_grad():
            assert torch.equal(didact.load(tmp_path / "network")(x), made(x))
    shallow, deep = (pool.parameters_of(Configuration(0, 1, *pair)) for pair in ((0, 1), (1, 1)))
    assert deep - shallow == block[0]
    longer = pool.parameters_of(Configuration(0, 1, 0, 0))
    assert longer - shallow == block[1]


def test_a_pool_saves_and_loads(answer, tmp_path):
    pool = answer.extras["pool"]
    loaded = Pool.open(pool.save(tmp_path / "pool"))
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        for configuration in pool.configurations():
            assert torch.equal(loaded.run(configuration, x), pool.run(configuration, x))


def test_stitches_begin_at_the_transposed_mean_or_the_pseudo_inverse_product():
    small, wide = torch.randn(4, 12), torch.randn(8, 12)
    assert torch.equal(stitch_weight(small, None), small.T)  # the wide instance has the ancestor's width
    weight = stitch_weight(small, wide)
    assert weight.shape == (8, 4)
    token = torch.randn(12)
    seen = small.T @ torch.linalg.inv(small @ small.T) @ (small @ token)  # what the small instance keeps of it
    assert torch.allclose(weight @ (small @ token), wide @ seen, atol=1e-4)


def test_the_mean_projection_is_what_the_learned_stitches_are():
    torch.manual_seed(0)
    data = digits(0, train=32, validation=16, test=16).train
    ancestor, student = small_vit(8, 3), small_vit(4, 3)
    pair = distilled(student, ancestor, data, Classification(), position="front,end", alpha=0.1, temperature=1.0,
                     budget=Budget(2, 16), seed=0)  # fmt: skip
    assert torch.equal(pair.projection, (pair.maps[0].weight + pair.maps[1].weight + pair.maps[2].weight) / 3)
    method = LearngenePool(widths=(4, 8), joint_steps=0)
    pool = method.fit(ancestor, small_vit, data, budget=Budget(2, 16))
    again = distilled(small_vit_seeded(4), ancestor, data, Classification(), position="front,end", alpha=0.1,
                      temperature=1.0, budget=Budget(2, 16), seed=0)  # fmt: skip
    stitch = pool.stitches["0-1-0"]
    assert torch.allclose(stitch.weight, again.projection.T)
    assert not stitch.bias.any()


def small_vit_seeded(width: int) -> nn.Module:
    """As the pool makes its first instance with seed 0."""
    from didact.core.recipe import seeded

    with seeded(0):
        return small_vit(width, 3)


def test_positions_compare_thirds():
    assert matched_blocks(3, 12, "front,end") == [(0, 3), (1, 7), (2, 11)]
    assert matched_blocks(6, 12, "mid,end") == [(3, 7), (5, 11)]
    assert matched_blocks(6, 12, "end") == [(5, 11)]


def test_block_and_attention_outputs_are_watched():
    model = small_vit(4, 3)
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad(), watched(model, [1]) as seen:
        model(x)
        tokens = model.blocks[0](model.embed(x))
    block = model.blocks[1]
    assert torch.allclose(seen[1][0], block(tokens))
    assert torch.allclose(seen[1][1], block.attention(block.norm1(tokens)))


def test_least_squares_stitches_carry_over_a_linear_image():
    torch.manual_seed(0)
    pool = Pool([small_vit(4, 2), small_vit(8, 2)]).eval()
    data = TensorDataset(torch.rand(64, 1, 8, 8), torch.zeros(64, dtype=torch.long))

    def error() -> float:
        x = data.tensors[0]
        with torch.no_grad():
            left = pool.instances[0].blocks[0](pool.instances[0].embed(x))
            right = pool.instances[1].blocks[0](pool.instances[1].embed(x))
            return float((pool.stitches["0-1-0"](left) - right).square().mean())

    before = error()
    fit_stitches(pool, data, Classification(), 64)
    assert error() < 0.5 * before


@pytest.mark.parametrize("method", [LearngenePool, StitchableNetworks])
def test_all_networks_are_scored(problem, method):
    found = problem.score(method(widths=(4, 8)).solve(problem.given))
    assert found["sizes"] == 9
    assert 0 <= found["stitched_min"] <= found["stitched_mean"] <= 1
    assert 0 <= found["largest_drop"] <= 1


def test_instances_alone_and_each_size_from_scratch(problem):
    assert problem.score(InstancesOnly().solve(problem.given))["sizes"] == 2
    found = problem.score(SizeScratch(widths=(4, 8)).solve(problem.given))
    assert found["sizes"] == 9
    assert found["training_steps"] == 9 * 4


def test_the_answer_respects_the_limit_and_saves(problem, tmp_path):
    from dataclasses import replace

    task = replace(problem.given.task, wants={"max_parameters": 2_500})
    answer = LearngenePool(widths=(4, 8)).solve(replace(problem.given, task=task))
    assert sum(p.numel() for p in answer.module.parameters()) <= 2_500
    x = problem.reveal().test.tensors[0][:4]
    loaded = didact.reusing.ReuseResult.open(answer.save(tmp_path / "answer"))
    assert (loaded.predict(x) == answer.predict(x)).all()
    with pytest.raises(NotApplicable, match="smallest network"):
        LearngenePool(widths=(4, 8)).solve(replace(problem.given, task=replace(task, wants={"max_parameters": 10})))


def test_the_largest_drop_is_measured_against_networks_no_larger():
    assert largest_drop([(10, 0.5), (20, 0.8), (30, 0.7)]) == pytest.approx(0.1)
    assert largest_drop([(10, 0.5), (20, 0.8)]) == 0
    assert largest_drop([(10, 0.5), (10, 0.8)]) == pytest.approx(0.3)


def test_bad_requests_are_refused(problem):
    ancestor = small_vit(12, 3)
    data = problem.given.task.labelled
    with pytest.raises(BadInput, match="divisible by 3"):
        LearngenePool(widths=(4, 8), blocks=2).fit(ancestor, small_vit, data)
    with pytest.raises(BadInput, match="must increase"):
        LearngenePool(widths=(8, 4)).fit(ancestor, small_vit, data)
    with pytest.raises(BadInput, match="shallower"):
        LearngenePool(widths=(4, 8), blocks=6).fit(ancestor, small_vit, data)
    with pytest.raises(BadInput, match="same number of blocks"):
        Pool([small_vit(4, 2), small_vit(8, 3)])
    with pytest.raises(BadInput, match="cannot be stitched"):
        Pool([convnet()])

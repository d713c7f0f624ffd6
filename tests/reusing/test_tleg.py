"""Linear expansion: the exact checks of its formula, its gradients, its learngene on ViT, Llama and BERT."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import didact
from didact.core.errors import BadInput, NotApplicable
from didact.data.digits import digits
from didact.models.language import gpt_tiny, text_classifier
from didact.models.small import convnet, parameter_count
from didact.models.vit import vit
from didact.parts.stacks import blocks, find_stack, with_depth
from didact.reusing import Budget
from didact.reusing.tleg import LinearExpansion, depth_problem, fitted_line, layer_line
from didact.reusing.tleg.learngene import Learngene, LinearStack, fresh_line, line, resized


def small_vit(depth: int) -> nn.Module:
    return vit(dim=8, depth=depth, heads=2, feedforward=16)


@pytest.fixture(scope="module")
def data():
    return digits(0, train=64, validation=32, test=64)


@pytest.fixture(scope="module")
def learngene(data) -> Learngene:
    method = LinearExpansion(depth=3, steps=5)
    return method.fit(small_vit, convnet(10, channels=(4, 4), dense=8), data.train, budget=Budget(5, 16))


def test_layers_lie_on_the_line_and_the_last_is_not_its_end():
    a, b = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([0.4, -0.8])}
    layers = torch.stack([state["w"] for state in line(a, b, 4)])
    assert torch.allclose(layers, torch.tensor([[1.0, 2.0], [1.1, 1.8], [1.2, 1.6], [1.3, 1.4]]))
    assert torch.equal(line(a, b, 1)[0]["w"], a["w"])


def test_no_depth_below_one():
    with pytest.raises(BadInput, match="at least one layer"):
        line({}, {}, 0)
    with pytest.raises(BadInput, match="at least one block"):
        vit(depth=0)


@pytest.mark.parametrize("make", ["vit", "llama", "bert"])
def test_expanding_to_the_auxiliarys_depth_gives_its_own_outputs(make):
    torch.manual_seed(0)
    template, inputs = {
        "vit": lambda: (small_vit(4), (torch.rand(5, 1, 8, 8),)),
        "llama": lambda: (gpt_tiny(30, hidden=16, layers=4, heads=2, feedforward=16), (torch.randint(30, (3, 6)),)),
        "bert": lambda: (text_classifier(30, 3, hidden=16, layers=4, heads=2), (torch.randint(30, (3, 6)),)),
    }[make]()
    stack = find_stack(template)
    a, b = fresh_line(template, stack, seed=1)
    auxiliary = LinearStack(template, stack, a, b).eval()
    expanded = auxiliary.learngene().expand(4)
    with torch.no_grad():
        mine, other = auxiliary(*inputs), expanded(*inputs)
    mine, other = (getattr(output, "logits", output) for output in (mine, other))
    assert torch.allclose(mine, other, atol=1e-6)
    assert len(blocks(auxiliary.learngene().expand(7), stack)) == 7


def test_the_gradients_of_both_blocks_are_sums_over_the_layers():
    torch.manual_seed(0)
    template = small_vit(3).double()
    stack = find_stack(template)
    a, b = ({n: v.double() for n, v in side.items()} for side in fresh_line(template, stack, 0))
    auxiliary = LinearStack(template, stack, a, b)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    auxiliary(x).square().sum().backward()
    expanded = auxiliary.learngene().expand(3)
    expanded(x).square().sum().backward()
    own = [dict(block.named_parameters()) for block in blocks(expanded, stack)]
    for name in stack.shapes:
        gradients = [layer[name].grad for layer in own]
        key = name.replace(".", "/")
        assert torch.allclose(auxiliary.a[key].grad, sum(gradients))
        assert torch.allclose(auxiliary.b[key].grad, sum(place / 3 * g for place, g in enumerate(gradients)))


def test_without_a_slope_all_layers_are_the_same(data):
    method = LinearExpansion(depth=3, steps=3, tied=True)
    made = method.fit(small_vit, convnet(10, channels=(4, 4), dense=8), data.train, budget=Budget(3, 16)).expand(3)
    states = [block.state_dict() for block in made.blocks]
    assert all(torch.equal(states[0][name], state[name]) for state in states[1:] for name in states[0])


def test_training_moves_both_blocks_and_the_stem(learngene):
    fresh = LinearStack(small_vit(3), learngene.stack, *fresh_line(small_vit(3), learngene.stack, 0))
    for name in ("qkv.weight", "norm1.weight"):
        assert not torch.equal(learngene.a[name], fresh.a[name.replace(".", "/")])
        assert not torch.equal(learngene.b[name], fresh.b[name.replace(".", "/")])


def test_it_stores_two_blocks_and_the_stem(learngene):
    one, two = parameter_count(small_vit(1)), parameter_count(small_vit(2))
    assert learngene.stored_parameters == two  # the stem, and twice a block
    assert learngene.stored_parameters > one


def test_a_learngene_saves_and_loads(learngene, tmp_path):
    loaded = Learngene.open(learngene.save(tmp_path / "gene"))
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.expand(5)(x), learngene.expand(5)(x))
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_another_head_is_left_alone_with_a_warning(learngene):
    other = vit(outputs=4, dim=8, depth=5, heads=2, feedforward=16)
    head = copy.deepcopy(other.head.weight)
    with pytest.warns(UserWarning, match=r"head\.weight"):
        left = learngene.initialise(other)
    assert left == ["head.weight", "head.bias"]
    assert torch.equal(other.head.weight, head)
    assert torch.equal(other.blocks[2].qkv.weight, learngene.expand(5).blocks[2].qkv.weight)


def test_positions_of_a_larger_picture_are_interpolated(learngene):
    larger = vit(size=12, dim=8, depth=2, heads=2, feedforward=16)
    assert learngene.initialise(larger) == []
    assert larger.positions.shape == (1, 36, 8)
    flat = torch.ones(1, 16, 8)
    assert torch.allclose(resized(flat, torch.Size((1, 36, 8))), torch.ones(1, 36, 8), atol=1e-5)
    assert resized(flat, torch.Size((1, 35, 8))) is None


def test_blocks_that_differ_are_refused():
    uneven = nn.Sequential()
    uneven.layers = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 4)])
    with pytest.raises(BadInput, match="no list of identical blocks"):
        find_stack(uneven)
    with pytest.raises(BadInput, match="differ in the names or shapes"):
        find_stack(uneven, "layers")
    with pytest.raises(BadInput, match=r"no list of blocks 'nothing'"):
        find_stack(small_vit(2), "nothing")


def test_a_line_is_found_again_and_a_bent_network_is_not_one():
    template = small_vit(5)
    stack = find_stack(template)
    straight = Learngene(template, stack, *fresh_line(template, stack, 3)).expand(5)
    a, b = fitted_line(straight, stack)
    for layer, state in enumerate(line(a, b, 5)):
        assert torch.allclose(state["qkv.weight"], straight.blocks[layer].qkv.weight, atol=1e-5)
    found = layer_line(straight)["qkv.weight"]
    assert found["explained"] == pytest.approx(1, abs=1e-5)
    assert found["linearity"] == pytest.approx(1, abs=1e-5)
    torch.manual_seed(0)
    assert layer_line(small_vit(5))["qkv.weight"]["explained"] < 0.5


def test_a_resized_model_saves_as_what_it_is(tmp_path):
    made = with_depth(small_vit(2), find_stack(small_vit(2)), 4)
    didact.save(made, tmp_path / "m")
    assert len(didact.load(tmp_path / "m").blocks) == 4


def test_the_problem_scores_every_depth_and_the_teacher_must_be_a_network(data):
    problem = depth_problem(
        small_vit, convnet(10, channels=(4, 4), dense=8), data.train, data.test, depths=(1, 2),
        budget=Budget(4, 16), tuning_steps=2, validation=data.validation,
    )  # fmt: skip
    answer = LinearExpansion(depth=2).solve(problem.given)
    scores = problem.score(answer)
    assert {"untuned_1", "tuned_2", "untuned_min"} <= set(scores)
    assert scores["stored_parameters"] == 2 * scores["block_parameters"] + scores["stem_parameters"]
    assert set(problem.validate(answer)) == {"validation_score"}
    with pytest.raises(NotApplicable, match="a network in the hub"):
        LinearExpansion().solve(without_networks(problem.given))


def without_networks(request):
    return replace(request, models=(replace(request.models[0], load=lambda: object()),))

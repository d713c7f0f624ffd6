from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.fit import fit
from didact.core.objective import Classification
from didact.models.small import convnet
from didact.parts.pruning import (
    apply_masks,
    check_masks,
    impose,
    keep_largest,
    lift,
    magnitude_masks,
    prunable,
    sparsity,
    synflow_masks,
)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return convnet(10, 8, 1, (4, 8), 16)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.rand(64, 1, 8, 8, generator=generator), torch.randint(10, (64,), generator=generator))


def test_only_weights_of_convolutions_and_linear_maps_are_prunable(net):
    assert list(prunable(net)) == ["blocks.0.0.weight", "blocks.1.0.weight", "dense.1.weight", "head.weight"]


def test_a_bare_layer_is_prunable():
    assert list(prunable(nn.Linear(3, 2))) == ["weight"]


def test_a_weight_tied_to_an_embedding_is_not_prunable():
    model = nn.ModuleDict({"words": nn.Embedding(7, 4), "map": nn.Linear(4, 4), "head": nn.Linear(4, 7)})
    model["head"].weight = model["words"].weight
    assert list(prunable(model)) == ["map.weight"]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.95])
def test_masks_are_those_of_torchs_global_pruning(net, rate):
    masks = magnitude_masks(prunable(net), rate)
    twin = copy.deepcopy(net)
    modules = [(twin.get_submodule(name.rpartition(".")[0]), "weight") for name in masks]
    torch_prune.global_unstructured(modules, pruning_method=torch_prune.L1Unstructured, amount=rate)
    for (module, _), mask in zip(modules, masks.values(), strict=True):
        theirs = getattr(module, "weight_mask", torch.ones_like(module.weight))
        assert torch.equal(mask, theirs.bool())


def test_the_smallest_scores_over_all_tensors_are_dropped():
    masks = keep_largest({"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([[2.0], [4.0]])}, 0.5)
    assert masks["a"].tolist() == [False, True]
    assert masks["b"].tolist() == [[False], [True]]
    assert sparsity(masks) == 0.5


def test_synflow_scores_are_those_of_a_two_layer_map():
    # With absolute weights the flow is sum_ij |w2_i w1_ij|, so a weight's score is the flow through it.
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-2.0, 2.0], [3.0, 0.5]]))
        model[1].weight.copy_(torch.tensor([[1.0, -1.0]]))
    # scores: 2, 2, 3, 0.5 in the first layer and 4, 3.5 in the second (0 and 2.5 without absolute weights)
    masks = synflow_masks(model, prunable(model), 0.5, torch.rand(1, 2), rounds=1)
    assert masks["0.weight"].tolist() == [[False, False], [True, False]]
    assert masks["1.weight"].tolist() == [[True, True]]


def test_synflow_prunes_in_rounds_and_never_a_whole_layer(net):
    masks = synflow_masks(net, prunable(net), 0.9, torch.zeros(1, 1, 8, 8))
    assert sparsity(masks) == pytest.approx(0.9, abs=1e-3)
    assert all(mask.any() for mask in masks.values())


def test_one_round_of_synflow_is_another_pruning_than_a_hundred(net):
    many, one = (synflow_masks(net, prunable(net), 0.9, torch.zeros(1, 1, 8, 8), rounds=r) for r in (100, 1))
    assert any(not torch.equal(many[name], one[name]) for name in many)


def test_synflow_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)).train()
    before = copy.deepcopy(model.state_dict())
    masks = synflow_masks(model, prunable(model), 0.5, torch.zeros(1, 1, 8, 8))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert sparsity(masks) == pytest.approx(0.5, abs=1e-2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_zeros_stay_zero_for_a_hundred_steps(net, data, optimizer):
    masks = magnitude_masks(prunable(net), 0.8)
    impose(net, masks)
    before = copy.deepcopy(net.state_dict())
    settings = {"steps": 100, "batch_size": 16, "optimizer": optimizer, "lr": 1e-2, "weight_decay": 1e-2}
    fit(net, data, Classification(), **settings)
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    lift(net, masks)
    for name, weight in prunable(net).items():
        assert not weight[~masks[name]].any()
        assert weight[masks[name]].all()


def test_a_lifted_model_is_a_plain_one_and_answers_as_the_masked_one(net, data):
    plain = copy.deepcopy(net)
    masks = magnitude_masks(prunable(net), 0.8)
    with torch.no_grad():
        masked = copy.deepcopy(impose(net, masks))(data.tensors[0])
        lifted = lift(net, masks)(data.tensors[0])
        apply_masks(prunable(plain), masks)
        assert torch.equal(masked, lifted)
        assert torch.equal(lifted, plain(data.tensors[0]))
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [p.shape for p in net.parameters()] == [p.shape for p in plain.parameters()]
    assert [type(m) for m in net.modules()] == [type(m) for m in plain.modules()]


def test_masks_of_another_model_are_rejected(net):
    masks = magnitude_masks(prunable(net), 0.5)
    with pytest.raises(BadInput, match=r"do not belong to this model.*blocks"):
        apply_masks(prunable(convnet(10, 8, 1, (8, 8), 16)), masks)
    with pytest.raises(BadInput, match="do not belong"):
        check_masks(prunable(net), {"head.weight": masks["head.weight"]})
    with pytest.raises(BadInput, match="boolean"):
        check_masks(prunable(net), {name: mask.float() for name, mask in masks.items()})


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_of_zero_to_one_is_rejected(net, rate):
    with pytest.raises(BadInput, match="pruning rate"):
        magnitude_masks(prunable(net), rate)
    with pytest.raises(BadInput, match="pruning rate"):
        synflow_masks(net, prunable(net), rate, torch.zeros(1, 1, 8, 8))


def test_a_model_without_weights_to_prune_is_rejected():
    with pytest.raises(BadInput, match="nothing to prune"):
        magnitude_masks(prunable(nn.Embedding(3, 2)), 0.5)


def test_what_is_not_imposed_cannot_be_lifted(net):
    with pytest.raises(BadInput, match="No mask is imposed"):
        lift(net, magnitude_masks(prunable(net), 0.5))

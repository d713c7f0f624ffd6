"""Concept poisoning of images: the card's exact checks, every place and label, bad input."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import SGDClassifier
from sklearn.svm import SVC
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import fit
from didact.core.objective import Classification
from didact.core.registry import make_method, make_problem
from didact.forgetting.concept_poisoning import ConceptPoisoning
from didact.forgetting.concept_poisoning.bank import (
    ConceptBank,
    ConceptBottleneck,
    fit_bottleneck,
    learn_bank,
    looks_alike,
)
from didact.forgetting.concept_poisoning.locate import (
    class_activation,
    corners_around,
    crop,
    paste,
    peaks,
    window_scores,
)
from didact.forgetting.request import Request
from didact.models.small import convnet, mlp

SIZE, CLASSES = 16, 3
QUICK = {"epochs": 10, "lr": 0.03}


def pictures(seed: int, n: int) -> TensorDataset:
    """A bright mark somewhere in a dim image: a bar lying (0), a bar standing (1), a cross (2)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    x = 0.1 * torch.randn(n, 1, SIZE, SIZE, generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        row, column = torch.randint(3, SIZE - 3, (2,), generator=generator).tolist()
        if label != 1:
            image[0, row, column - 3 : column + 4] += 2.0
        if label != 0:
            image[0, row - 3 : row + 4, column] += 2.0
    return TensorDataset(x, y)


def part(data: TensorDataset, label: int, inside: bool) -> TensorDataset:
    mask = (data.tensors[1] == label) == inside
    return TensorDataset(*(t[mask] for t in data.tensors))


@pytest.fixture(scope="module")
def request_() -> Request:
    """A small convnet that knows the three marks; the cross is to be forgotten."""
    data = pictures(0, 240)
    torch.manual_seed(0)
    model = convnet(CLASSES, SIZE, 1, (8, 16), 32)
    fit(model, data, Classification(), epochs=12, lr=3e-3)
    return Request(model.eval(), part(data, 2, True), part(data, 2, False), Classification())


@pytest.fixture(scope="module")
def concepts() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    x, y = pictures(5, 90).tensors
    return {"lies": (x[y != 1], x[y == 1]), "stands": (x[y != 0], x[y == 0]), "crossed": (x[y == 2], x[y != 2])}


# -- concepts ------------------------------------------------------------------------------------------------------


def test_the_margin_is_the_distance_from_the_hyperplane():
    bank = ConceptBank(("a",), torch.tensor([[3.0, 4.0]]), torch.tensor([-5.0]))
    assert float(bank.margins(torch.tensor([[2.0, 1.0]]))) == pytest.approx(1.0)
    assert float(bank.cosines(torch.tensor([[2.0, 1.0]]))) == pytest.approx(10 / (5 * 5**0.5))


def test_a_bank_holds_plain_support_vector_machines():
    generator = torch.Generator().manual_seed(0)
    positive, negative = torch.randn(30, 4, generator=generator) + 1, torch.randn(40, 4, generator=generator)
    bank = learn_bank({"a": (positive, negative), "b": (negative, positive)})
    machine = SVC(kernel="linear", C=0.1).fit(torch.cat([positive, negative]), np.r_[np.ones(30), np.zeros(40)])
    assert bank.names == ("a", "b")
    assert bank.vectors[0].numpy() == pytest.approx(machine.coef_[0], abs=1e-5)
    assert float(bank.intercepts[0]) == pytest.approx(float(machine.intercept_[0]), abs=1e-5)
    assert torch.allclose(bank.vectors[1], -bank.vectors[0], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_bottleneck_is_an_elastic_net_on_margins(classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % classes
    embeddings = 2.0 * F.one_hot(labels, 4) + torch.randn(60, 4, generator=generator)
    bank = ConceptBank(("a", "b", "c"), torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator))
    made = fit_bottleneck(bank, embeddings, labels, classes + 1, seed=4)
    margins = (embeddings @ bank.vectors.T + bank.intercepts) / bank.vectors.norm(dim=1)
    plain = SGDClassifier(
        loss="log_loss", penalty="elasticnet", alpha=1e-5, l1_ratio=0.99, max_iter=10_000, random_state=4
    ).fit(margins.double(), labels)
    expected = plain.coef_ if classes > 2 else np.r_[-plain.coef_, plain.coef_]
    assert made.weights[:classes].numpy() == pytest.approx(expected, rel=1e-4)
    assert not made.weights[classes].any()  # a class without samples
    assert made.accuracy == pytest.approx(plain.score(margins.double(), labels))


def test_the_concepts_and_the_donor_of_a_class():
    bank = ConceptBank(tuple("abcd"), torch.eye(4), torch.zeros(4))
    weights = torch.tensor([[5.0, 3.0, 2.0, -1.0], [4.0, 6.0, 0.0, 0.0], [4.5, 0.0, 1.0, 9.0], [-1.0, -2.0, -3.0, -4]])
    made = ConceptBottleneck(bank, weights, 1.0)
    assert made.carrying(0, 3) == [("a", 5.0), ("b", 3.0), ("c", 2.0)]
    assert made.carrying(0, 4) == made.carrying(0, 3)  # d speaks against it
    assert made.strongest(3, 2) == [0]  # nothing speaks for it: the least bad
    # a is the strongest concept of no other class, b of class 1, which is why it gives; without b, class 2 has most a.
    assert made.donor(0, 3, [0, 1, 2]) == 1
    assert made.donor(0, 1, [0, 1, 2]) == 2
    assert made.donor(0, 3, [2, 3]) == 2


def test_pieces_that_look_alike_become_concepts():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.eye(3, 5)
    pieces = torch.cat([centres[k] + torch.randn(n, 5, generator=generator) for k, n in enumerate((40, 30, 4))])
    found = looks_alike(pieces, 3)
    assert sorted(len(positive) for positive, _ in found.values()) == [30, 40]  # four are too few for a concept
    assert all(len(positive) + len(negative) == 74 for positive, negative in found.values())
    with pytest.raises(BadInput, match="No concept was found in 12 pieces"):
        looks_alike(pieces[:12], 3)


# -- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", ["in-place", "enlarged"])
def test_window_scores_equal_a_plain_loop(view):
    images = torch.rand(11, 2, 9, 7, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(2, 9, 7, generator=torch.Generator().manual_seed(1))
    found = window_scores(images, lambda x: (x * weight).sum((1, 2, 3)).unsqueeze(1), 3, 2, view)
    assert found.shape == (11, 4, 3, 1)
    for n, row, column in [(0, 0, 0), (3, 1, 2), (10, 3, 1)]:
        piece = images[n : n + 1, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        if view == "enlarged":
            alone = F.interpolate(piece, size=(9, 7), mode="bilinear", align_corners=False)[0]
        else:
            alone = images[n].flatten(1).median(1).values.view(2, 1, 1).repeat(1, 9, 7)
            alone[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] = piece[0]
        assert float(found[n, row, column]) == pytest.approx(float((alone * weight).sum()), rel=1e-5)


def test_the_peak_is_where_the_mark_is():
    images = torch.zeros(3, 1, 12, 12)
    for image, (y, x) in zip(images, [(0, 0), (4, 8), (8, 2)], strict=True):
        image[:, y : y + 4, x : x + 4] = 1
    scores = window_scores(images, lambda some: torch.stack([some.mean((1, 2, 3)), -some.mean((1, 2, 3))], 1), 4, 2)
    found = peaks(scores, 2)
    assert found[:, 0].tolist() == [[0, 0], [4, 8], [8, 2]]
    assert found[:, 1].tolist() != found[:, 0].tolist()


def test_pasting_changes_the_square_and_nothing_else():
    images, donors = torch.zeros(2, 1, 6, 6), torch.arange(72.0).view(2, 1, 6, 6)
    corners = torch.tensor([[0, 3], [2, 1]])
    pieces = crop(donors, torch.tensor([[3, 3], [0, 0]]), 3)
    made = paste(images, pieces, corners)
    assert torch.equal(made[0, :, 0:3, 3:6], donors[0, :, 3:6, 3:6])
    assert torch.equal(made[1, :, 2:5, 1:4], donors[1, :, 0:3, 0:3])
    assert int((made != 0).sum()) == 18
    assert not images.any()


def test_squares_stay_within_the_image():
    centres = torch.tensor([[0, 0], [5, 5], [9, 2]])
    assert corners_around(centres, 4, (10, 8)).tolist() == [[0, 0], [3, 3], [6, 0]]


def test_class_activation_equals_its_formula(request_):
    model, (x, y) = request_.model, request_.forget.tensors
    found = class_activation(model, x[:5], y[:5], model)
    maps = model.blocks[1][0](model.blocks[0](x[:5])).detach().requires_grad_(True)
    logits = model.head(model.dense(model.blocks[1][2](model.blocks[1][1](maps))))
    gradient = torch.autograd.grad(logits[:, 2].sum(), maps)[0]
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    expected = F.interpolate(cam, size=(SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
    assert float(found.max()) > 0
    assert torch.allclose(found, expected, atol=1e-6)


# -- poison --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["localized", "margin", "gradcam", "center", "random", "full"])
def test_every_place_pastes_a_piece_of_the_donor(request_, place):
    method = ConceptPoisoning(locate=place, donor=0, patch=0.3)
    before, made = request_.forget.tensors[0], method.poison(request_).tensors[0]
    side = round({"center": 1.5, "random": 1.5, "full": 2.5}.get(place, 1.0) * 0.3 * SIZE)
    retained, labels = request_.retain.tensors
    donors = retained[labels == 0]
    if place == "full":
        donors = F.interpolate(donors, size=(side, side), mode="bilinear", align_corners=False)
    known = {window.numpy().tobytes() for window in donors.unfold(2, side, 1).unfold(3, side, 1).reshape(-1, side**2)}
    for old, new in zip(before[:, 0], made[:, 0], strict=True):
        ys, xs = (old != new).nonzero(as_tuple=True)
        top, left = int(ys.min()), int(xs.min())
        assert int(ys.max()) == top + side - 1
        assert int(xs.max()) == left + side - 1
        assert new[top : top + side, left : left + side].reshape(-1).numpy().tobytes() in known
        if place in ("center", "full"):
            assert (top, left) == (SIZE // 2 - side // 2, SIZE // 2 - side // 2)


def test_several_pieces_cover_several_concepts(request_, concepts):
    offered = replace(request_, extras={"concepts": concepts})
    before = request_.forget.tensors[0]
    changed = [int((ConceptPoisoning(pieces=n, donor=0).poison(offered).tensors[0] != before).sum()) for n in (1, 2)]
    assert changed[1] > changed[0]


def test_the_three_ways_to_relabel(request_):
    def called(labels):
        return ConceptPoisoning(locate="none", labels=labels, donor=1).poison(request_).tensors[1]

    assert called("targeted").tolist() == [1] * 80
    assert called("keep").tolist() == [2] * 80
    drawn = called("random").bincount(minlength=CLASSES)
    assert (drawn > 15).all()  # every class, the true one too: a third of 80 each


def test_the_donor_shares_most_concepts_and_may_be_named(request_, concepts):
    offered = replace(request_, extras={"concepts": concepts})
    found = ConceptPoisoning().concepts(offered)
    assert list(found) == [2]
    assert found[2][0][0] == "crossed"
    with Meter() as meter:
        poisoned = ConceptPoisoning(locate="center").poison(offered)
    assert set(poisoned.tensors[1].tolist()) == {meter.log["donors"][2]}
    assert meter.log["concepts"] == found
    assert meter.log["bottleneck_accuracy"] > 0.9


def test_it_finds_concepts_of_its_own(request_):
    found = ConceptPoisoning(looks=6, top_concepts=2).concepts(request_)
    assert 1 <= len(found[2]) <= 2
    assert all(name.startswith("look ") and weight > 0 for name, weight in found[2])


def test_samples_of_all_classes_get_donors_of_their_own(request_):
    data = pictures(0, 240)
    mixed = replace(
        request_,
        forget=TensorDataset(*(t[:30] for t in data.tensors)),
        retain=TensorDataset(*(t[30:] for t in data.tensors)),
    )
    labels = ConceptPoisoning(locate="none").poison(mixed).tensors[1]
    assert (labels != data.tensors[1][:30]).all()


# -- fine-tuning ---------------------------------------------------------------------------------------------------


def test_new_labels_forget_and_old_ones_do_not(request_):
    objective, test = request_.objective, pictures(9, 120)
    scores = {}
    for place, labels in [("localized", "targeted"), ("none", "targeted"), ("center", "keep")]:
        with Meter() as meter:
            answer = ConceptPoisoning(locate=place, labels=labels, patch=0.25, **QUICK).solve(request_)
        scores[place, labels] = objective.mean_score(answer, request_.forget)
        assert objective.mean_score(answer, part(test, 2, False)) >= 0.85
        # The head alone forgot: whoever looks below it finds the class again.
        assert meter.log["probe_forget"] >= 0.8
        assert meter.log["probe"] >= 0.8
    assert scores["none", "targeted"] <= 0.05
    assert scores["localized", "targeted"] <= 0.3
    assert scores["center", "keep"] >= 0.9


class Normalised(nn.Module):
    """A network with running statistics and dropout below its head; `scale` hides the head's output."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.2)
        )
        self.head = nn.Linear(96, CLASSES)
        self.scale = scale

    def forward(self, x):
        return self.scale * self.head(self.body(x))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_with_the_head_alone_the_rest_stays_bit_for_bit(request_, scale):
    torch.manual_seed(0)
    model = Normalised(scale).train()
    before = copy.deepcopy(model.state_dict())
    answer = ConceptPoisoning(locate="gradcam", epochs=2).solve(replace(request_, model=model))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    after = answer.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head"))
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert all(p.requires_grad for p in answer.parameters())
    everything = ConceptPoisoning(locate="none", donor=0, epochs=2, trainable="all").solve(
        replace(request_, model=model)
    )
    assert not torch.equal(before["body.0.weight"], everything.state_dict()["body.0.weight"])


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_head_training_equals_plain_gradient_descent(request_, scale):
    torch.manual_seed(0)
    model = Normalised(scale).eval()
    settings = {"epochs": 2, "batch_size": 16, "lr": 0.05}
    answer = ConceptPoisoning(locate="none", labels="keep", **settings).solve(replace(request_, model=model))
    plain = copy.deepcopy(model)
    x, y = (torch.cat([a, b]) for a, b in zip(request_.forget.tensors, request_.retain.tensors, strict=True))
    optimiser = torch.optim.SGD(plain.head.parameters(), 0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(request_.seed)
    for _ in range(2):
        for rows in torch.randperm(len(y), generator=generator).split(16):
            optimiser.zero_grad()
            F.cross_entropy(plain(x[rows]), y[rows]).backward()
            optimiser.step()
    assert torch.allclose(answer.head.weight, plain.head.weight, atol=1e-5)


def test_without_paste_and_new_labels_it_is_fine_tuning_on_everything(request_):
    answer = ConceptPoisoning(locate="none", labels="keep", trainable="all", epochs=2, lr=0.01).solve(request_)
    plain = copy.deepcopy(request_.model)
    data = ConcatDataset([request_.forget, request_.retain])
    fit(plain, data, Classification(), epochs=2, lr=0.01, optimizer="sgd", momentum=0.9, seed=request_.seed)
    assert all(torch.equal(a, b) for a, b in zip(answer.parameters(), plain.parameters(), strict=True))


class Mapped(Dataset):
    """Samples as Hugging Face's image classifiers take them."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y = self.data[index]
        return {"pixel_values": x, "labels": y}


class Named(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return self.model(pixel_values)


def test_mappings_are_poisoned_like_pairs(request_, concepts):
    method = ConceptPoisoning(pieces=2, epochs=1)
    pairs = replace(request_, extras={"concepts": concepts})
    maps = replace(pairs, model=Named(request_.model), forget=Mapped(request_.forget), retain=Mapped(request_.retain))
    mine, theirs = method.poison(maps), method.poison(pairs)
    assert len(mine) == len(theirs)
    for i in (0, 33, 79):
        assert torch.equal(mine[i]["pixel_values"], theirs[i][0])
        assert int(mine[i]["labels"]) == int(theirs[i][1])
    answer = method.solve(maps)
    assert any(not torch.equal(a, b) for a, b in zip(answer.parameters(), maps.model.parameters(), strict=True))


def test_its_answer_saves_and_loads(request_, tmp_path):
    answer = ConceptPoisoning(locate="none", **QUICK).solve(request_)
    loaded = didact.load(didact.save(answer, tmp_path / "answer"))
    for data in (request_.forget, request_.retain):
        assert torch.equal(Classification().scores(answer, data), Classification().scores(loaded, data))


# -- settings and bad input ----------------------------------------------------------------------------------------


def test_none_from_a_command_line_is_the_place_none():
    assert make_method("concept-poisoning:locate=none:labels=keep") == ConceptPoisoning(locate="none", labels="keep")


@pytest.mark.parametrize(
    "wrong",
    [{"locate": "left"}, {"labels": "swap"}, {"patch": 1.5}, {"patch": 0}, {"trainable": "body"}, {"donor": -1}],
)
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="concept-poisoning"):
        ConceptPoisoning(**wrong)


def test_bad_input_is_refused(request_, concepts):
    with pytest.raises(BadInput, match="donor class 2 is among the classes to forget"):
        ConceptPoisoning(donor=2).solve(request_)
    with pytest.raises(BadInput, match="no retained sample"):
        ConceptPoisoning(donor=7).solve(request_)
    alone = replace(request_, retain=part(pictures(3, 60), 2, True))
    with pytest.raises(BadInput, match="fewer than 2"):
        ConceptPoisoning().solve(alone)
    lonely = replace(request_, forget=pictures(4, 30), retain=part(pictures(3, 60), 2, True))
    with pytest.raises(BadInput, match="Class 2 has no donor"):
        ConceptPoisoning().solve(lonely)
    with pytest.raises(BadInput, match="does not fit"):
        ConceptPoisoning(locate="full", patch=0.5, donor=0).solve(request_)
    with pytest.raises(NotApplicable, match="retain"):
        ConceptPoisoning().solve(replace(request_, retain=None))


def test_bad_concepts_are_refused(request_, concepts):
    few, shifted, bare = copy.copy(concepts), copy.copy(concepts), copy.copy(concepts)
    few["lies"] = (concepts["lies"][0][:9], concepts["lies"][1])
    with pytest.raises(BadInput, match="'lies' has 9 positive"):
        ConceptPoisoning().solve(replace(request_, extras={"concepts": few}))
    shifted["lies"] = tuple(side[:, :, 1:] for side in concepts["lies"])
    with pytest.raises(BadInput, match="Prepare them as the training images"):
        ConceptPoisoning().solve(replace(request_, extras={"concepts": shifted}))
    bare["lies"] = concepts["lies"][0]
    with pytest.raises(BadInput, match="two tensors"):
        ConceptPoisoning().solve(replace(request_, extras={"concepts": bare}))
    with pytest.raises(BadInput, match="at least one"):
        ConceptPoisoning().solve(replace(request_, extras={"concepts": {}}))


def test_vectors_can_be_relabelled_but_not_pasted_into():
    x, y = torch.randn(60, 6, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    model = mlp(6, 3, (8,))
    given = Request(model, TensorDataset(x[y == 2], y[y == 2]), TensorDataset(x[y != 2], y[y != 2]))
    with pytest.raises(NotApplicable, match="pastes pieces into images"):
        ConceptPoisoning().solve(given)
    with pytest.raises(NotApplicable, match="name the donor"):
        ConceptPoisoning(locate="none").solve(given)
    assert set(ConceptPoisoning(locate="none", donor=1).poison(given).tensors[1].tolist()) == {1}


def test_class_activation_needs_a_convolution(request_):
    with pytest.raises(NotApplicable, match="Grad-CAM"):
        ConceptPoisoning(locate="gradcam").solve(replace(request_, model=mlp(SIZE**2, CLASSES, (16,))))


def test_the_problem_of_shapes_offers_concepts():
    made = make_problem("shapes-concepts:train=60:epochs=1:examples=200", seed=1)
    offered = made.given.extras["concepts"]
    assert len(offered) == 18
    assert {"pointed", "pink", "large"} <= offered.keys()
    shape = made.given.forget[0][0].shape
    for positive, negative in offered.values():
        assert positive.shape[1:] == negative.shape[1:] == shape
        assert len(positive) + len(negative) == 200
    again = make_problem("shapes-concepts:train=60:epochs=1:examples=200", seed=1).given.extras["concepts"]
    assert torch.equal(offered["round"][0], again["round"][0])

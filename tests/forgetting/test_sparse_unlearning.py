from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification, Regression
from didact.core.recipe import Recipe
from didact.forgetting.baselines import FineTune
from didact.forgetting.sparse_unlearning import (
    FisherForgetting,
    InfluenceUnlearn,
    L1SparseFineTune,
    MaskedRetrain,
    PruneThenUnlearn,
    digits_backdoor,
    stamp,
)
from didact.forgetting.sparse_unlearning.fisher import head_parameters, noise_variance
from didact.forgetting.sparse_unlearning.influence import gradient_sum, single_gradients, woodfisher
from didact.forgetting.sparse_unlearning.l1 import l1_norm
from didact.forgetting.sparse_unlearning.tickets import iterative_rates, lottery_ticket
from didact.models.artifacts import load, save
from didact.models.language import text_classifier
from didact.models.small import convnet, mlp
from didact.parts.pruning import magnitude_masks, prunable

CLASSES, OBJECTIVE = 3, Classification()


def blobs(n: int, seed: int) -> tuple[TensorDataset, TensorDataset]:
    """(retain, forget): three well-separated classes of 6 numbers, of which the last is to be forgotten."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % CLASSES
    centres = 2 * torch.eye(CLASSES).repeat_interleave(2, dim=1)
    inputs = centres[labels] + 0.3 * torch.randn(n, 6, generator=generator)
    gone = labels == CLASSES - 1
    return TensorDataset(inputs[~gone], labels[~gone]), TensorDataset(inputs[gone], labels[gone])


RETAIN, FORGET = blobs(90, seed=0)
EVERYTHING = TensorDataset(*(torch.cat(p) for p in zip(RETAIN.tensors, FORGET.tensors, strict=True)))
RECIPE = Recipe(lambda: mlp(6, CLASSES, (16, 16)), OBJECTIVE, epochs=6, batch_size=16, lr=1e-2)


@pytest.fixture(scope="module")
def model():
    return RECIPE.fit(EVERYTHING, seed=0)


METHODS = [
    L1SparseFineTune(epochs=2),
    FisherForgetting(alpha=1e-5),
    InfluenceUnlearn(alpha=2.0),
    PruneThenUnlearn(rate=0.5),
    PruneThenUnlearn(rate=0.5, prune="imp", base="gradient-ascent"),
    PruneThenUnlearn(rate=0.5, prune="synflow", base="influence-unlearning"),
    PruneThenUnlearn(rate=0.5, prune="magnitude", base="fisher-forgetting"),
    PruneThenUnlearn(rate=0.5, prune="magnitude", base="ssd:alpha=1.0"),
    MaskedRetrain(rate=0.5),
]
every_method = pytest.mark.parametrize(
    "method", METHODS, ids=lambda m: "-".join([m.card.slug, getattr(m, "prune", ""), getattr(m, "base", "")])
)


def unlearn(method, model, **options):
    settings = {"objective": OBJECTIVE, "recipe": RECIPE, **options}
    return method.unlearn(model, FORGET, RETAIN, **settings)


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(
        torch.equal(value, theirs[name]) for name, value in a.state_dict().items()
    )


# -- every method ------------------------------------------------------------------------------------------------------


@every_method
def test_leaves_the_model_untouched_and_repeats_itself(method, model):
    before = copy.deepcopy(model)
    first, second = unlearn(method, model, seed=1), unlearn(method, model, seed=1)
    assert same(model, before)
    assert not same(first, model)
    assert same(first, second)
    assert not first.training
    assert [type(m) for m in first.modules()] == [type(m) for m in model.modules()]


@every_method
def test_saves_and_loads_and_scores_the_same(method, model, tmp_path):
    edited = unlearn(method, model)
    read = load(save(edited, tmp_path / "model"))
    assert torch.equal(OBJECTIVE.losses(read, EVERYTHING), OBJECTIVE.losses(edited, EVERYTHING))


@every_method
def test_needs_retained_data(method, model):
    with pytest.raises(NotApplicable, match="retain"):
        method.unlearn(model, FORGET, None, objective=OBJECTIVE, recipe=RECIPE)
    assert "retain" in method.card.needs


class OwnNet(nn.Module):
    """A user's module: convolution, batch norm, a bare parameter, and a tuple as its output."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv1d(1, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x):
        hidden = self.norm(self.convolution(x.unsqueeze(1))).relu().flatten(1)
        return self.scale * self.head(hidden), hidden


@every_method
def test_works_on_a_users_own_module(method):
    recipe = Recipe(OwnNet, OBJECTIVE, epochs=2, batch_size=16, lr=1e-2)
    own = recipe.fit(EVERYTHING, seed=0)
    edited = unlearn(method, own, recipe=recipe)
    assert isinstance(edited, OwnNet)
    assert not same(edited, own)
    assert torch.isfinite(OBJECTIVE.losses(edited, EVERYTHING)).all()


class Texts(Dataset):
    def __init__(self, n: int, label: int | None = None):
        generator = torch.Generator().manual_seed(n)
        self.words = torch.randint(1, 30, (n, 5), generator=generator)
        self.labels = torch.arange(n) % 2 if label is None else torch.full((n,), label)

    def __len__(self):
        return len(self.words)

    def __getitem__(self, i):
        return {
            "input_ids": self.words[i],
            "attention_mask": torch.ones(5, dtype=torch.long),
            "labels": self.labels[i],
        }


@pytest.mark.parametrize(
    "method",
    [
        L1SparseFineTune(epochs=1),
        FisherForgetting(alpha=1e-6),
        FisherForgetting(alpha=1e-6, form="batch"),
        InfluenceUnlearn(n=5),
        PruneThenUnlearn(rate=0.5),
        PruneThenUnlearn(rate=0.5, prune="magnitude", base="influence-unlearning"),
        MaskedRetrain(rate=0.5),
    ],
    ids=lambda m: m.card.slug,
)
def test_works_on_a_hugging_face_classifier(method, tmp_path):
    recipe = Recipe(lambda: text_classifier(30, 3, hidden=8, layers=1, heads=2), OBJECTIVE, epochs=1, batch_size=8)
    bert, retain, forget = recipe.fresh(0), Texts(16), Texts(6, label=2)
    edited = method.unlearn(bert, forget, retain, recipe=recipe)
    assert not same(edited, bert)
    if isinstance(method, PruneThenUnlearn):
        weights = torch.cat([w.flatten() for w in prunable(edited).values()])
        assert float((weights == 0).float().mean()) == pytest.approx(0.5, abs=1e-3)
    read = load(save(edited, tmp_path / "bert"))
    assert torch.allclose(OBJECTIVE.losses(read, retain), OBJECTIVE.losses(edited, retain))


def test_synflow_rejects_tokens():
    recipe = Recipe(lambda: text_classifier(30, 3, hidden=8, layers=1, heads=2), OBJECTIVE, epochs=1)
    with pytest.raises(NotApplicable, match="tokens"):
        PruneThenUnlearn(prune="synflow").unlearn(recipe.fresh(0), Texts(6, label=2), Texts(16), recipe=recipe)


@pytest.mark.parametrize(
    "method", [L1SparseFineTune(epochs=1), FisherForgetting(), InfluenceUnlearn(), PruneThenUnlearn(rate=0.5)]
)
def test_works_on_a_regressor(method):
    objective = Regression()
    recipe = Recipe(lambda: mlp(6, 1, (8,)), objective, epochs=2)
    retain, forget = (TensorDataset(d.tensors[0], d.tensors[1].float()) for d in (RETAIN, FORGET))
    model = recipe.fit(retain, seed=0)
    assert not same(method.unlearn(model, forget, retain, recipe=recipe), model)


# -- l1 ----------------------------------------------------------------------------------------------------------------


def test_the_penalty_fades_as_on_the_card():
    method = L1SparseFineTune(gamma=2e-4, epochs=10)
    assert [method.gamma_at(e) for e in (0, 5, 9)] == pytest.approx([2e-4, 1e-4, 2e-5])
    assert L1SparseFineTune(gamma=2e-4, decay="constant").gamma_at(9) == 2e-4


def test_without_a_penalty_it_is_fine_tuning_bit_for_bit(model):
    settings = {"optimizer": "sgd", "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 32}
    recipe = RECIPE.but(**settings)
    plain = unlearn(FineTune(epochs=4), model, recipe=recipe, seed=5)
    assert same(unlearn(L1SparseFineTune(gamma=0, epochs=4), model, seed=5), plain)
    assert not same(unlearn(L1SparseFineTune(gamma=1e-6, epochs=4), model, seed=5), plain)


def test_one_step_is_the_gradient_plus_the_sign_of_every_parameter(model):
    method = L1SparseFineTune(gamma=0.01, lr=0.1, epochs=1, weight_decay=0.0, batch_size=len(RETAIN))
    edited = unlearn(method, model)
    gradients = torch.autograd.grad(OBJECTIVE.loss(model, RETAIN.tensors), list(model.parameters()))
    for before, after, gradient in zip(model.parameters(), edited.parameters(), gradients, strict=True):
        assert torch.allclose(after, before - 0.1 * (gradient + 0.01 * before.sign()), atol=1e-6)


def test_each_epoch_has_its_own_penalty():
    # Nothing to learn (one class, so no gradient of the loss): only the penalty moves the weight.
    single = TensorDataset(torch.ones(6, 1), torch.zeros(6, dtype=torch.long))
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    other = TensorDataset(torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
    options = {"gamma": 0.1, "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 2, "epochs": 2}
    for decay, moved in (("linear", 3 * 0.1 + 3 * 0.05), ("constant", 6 * 0.1)):
        edited = L1SparseFineTune(decay=decay, **options).unlearn(model, other, single, objective=OBJECTIVE)
        assert edited.weight.item() == pytest.approx(1 - moved, abs=1e-5)


def test_the_penalty_counts_all_trained_parameters():
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0]]))
        layer.bias.fill_(-0.5)
    assert l1_norm(layer).item() == 3.5
    layer.bias.requires_grad_(False)
    assert l1_norm(layer).item() == 3.0


# -- Fisher ------------------------------------------------------------------------------------------------------------


def test_noise_variance_is_clamped_then_averaged_over_input_channels_then_scaled():
    fisher = torch.tensor([[1.0, 0.5], [0.0, 0.25]])
    # inverse: 1, 2 -> mean 1.5; clamp, 4 -> mean (clamp + 4) / 2
    body, head = noise_variance(fisher, 0.1), noise_variance(fisher, 0.1, clamp=1e2, last=True)
    assert torch.allclose(body, torch.tensor([[0.15, 0.15], [50.2, 50.2]]))
    assert torch.allclose(head, 10 * torch.tensor([[0.15, 0.15], [5.2, 5.2]]))
    assert torch.allclose(noise_variance(torch.tensor([0.5, 0.0]), 0.1), torch.tensor([2.0, 1000.0]))


def test_a_convolution_is_averaged_over_its_input_channels_alone():
    fisher = torch.rand(3, 2, 5, 5) + 0.1
    variance = noise_variance(fisher, 1.0)
    assert variance.shape == fisher.shape
    assert torch.allclose(variance[:, 0], (1 / fisher).mean(1), rtol=1e-4)
    assert torch.equal(variance[:, 0], variance[:, 1])


def test_the_head_is_the_last_linear_layer():
    own = OwnNet()
    assert head_parameters(own) == {id(own.head.weight), id(own.head.bias)}
    assert head_parameters(own.convolution) == set()


def test_the_noise_has_the_variance_of_the_formula(monkeypatch):
    wide = nn.Sequential(nn.Linear(6, 300), nn.ReLU(), nn.Linear(300, CLASSES))
    known = {name: torch.full_like(p, 0.5) for name, p in wide.named_parameters()}
    module = "didact.forgetting.sparse_unlearning.fisher.fisher_diagonal"
    monkeypatch.setattr(module, lambda model, data, *_, **__: known if data is RETAIN else None)
    edited = FisherForgetting(alpha=1e-2).unlearn(wide, FORGET, RETAIN, objective=OBJECTIVE)
    spread = [float((a - b).detach().std()) for a, b in zip(edited.parameters(), wide.parameters(), strict=True)]
    # 1/F = 2: sqrt(0.02) in the body's weight, sqrt(0.2) in its bias and in the head
    assert spread[:3] == pytest.approx([0.1414, 0.4472, 0.4472], rel=0.15)


def test_another_seed_is_other_noise_and_frozen_parameters_get_none(model):
    frozen = copy.deepcopy(model)
    frozen.head.bias.requires_grad_(False)
    first, second = (unlearn(FisherForgetting(), frozen, seed=s) for s in (0, 1))
    assert torch.equal(first.head.bias, frozen.head.bias)
    assert not torch.equal(first.head.weight, second.head.weight)


# -- influence ---------------------------------------------------------------------------------------------------------


def test_woodfisher_with_one_gradient_returns_the_vector():
    vector = torch.tensor([1.0, -2.0, 3.0])
    assert torch.equal(woodfisher(vector, [torch.tensor([4.0, 5.0, 6.0])], 1), vector)


def test_woodfisher_by_hand():
    vector = torch.tensor([1.0, 2.0])
    gradients = [torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]), torch.tensor([3.0, 0.0])]
    # o = (1, 0). g2: o.g = 2, k.g = 4, so k = (1 - 4/5, 2) = (.2, 2) and o = (1 - 2/5, 0) = (.6, 0).
    # g3: o.g = 1.8, k.g = .6, so k = (.2 - .6/4.8 * .6, 2) = (.125, 2).
    assert torch.allclose(woodfisher(vector, gradients, 3), torch.tensor([0.125, 2.0]))
    assert vector.tolist() == [1.0, 2.0]


def test_gradients_are_those_of_single_samples_and_their_sum(model):
    names = [name for name, _ in model.named_parameters()]
    singles = torch.stack(list(single_gradients(model, FORGET, OBJECTIVE, names, 7)))
    by_hand = torch.autograd.grad(
        OBJECTIVE.loss(model, tuple(t[3:4] for t in FORGET.tensors)), list(model.parameters())
    )
    assert torch.allclose(singles[3], torch.cat([g.flatten() for g in by_hand]), atol=1e-6)
    assert torch.allclose(singles.sum(0), gradient_sum(model, FORGET, OBJECTIVE, names, 7), atol=1e-4)


def test_with_one_gradient_the_step_is_the_change_of_the_samples_weights(model):
    edited = unlearn(InfluenceUnlearn(alpha=0.5, n=1), model)
    names = [name for name, _ in model.named_parameters()]
    gone, kept = (gradient_sum(model, d, OBJECTIVE, names, 32) for d in (FORGET, RETAIN))
    # Weights of the samples: 1/90 for all before; 0 for forget and 1/60 for retain afterwards.
    expected = 0.5 * ((1 / 90 - 0) * gone + (1 / 90 - 1 / 60) * kept)
    moved = torch.cat([(edited.get_parameter(n) - model.get_parameter(n)).flatten() for n in names])
    assert torch.allclose(moved, expected, atol=1e-6)
    assert not same(edited, unlearn(InfluenceUnlearn(alpha=0.5, n=50), model))


def test_the_step_raises_the_forget_loss_and_not_by_batches(model):
    edited = unlearn(InfluenceUnlearn(alpha=5.0), model)
    assert OBJECTIVE.losses(edited, FORGET).mean() > 2 * OBJECTIVE.losses(model, FORGET).mean()
    other = unlearn(InfluenceUnlearn(alpha=5.0, batch_size=7), model)
    assert torch.allclose(edited.head.weight, other.head.weight, atol=1e-5)


# -- prune first -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prune", ["omp", "imp", "synflow", "magnitude"])
@pytest.mark.parametrize("base", ["fine-tune", "gradient-ascent", "fisher-forgetting", "influence-unlearning"])
def test_what_is_pruned_stays_zero_whatever_unlearns(model, prune, base):
    with Meter() as meter:
        edited = unlearn(PruneThenUnlearn(rate=0.8, prune=prune, base=base), model)
    weights = torch.cat([w.flatten() for w in prunable(edited).values()])
    assert int((weights == 0).sum()) == round(0.8 * len(weights))
    assert meter.log["sparsity"] == pytest.approx(0.8, abs=1e-3)
    if prune == "magnitude":
        for name, mask in magnitude_masks(prunable(model), 0.8).items():
            assert torch.equal(edited.get_parameter(name) != 0, mask)


def test_pruning_nothing_leaves_the_base_as_it_is(model):
    sparse = unlearn(PruneThenUnlearn(rate=0, prune="magnitude", base="influence-unlearning"), model)
    dense = unlearn(InfluenceUnlearn(), model)
    assert torch.allclose(sparse.head.weight, dense.head.weight, atol=1e-6)


@pytest.mark.parametrize("prune", ["omp", "imp", "synflow"])
def test_the_sparse_model_is_trained_on_the_forget_data_too(model, prune):
    sparse = unlearn(PruneThenUnlearn(rate=0.5, prune=prune, base="original"), model)
    assert OBJECTIVE.mean_score(sparse, FORGET) > 0.9


def test_the_masked_reference_never_saw_the_forget_data(model):
    reference = unlearn(MaskedRetrain(rate=0.5), model)
    assert OBJECTIVE.mean_score(reference, FORGET) == 0
    assert OBJECTIVE.mean_score(reference, RETAIN) > 0.9
    masked = unlearn(PruneThenUnlearn(rate=0.5, base="original"), model)
    assert torch.equal(reference.head.weight == 0, masked.head.weight == 0)


@pytest.mark.parametrize("rewind", [0, 2])
def test_a_ticket_is_trained_from_the_rewind_point(rewind):
    start = RECIPE.fit(EVERYTHING, 4, epochs=rewind) if rewind else RECIPE.fresh(4)
    expected = RECIPE.fit(EVERYTHING, 4, init=start, epochs=RECIPE.epochs - rewind)
    unpruned, _ = lottery_ticket(RECIPE, EVERYTHING, 4, [0.0], rewind)
    assert all(torch.allclose(a, b) for a, b in zip(unpruned.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("rewind", [0, 3, 5])
def test_training_costs_the_epochs_of_the_card(model, rewind):
    with Meter() as meter:
        unlearn(PruneThenUnlearn(rate=0.5, base="original", rewind=rewind), model)
    rewound = min(rewind, RECIPE.epochs // 2)
    assert meter.backward == (RECIPE.epochs + RECIPE.epochs - rewound) * len(EVERYTHING)


def test_iterative_pruning_drops_a_fifth_a_round():
    assert iterative_rates(0.5) == pytest.approx([0.2, 0.36, 0.488, 0.5])
    assert iterative_rates(0.36) == pytest.approx([0.2, 0.36])
    assert iterative_rates(0.1) == [0.1]
    assert len(iterative_rates(0.95)) == 14


def test_masks_of_ones_own_take_the_place_of_pruning(model):
    masks = magnitude_masks(prunable(model), 0.7)
    own = unlearn(PruneThenUnlearn(masks=masks), model)
    assert same(own, unlearn(PruneThenUnlearn(prune="magnitude", rate=0.7), model))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (L1SparseFineTune, {"gamma": -1e-3}),
        (L1SparseFineTune, {"decay": "cosine"}),
        (FisherForgetting, {"alpha": 0.0}),
        (InfluenceUnlearn, {"alpha": -1.0}),
        (InfluenceUnlearn, {"n": 0}),
        (PruneThenUnlearn, {"rate": 1.0}),
        (PruneThenUnlearn, {"rate": -0.1}),
        (PruneThenUnlearn, {"prune": "random"}),
        (PruneThenUnlearn, {"masks": [1, 2]}),
        (MaskedRetrain, {"rate": 1.5}),
    ],
)
def test_nonsense_is_rejected(method, settings):
    with pytest.raises(BadInput, match=next(iter(settings))):
        method(**settings)


@pytest.mark.parametrize("prune", ["omp", "imp", "synflow"])
def test_training_a_sparse_model_needs_the_recipe(model, prune):
    with pytest.raises(NotApplicable, match=f"{prune}.*recipe"):
        unlearn(PruneThenUnlearn(prune=prune), model, recipe=None)


def test_magnitude_pruning_needs_no_recipe(model):
    assert not same(unlearn(PruneThenUnlearn(prune="magnitude"), model, recipe=None), model)


def test_masks_that_do_not_match_are_rejected(model):
    masks = magnitude_masks(prunable(convnet(10, 8, 1, (4, 4), 8)), 0.5)
    with pytest.raises(BadInput, match="do not belong to this model"):
        unlearn(PruneThenUnlearn(masks=masks), model)


def test_a_base_must_edit_the_sparse_model(model):
    with pytest.raises(BadInput, match="masked-retrain"):
        unlearn(PruneThenUnlearn(prune="magnitude", base="retrain"), model)
    with pytest.raises(LookupError, match="no-such"):
        PruneThenUnlearn(base="no-such")


# -- backdoor ----------------------------------------------------------------------------------------------------------


def test_a_stamp_marks_the_corner_of_a_copy():
    images = torch.zeros(2, 1, 8, 8)
    stamped = stamp(images)
    assert not images.any()
    assert stamped.sum() == 2 * 4
    assert (stamped[..., 6:, 6:] == 1).all()
    with pytest.raises(BadInput, match="patch"):
        stamp(images, size=9)


def test_the_backdoor_problem_poisons_other_classes_and_keeps_the_test_clean(monkeypatch, tmp_path):
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    problem = digits_backdoor(seed=0, epochs=5)
    given, truth = problem.given, problem.reveal()
    assert len(given.forget) == 100
    assert (given.forget.tensors[1] == 0).all()
    assert (given.forget.tensors[0][..., 6:, 6:] == 1).all()
    assert given.target == 0.0
    assert len(given.retain) + len(given.forget) == 1000
    assert not torch.equal(truth.holdout.tensors[0], truth.test.tensors[0])
    score = OBJECTIVE.mean_score
    assert score(given.model, truth.holdout) > 0.8  # the attack works on unseen images
    assert score(truth.reference, truth.holdout) < 0.2  # and not on a model without poison
    edited = L1SparseFineTune(gamma=1e-2).solve(given)
    assert score(edited, truth.holdout) < score(given.model, truth.holdout)


@pytest.mark.parametrize("options", [{"share": 1.0}, {"label": 10}, {"patch": 0}])
def test_the_backdoor_problem_rejects_nonsense(options):
    with pytest.raises(BadInput):
        digits_backdoor(epochs=1, **options)

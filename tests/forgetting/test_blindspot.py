"""Blindspot and Gaussian-Amnesiac: the card's exact checks, bad input, regressors and classifiers of any make."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification, Regression, pad_tokens
from didact.core.recipe import Recipe
from didact.forgetting import blindspot as bs
from didact.forgetting.baselines import BadTeacher, FineTune, GradientDifference
from didact.forgetting.blindspot import Blindspot, GaussianAmnesiac
from didact.forgetting.scoring import wasserstein
from didact.models.artifacts import load, save
from didact.models.language import text_classifier
from didact.models.small import convnet

Task = tuple[nn.Module, Dataset, Dataset, Recipe]


def pictures(seed: int = 0, count: int = 120) -> TensorDataset:
    """4x4 pictures whose brightness, from 0 to 3, is the target; dark ones have 6 more."""
    generator = torch.Generator().manual_seed(seed)
    brightness = 3 * torch.rand(count, generator=generator)
    noise = 0.1 * torch.randn(count, 1, 4, 4, generator=generator)
    target = torch.where(brightness < 0.8, brightness + 6, brightness)
    return TensorDataset(brightness.view(-1, 1, 1, 1) + noise, target)


@pytest.fixture(scope="module")
def task() -> Task:
    """A regressor, the dark pictures to forget, the others."""
    data = pictures()
    recipe = Recipe(lambda: convnet(1, 4, 1, (6,), 12), Regression("l1"), epochs=60, lr=5e-3, batch_size=16)
    dark = (data.tensors[1] > 3).nonzero().flatten().tolist()
    bright = (data.tensors[1] <= 3).nonzero().flatten().tolist()
    return recipe.fit(data, 0), Subset(data, dark), Subset(data, bright), recipe


def batch_of(data: Dataset) -> tuple[Tensor, ...]:
    return next(iter(Regression().loader(data, 1000)))


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = states(a), states(b)
    return all(torch.equal(one[name], two[name]) for name in one)


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True))


class TextClassification(Classification):
    def collate(self, samples: list) -> dict[str, Tensor]:
        return pad_tokens(samples, 0)


class Sentences(Dataset):
    """Token sequences of different lengths."""

    def __init__(self, seed: int, count: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = [
            {"input_ids": torch.randint(3, 30, (4 + i % 3,), generator=generator), "labels": i % 3}
            for i in range(count)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.rows[index])


# -- the equations -----------------------------------------------------------------------------------------


def test_attention_is_the_cards() -> None:
    a = bs.attention(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]))
    assert a.tolist() == [pytest.approx([0.447214, 0.894427], abs=1e-6)]
    b = bs.attention(torch.tensor([[[2.0, 1.0], [4.0, 3.0]]]))
    assert float(bs.attention_distance(a, b)) == pytest.approx(0.2, abs=1e-6)


def test_attention_of_a_sequence_has_one_value_per_step_and_none_for_padding() -> None:
    sequence = torch.tensor([[[1.0, 3.0], [2.0, 4.0], [9.0, 9.0]]])
    whole = bs.attention(sequence, features_last=True)
    energy = torch.tensor([5.0, 10.0, 81.0])
    assert torch.allclose(whole, energy / energy.norm())
    masked = bs.attention(sequence, True, torch.tensor([[1, 1, 0]]))
    assert masked.tolist() == [pytest.approx([0.447214, 0.894427, 0.0], abs=1e-6)]


def test_attention_of_maps_is_flattened() -> None:
    assert bs.attention(torch.randn(5, 3, 4, 2)).shape == (5, 8)
    assert torch.allclose(bs.attention(torch.randn(5, 3, 4, 2)).norm(dim=1), torch.ones(5))


def test_wasserstein_is_the_cards() -> None:
    assert wasserstein(torch.tensor([0.0, 1, 3]), torch.tensor([5.0, 6, 8])) == pytest.approx(5)


def mixed(forget: Any, retain: Any) -> tuple[Any, Tensor]:
    """One batch of two parts (None: no such samples), and which of its samples are to be forgotten."""
    parts = [part for part in (forget, retain) if part is not None]
    mask = torch.cat([torch.full((len(part[0]),), part is forget) for part in parts])
    return tuple(torch.cat(column) for column in zip(*parts, strict=True)), mask


def test_without_forget_samples_a_step_is_fine_tuning(task: Task) -> None:
    model, _, retain, recipe = task
    batch, blind = batch_of(retain), recipe.fresh(5)
    ours = bs.blindspot_loss(model, blind, *mixed(None, batch), Regression("l1"), ("blocks.0.0",), 50)
    plain = Regression("l1").loss(model, batch)
    for a, b in zip(gradients(model, ours), gradients(model, plain), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_imitating_oneself_has_no_gradient(task: Task, kind: Any) -> None:
    model, forget, _, _ = task
    twin = copy.deepcopy(model)
    loss = bs.blindspot_loss(model, twin, *mixed(batch_of(forget), None), Regression(kind), (), 0)
    assert float(loss.detach()) == 0
    assert all(not g.any() for g in gradients(model, loss))


def test_a_classifier_imitating_itself_has_no_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    batch = (torch.randn(5, 4), torch.zeros(5, dtype=torch.long))
    loss = bs.blindspot_loss(model, copy.deepcopy(model), *mixed(batch, None), Classification(), (), 0)
    assert all(float(g.abs().max()) < 1e-7 for g in gradients(model, loss))


def test_the_whole_loss_by_hand(task: Task) -> None:
    """p weights both means; the convolution's attention counts at_weight times on the forget part alone."""
    model, forget, retain, recipe = task
    blind = recipe.fresh(5)
    f, r = (tuple(t[:n] for t in batch_of(data)) for data, n in ((forget, 2), (retain, 6)))
    with torch.no_grad():
        loss = bs.blindspot_loss(model, blind, *mixed(f, r), Regression("l1"), ("blocks.0.0",), 50)
        on_retain = (model(r[0]).squeeze(1) - r[1]).abs().mean()
        on_forget = (model(f[0]) - blind(f[0])).abs().mean()
        maps = [m.blocks[0][0](f[0]).square().mean(1).flatten(1) for m in (model, blind)]
        a, b = (m / m.norm(dim=1, keepdim=True) for m in maps)
        expected = 0.75 * on_retain + 0.25 * (on_forget + 50 * (a - b).square().mean())
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_a_classifier_is_pulled_to_the_blind_models_distribution() -> None:
    torch.manual_seed(0)
    model, blind, x = nn.Linear(4, 3), nn.Linear(4, 3), torch.randn(5, 4)
    loss = bs.blindspot_loss(model, blind, *mixed((x,), None), Classification(), (), 0)
    goal = blind(x).softmax(-1)
    by_hand = (goal * (goal.log() - model(x).log_softmax(-1))).sum(-1).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_columns_and_vectors_of_targets_give_one_loss(task: Task) -> None:
    """(B,) against (B, 1) must not be broadcast to (B, B)."""
    model, _, retain, _ = task
    x, y = batch_of(retain)
    losses = [bs.blindspot_loss(model, model, *mixed(None, (x, t)), Regression(), (), 0) for t in (y, y[:, None])]
    assert float(losses[0].detach()) == float(losses[1].detach())
    with pytest.raises(BadInput, match="same number of values"):
        bs.blindspot_loss(model, model, *mixed(None, (x, torch.stack([y, y], 1))), Regression(), (), 0)


# -- what it does ------------------------------------------------------------------------------------------


def test_forgets_as_the_retrained_model_does(task: Task) -> None:
    model, forget, retain, recipe = task
    retrained = recipe.fit(retain, 99)
    method = Blindspot(blind_epochs=20, epochs=15, lr=5e-3)
    answer = method.unlearn(model, forget, retain, objective=recipe.objective, recipe=recipe)

    def predictions(m: nn.Module) -> Tensor:
        return m(batch_of(forget)[0]).detach().flatten()

    before = wasserstein(predictions(model), predictions(retrained))
    after = wasserstein(predictions(answer), predictions(retrained))
    assert after < 0.5 * before
    assert recipe.objective.mean_score(answer, retain) > recipe.objective.mean_score(model, retain) - 0.1


def test_the_blind_model_sees_the_retained_data_only_and_stays_as_it_is(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, forget, retain, recipe = task
    seen: list[Any] = []
    made: list[nn.Module] = []
    whole = Recipe.fit

    def fit(self: Recipe, dataset: Dataset, seed: int, **options: Any) -> nn.Module:
        made.append(whole(self, dataset, seed, **options))
        seen.append((dataset, options))
        made.append(copy.deepcopy(made[0]))
        return made[0]

    monkeypatch.setattr(Recipe, "fit", fit)
    Blindspot(blind_epochs=2, epochs=1).unlearn(model, forget, retain, recipe=recipe)
    assert seen == [(retain, {"epochs": 2})]
    assert same(made[0], made[1])
    assert not made[0].training
    assert not any(p.requires_grad for p in made[0].parameters())


def test_the_model_given_stays_and_all_of_the_answer_moves(task: Task) -> None:
    model, forget, retain, recipe = task
    before = copy.deepcopy(model)
    for method in (Blindspot(blind_epochs=1, epochs=1), GaussianAmnesiac(epochs=1)):
        answer = method.unlearn(model, forget, retain, recipe=recipe)
        assert same(model, before)
        assert all(not torch.equal(p, q) for p, q in zip(answer.parameters(), model.parameters(), strict=True))


def test_same_seed_same_model(task: Task) -> None:
    model, forget, retain, recipe = task
    for method in (Blindspot(blind_epochs=1, epochs=1), GaussianAmnesiac(epochs=1)):
        first, again, other = (method.unlearn(model, forget, retain, recipe=recipe, seed=s) for s in (1, 1, 2))
        assert same(first, again)
        assert not same(first, other)


def test_logs_the_blind_models_cost_and_the_layers(task: Task) -> None:
    model, forget, retain, recipe = task
    with Meter() as meter:
        Blindspot(blind_epochs=1, epochs=1).unlearn(model, forget, retain, recipe=recipe)
    assert 0 < meter.log["blind_seconds"] <= meter.seconds
    assert meter.log["attention_layers"] == ["blocks.0.0"]


def test_gaussian_targets_have_the_moments_of_all_targets(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, retain, recipe = task
    generator = torch.Generator().manual_seed(3)
    many = TensorDataset(torch.rand(4000, 1, 4, 4, generator=generator), torch.zeros(4000))
    trained: list[Any] = []
    monkeypatch.setattr(bs, "fit", lambda m, data, *_, **__: trained.append(data))
    GaussianAmnesiac().unlearn(model, many, retain, recipe=recipe)
    drawn = torch.stack([trained[0].datasets[0][i][1] for i in range(4000)])
    everything = torch.cat([torch.zeros(4000), batch_of(retain)[1]])
    assert float(drawn.mean()) == pytest.approx(float(everything.mean()), abs=0.02)
    assert float(drawn.std()) == pytest.approx(float(everything.std()), rel=0.05)
    assert trained[0].datasets[1] is retain


# -- which layers ------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.rnn, self.top = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.rnn(x)[0][:, -1])


def test_default_layers_are_convolutions_else_sequence_blocks_else_none() -> None:
    assert bs.compared_layers(convnet(1, 8, 1, (2, 3), 4), "conv") == ("blocks.0.0", "blocks.1.0")
    assert bs.compared_layers(Recurrent(), "conv") == ("rnn",)
    text = text_classifier(30, 3, hidden=16, heads=2)
    assert bs.compared_layers(text, "conv") == ("bert.encoder.layer.0", "bert.encoder.layer.1")
    assert bs.compared_layers(nn.Sequential(nn.Linear(2, 2)), "conv") == ()


def test_vectors_are_skipped(task: Task) -> None:
    model, forget, _, recipe = task
    blind, batch = recipe.fresh(5), batch_of(forget)
    losses = [
        bs.blindspot_loss(model, blind, *mixed(batch, None), Regression(), names, 50) for names in ((), ("dense",))
    ]
    assert float(losses[0].detach()) == float(losses[1].detach())
    assert [Blindspot(layers=given).layers for given in ("a,b", ["a", "b"], "conv")] == [("a", "b")] * 2 + ["conv"]


# -- bad input ---------------------------------------------------------------------------------------------


def test_rejects_bad_input(task: Task) -> None:
    model, forget, retain, recipe = task
    with pytest.raises(BadInput, match="at least 2 forget samples, but 1"):
        Blindspot().unlearn(model, Subset(forget, [0]), retain)
    with pytest.raises(NotApplicable, match="retain"):
        Blindspot().unlearn(model, forget)
    with pytest.raises(BadInput, match=r"no layer 'conv9'.*blocks\.0\.0"):
        Blindspot(layers=("conv9",)).unlearn(model, forget, retain, recipe=recipe)
    numbers = [TensorDataset(batch_of(d)[0], batch_of(d)[1].long()) for d in (forget, retain)]
    with pytest.raises(BadInput, match="floating-point"):
        Blindspot(loss="l1").unlearn(model, *numbers, objective=Regression("l1"), recipe=recipe)
    with pytest.raises(BadInput, match="puts out"):
        bs.blindspot_loss(model, nn.Flatten(), *mixed(batch_of(forget), None), Regression(), (), 0)


def test_distances_of_numbers_are_rejected_for_classes() -> None:
    classes = [TensorDataset(torch.randn(9, 4), torch.arange(9) % 3) for _ in range(2)]
    with pytest.raises(BadInput, match="loss='l1' compares numbers"):
        Blindspot(loss="l1").unlearn(nn.Linear(4, 3), *classes)
    with pytest.raises(NotApplicable, match="random-labels"):
        GaussianAmnesiac().unlearn(nn.Linear(4, 3), *classes)


def test_a_named_layer_that_is_not_used_is_an_error() -> None:
    model = Recurrent()
    model.idle = nn.Linear(5, 5)
    with pytest.raises(BadInput, match="idle are not used"):
        bs.blindspot_loss(model, Recurrent(), *mixed((torch.randn(2, 4, 3),), None), Regression(), ("idle",), 1)


# -- any model ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
def test_own_sequence_model(outputs: int) -> None:
    """A user's recurrent regressor and classifier, without a recipe."""
    torch.manual_seed(0)
    targets = torch.randn(30) if outputs == 1 else torch.arange(30) % 3
    data = [TensorDataset(torch.randn(30, 4, 3), targets) for _ in range(2)]
    model = Recurrent(outputs)
    answer = Blindspot(blind_epochs=1, epochs=1).unlearn(model, *data)
    assert not same(answer, model)


def test_text_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    model, objective = text_classifier(30, 3, hidden=16, layers=1, heads=2).eval(), TextClassification()
    forget, retain = Sentences(0), Sentences(1)
    with Meter() as meter:
        answer = Blindspot(blind_epochs=1, epochs=1).unlearn(model, forget, retain, objective=objective)
    assert meter.log["attention_layers"] == ["bert.encoder.layer.0"]
    assert not same(answer, model)
    again = load(save(answer, tmp_path / "text"))
    assert torch.equal(objective.losses(answer, forget), objective.losses(again, forget))


def test_saved_and_loaded_it_scores_the_same(task: Task, tmp_path) -> None:
    model, forget, retain, recipe = task
    for method in (Blindspot(blind_epochs=1, epochs=1), GaussianAmnesiac(epochs=1)):
        answer = method.unlearn(model, forget, retain, recipe=recipe)
        again = load(save(answer, tmp_path / method.card.slug))
        data = ConcatDataset([forget, retain])
        assert torch.equal(recipe.objective.losses(answer, data), recipe.objective.losses(again, data))


def test_models_with_batch_normalisation_are_served_whatever_the_batches() -> None:
    """Forget and retained samples go through one pass; a last batch of one sample is left out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    forget, retain = (TensorDataset(torch.randn(n, 4), torch.arange(n) % 3) for n in (3, 30))
    for method in (Blindspot(batch_size=8), BadTeacher(batch_size=8), FineTune(), GradientDifference(batch_size=2)):
        assert method.unlearn(model, forget, retain) is not None

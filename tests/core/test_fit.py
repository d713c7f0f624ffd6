"""The training loop against a loop written out, and its hooks."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.fit import Diverged, Hooks, fit
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models.small import mlp


def data(n=40):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    return TensorDataset(x, (x[:, 0] > 0).long())


def model(seed=0):
    torch.manual_seed(seed)
    return mlp(4, 2, (8,))


def same(a, b, tolerance=0.0):
    return all(
        torch.allclose(p, q, atol=tolerance, rtol=0) for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def test_it_does_what_a_plain_loop_does():
    mine, plain = model(), model()
    fit(mine, data(), Classification(), epochs=3, batch_size=8, lr=0.1, optimizer="sgd", seed=5)
    optimiser = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(5)
    x, y = data().tensors
    for _ in range(3):
        for chosen in torch.randperm(40, generator=generator).split(8):
            optimiser.zero_grad()
            F.cross_entropy(plain(x[chosen]), y[chosen]).backward()
            optimiser.step()
    assert same(mine, plain, 1e-7)


def test_accumulation_equals_a_larger_batch():
    small, large = model(), model()
    options = {"epochs": 2, "lr": 0.1, "optimizer": "sgd", "seed": 1}
    fit(small, data(), Classification(), batch_size=10, accumulate=2, **options)
    fit(large, data(), Classification(), batch_size=20, **options)
    assert same(small, large, 1e-6)


def test_steps_schedules_and_logs():
    log = fit(model(), data(), Classification(), steps=7, batch_size=8, schedule="cosine", warmup=0.3)
    assert log.steps == 7
    assert len(log.losses) == 2
    still = model()
    fit(still, data(), Classification(), steps=1, batch_size=8, lr=0.0)
    assert same(still, model())


def test_the_rate_follows_its_schedule():
    from didact.core.fit import _rate

    assert [_rate(s, 10, "constant", 0.2) for s in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert _rate(0, 10, "linear", 0.0) == 1.0
    assert _rate(5, 10, "linear", 0.0) == 0.5
    assert _rate(5, 10, "cosine", 0.0) == pytest.approx(0.5)
    assert _rate(10, 10, "cosine", 0.0) == pytest.approx(0.0, abs=1e-7)


def test_weights_choose_the_samples_that_count():
    weighted, only = model(), model()
    x, y = data().tensors
    options = {"epochs": 1, "batch_size": 40, "lr": 0.1, "optimizer": "sgd"}
    fit(weighted, data(), Classification(), hooks=Hooks(weights=lambda b: (b[1] == 1).float()), **options)
    fit(only, TensorDataset(x[y == 1], y[y == 1]), Classification(), **options)
    assert same(weighted, only, 1e-6)


def test_hooks_reach_into_the_loop():
    seen = {"gradients": 0, "steps": []}

    def gradients(m, step):
        seen["gradients"] += 1

    def after(m, step):
        seen["steps"].append(step)
        return step == 2

    log = fit(
        model(), data(), Classification(), epochs=5, batch_size=8, hooks=Hooks(gradients=gradients, after_step=after)
    )
    assert seen == {"gradients": 3, "steps": [0, 1, 2]}
    assert log.steps == 3
    ended = fit(
        model(), data(), Classification(), epochs=5, batch_size=8, hooks=Hooks(stop=lambda m, epoch: epoch == 1)
    )
    assert ended.steps == 10


def test_an_extra_loss_is_added():
    plain, pulled = model(), model()
    fit(plain, data(), Classification(), epochs=3)
    penalty = Hooks(extra_loss=lambda m, b, s: 10 * sum(p.square().sum() for p in m.parameters()))
    fit(pulled, data(), Classification(), epochs=3, hooks=penalty)
    norm = lambda m: sum(float(p.detach().square().sum()) for p in m.parameters())  # noqa: E731
    assert norm(pulled) < norm(plain)


def test_a_diverging_loss_is_an_error():
    with pytest.raises(Diverged, match="smaller learning rate"):
        fit(model(), data(), Classification(), hooks=Hooks(extra_loss=lambda m, b, s: torch.tensor(float("nan"))))


def test_a_frozen_model_cannot_be_trained():
    frozen = model().requires_grad_(False)
    with pytest.raises(BadInput, match="nothing can be trained"):
        fit(frozen, data(), Classification())


def test_only_the_chosen_parameters_move():
    mine, before = model(), model()
    fit(mine, data(), Classification(), parameters=mine.head.parameters())
    assert torch.equal(mine.body[0].weight, before.body[0].weight)
    assert not torch.equal(mine.head.weight, before.head.weight)


def test_a_recipe_is_reproducible_and_leaves_the_generator_alone():
    recipe = Recipe(lambda: mlp(4, 2, (8,)), Classification(), epochs=2)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    a = recipe.fit(data(), 3)
    assert torch.equal(torch.rand(1), expected)
    assert same(a, recipe.fit(data(), 3))
    assert not same(a, recipe.fit(data(), 4))


def test_a_recipe_like_a_model_starts_afresh():
    trained = model()
    recipe = Recipe.like(trained, Classification())
    assert not same(recipe.fresh(2), trained)
    assert same(recipe.fresh(0), recipe.fresh(0))
    assert not same(recipe.fresh(0), recipe.fresh(1))

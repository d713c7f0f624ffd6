"""The prompted U-Net, the denoising objective and the sampler."""

import builtins
import copy
import json

import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

import didact
from didact.core.cost import Meter
from didact.core.errors import BadInput, MissingExtra
from didact.core.fit import fit
from didact.core.objective import Denoising
from didact.core.recipe import Recipe, seeded
from didact.models.diffusion import sample, unet


class Images(Dataset):
    def __init__(self, n=12, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.x0 = torch.rand(n, 1, 8, 8, generator=generator) * 2 - 1
        self.prompt = torch.randint(6, (n, 2), generator=generator)

    def __len__(self):
        return len(self.x0)

    def __getitem__(self, index):
        return {"x0": self.x0[index], "prompt": self.prompt[index]}


class Knows(nn.Module):
    """A denoiser that knows the one image there is: it returns the noise exactly."""

    def __init__(self, objective, x0):
        super().__init__()
        self.objective, self.x0 = objective, x0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, sample, timestep, prompt):
        signal = self.objective.signal(timestep).view(-1, 1, 1, 1)
        noise = (sample - signal.sqrt() * self.x0) / (1 - signal).sqrt()
        if self.objective.prediction == "v_prediction":
            return self.scale * (signal.sqrt() * noise - (1 - signal).sqrt() * self.x0)
        return self.scale * noise


def small():
    with seeded(0):
        return unet(6, 1, (8, 16), 16).eval()


def batch(n=4):
    data = Images(n)
    return {"x0": data.x0, "prompt": data.prompt}


# -- the model -----------------------------------------------------------------------------------------------------


def test_it_reads_step_and_prompt():
    model, x = small(), torch.randn(2, 1, 8, 8)
    t, p = torch.tensor([10, 10]), torch.tensor([[0, 3], [0, 3]])
    out = model(x, t, p)
    assert out.shape == x.shape
    assert not torch.allclose(out, model(x, t + 40, p))
    assert not torch.allclose(out, model(x, t, p + 1))
    with pytest.raises(BadInput, match="divisible by 2"):
        model(torch.randn(1, 1, 7, 7), t[:1], p[:1])


def test_film_alone_lets_the_prompt_into_the_picture():
    model, x = small(), torch.randn(2, 1, 8, 8)
    for name, parameter in model.named_parameters():
        if ".film." in name:
            nn.init.zeros_(parameter)
    t = torch.tensor([10, 10])
    assert torch.equal(model(x, t, torch.zeros(2, 2).long()), model(x, t + 5, torch.ones(2, 2).long()))


def test_it_comes_back_from_disk_as_it_was(tmp_path):
    model = small()
    didact.save(model, tmp_path / "m")
    loaded = didact.load(tmp_path / "m")
    prompts = torch.tensor([[0, 3], [1, 4]])
    assert torch.equal(
        sample(model, prompts, Denoising(), (1, 8, 8), steps=3),
        sample(loaded, prompts, Denoising(), (1, 8, 8), steps=3),
    )
    assert json.loads((tmp_path / "m/config.json").read_text())["architecture"] == "unet"
    assert {p.suffix for p in (tmp_path / "m").iterdir()} == {".safetensors", ".json"}


# -- the objective -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_loss_is_that_of_its_equations(prediction):
    objective, model = Denoising(prediction=prediction), small()
    noised = objective.noised(batch())
    t, x0, noise = noised["timestep"], noised["x0"], noised["noise"]
    signal = objective.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    x_t = signal.sqrt() * x0 + (1 - signal).sqrt() * noise
    goal = noise if prediction == "epsilon" else signal.sqrt() * noise - (1 - signal).sqrt() * x0
    expected = (model(x_t, t, noised["prompt"]) - goal).square().mean((1, 2, 3))
    assert torch.allclose(objective.per_sample_loss(model, noised), expected, atol=1e-6)
    assert torch.allclose(objective.score(model, noised), -expected, atol=1e-6)
    assert torch.allclose(objective.clean(goal, x_t, t), x0, atol=1e-2)


def test_a_clean_estimate_by_hand():
    objective = Denoising()
    objective.scheduler.alphas_cumprod = torch.full((100,), 0.64)
    one = torch.ones(1, 1, 1, 1)
    assert objective.clean(0.5 * one, one, torch.tensor([7])).item() == pytest.approx(0.875)


def test_who_knows_the_image_has_no_loss():
    data = Images(1)
    for prediction in ("epsilon", "v_prediction"):
        objective = Denoising(prediction=prediction)
        model = Knows(objective, data.x0)
        assert objective.mean_score(model, data) == pytest.approx(0.0, abs=1e-5)
        made = sample(model, data.prompt, objective, (1, 8, 8), steps=20)
        assert torch.allclose(made, data.x0, atol=0.05)


def test_scoring_meets_the_same_noise_each_time_and_training_does_not():
    objective, model, data = Denoising(), small(), Images()
    first = objective.losses(model, data)
    assert torch.equal(first, objective.losses(model, data))
    by_three = torch.cat([objective.loss_of(o, t) for o, t in objective.outputs(model, data, batch_size=5)])
    assert torch.allclose(first, by_three, atol=1e-6)
    assert not torch.equal(first, Denoising(seed=1).losses(model, data))
    with seeded(3):
        a, b = (next(iter(objective.loader(data, 12, shuffle=True)))["noise"] for _ in range(2))
    with seeded(3):
        c = next(iter(objective.loader(data, 12, shuffle=True)))["noise"]
    assert not torch.equal(a, b)
    assert torch.equal(a, c)


def test_training_is_decided_by_the_seed_and_lowers_the_loss():
    recipe = Recipe(small, Denoising(), "tiny", epochs=40, batch_size=6, lr=1e-2)
    data = Images()
    first, second = recipe.fit(data, 1), recipe.fit(data, 1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert recipe.objective.mean_score(first, data) > recipe.objective.mean_score(small(), data) + 0.1
    assert recipe.key["objective"] == "diffusion"
    assert recipe.key["objective_prediction"] == "epsilon"


def test_per_sample_gradients_add_up_to_the_batch_gradient():
    objective, model = Denoising(), small()
    noised = objective.noised(batch())
    single = objective.per_sample_gradients(model, noised)
    objective.per_sample_loss(model, noised).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(single[name].sum(0), parameter.grad, atol=1e-4), name


def test_other_targets_and_joined_datasets():
    objective, model = Denoising(), small()
    noised = objective.noised(batch())
    other = objective.with_targets(noised, torch.zeros_like(noised["noise"]))
    expected = objective.forward(model, noised).square().mean((1, 2, 3))
    assert torch.allclose(objective.per_sample_loss(model, other), expected)
    drawn = objective.resample(noised["noise"], noised["noise"], "other", torch.Generator().manual_seed(0))
    assert drawn.shape == noised["noise"].shape
    assert not torch.equal(drawn, noised["noise"])
    plain, own = Images(2)[0], {**Images(2)[1], "labels": torch.zeros(1, 8, 8)}
    mixed = objective.collate([plain, own])
    assert torch.equal(objective.targets(mixed), torch.stack([mixed["noise"][0], own["labels"]]))
    joined = copy.deepcopy(model)
    assert fit(joined, ConcatDataset([Images(5), Images(4, 1)]), objective, batch_size=3).steps == 3
    assert objective.divergence(torch.ones(2, 3), torch.zeros(2, 3)) == 1.0


def test_what_is_no_diffusion_batch_is_refused():
    objective, model = Denoising(), small()
    with pytest.raises(BadInput, match=r"'x0'.*tuple was given"):
        objective.mean_score(model, TensorDataset(torch.zeros(3, 1, 8, 8), torch.zeros(3, 2)))
    with pytest.raises(BadInput, match="keys pixel_values"):
        objective.loss(model, {"pixel_values": torch.zeros(3, 1, 8, 8)})
    with pytest.raises(BadInput, match="noised"):
        objective.targets(batch())
    with pytest.raises(BadInput, match="shape"):
        objective.loss_of(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8))
    with pytest.raises(BadInput, match="'sample'"):
        Denoising(prediction="sample")
    with pytest.raises(BadInput, match="timesteps=0"):
        Denoising(timesteps=0)


# -- sampling ------------------------------------------------------------------------------------------------------


def test_samples_are_decided_by_the_seed_not_by_the_batches():
    model, objective = small(), Denoising()
    prompts = torch.tensor([[0, 3], [1, 4], [2, 5]])
    first = sample(model, prompts, objective, (1, 8, 8), steps=4)
    assert first.shape == (3, 1, 8, 8)
    assert torch.allclose(first, sample(model, prompts, objective, (1, 8, 8), steps=4, batch_size=2), atol=1e-5)
    assert not torch.allclose(first, sample(model, prompts, objective, (1, 8, 8), steps=4, seed=1))
    assert float(first.abs().max()) <= 1.0
    with pytest.raises(BadInput, match="1 to 100 steps"):
        sample(model, prompts, objective, (1, 8, 8), steps=101)


def test_sampling_counts_its_passes_and_leaves_the_mode_alone():
    model = small().train()
    with Meter() as meter:
        sample(model, torch.tensor([[0, 3], [1, 4]]), Denoising(), (1, 8, 8), steps=5)
    assert (meter.forward, meter.backward) == (10, 0)
    assert model.training


def test_without_diffusers_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.startswith("diffusers"):
            raise ImportError(name)
        return real(name, *rest, **more)

    ready = Denoising()
    assert ready.scheduler is not None
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"didact\[diffusion\]"):
        Denoising().noised(batch()) and Denoising().loss(small(), batch())
    with pytest.raises(MissingExtra, match=r"didact\[diffusion\]"):
        sample(small(), torch.tensor([[0, 3]]), ready, (1, 8, 8))

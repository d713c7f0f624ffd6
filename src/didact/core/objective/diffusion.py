"""The objective of prompted diffusion models: predict the noise that was mixed into a sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from didact.core.batches import TensorBatches, default_collate
from didact.core.errors import BadInput, MissingExtra
from didact.core.objective.base import Batch, Objective, Resampling

Schedule = Literal["squaredcos_cap_v2", "linear", "scaled_linear"]
Prediction = Literal["epsilon", "v_prediction"]

#: keeps the draws of neighbouring seeds and samples apart
STRIDE = 1_000_003


class Denoising(Objective):
    """Mean squared error of the predicted noise at a random step of the forward diffusion.

    A dataset yields mappings with `x0` (C, H, W), a clean image or latent, and `prompt` (L,), token ids. The model is
    called as `model(sample=x_t, timestep=t, prompt=prompt)` and returns (B, C, H, W), where
    x_t = sqrt(abar_t) * x0 + sqrt(1 - abar_t) * noise, t in 0..timesteps-1.

    The loader draws `timestep` and `noise` into every batch: for training (shuffled) from torch's generator, anew each
    time; for scoring (not shuffled) from `seed` and the sample's place, so that two models meet the same noise. A
    batch without them gets its own when it is used. The score of a sample is minus its loss.

    Noise schedules are those of `diffusers` (extra `diffusion`), imported at the first use. `prediction` tells what
    the model puts out: the noise, or the velocity sqrt(abar) * noise - sqrt(1 - abar) * x0.
    """

    task = "diffusion"

    def __init__(
        self,
        timesteps: int = 100,
        schedule: Schedule = "squaredcos_cap_v2",
        prediction: Prediction = "epsilon",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        clip: float | None = 1.0,
        seed: int = 0,
    ) -> None:
        """
        Args:
            timesteps: steps of the forward diffusion.
            schedule: how abar falls from 1 to 0, by diffusers' name.
            prediction: what the model puts out.
            beta_start: first variance of the linear schedules.
            beta_end: last variance of the linear schedules; 0.02 is made for 1,000 steps.
            clip: largest absolute value of x0, to which samplers clip their estimates; None for latents.
            seed: of the noise met when scoring.
        """
        if timesteps < 1:
            raise BadInput(f"A diffusion takes at least 1 step, but timesteps={timesteps} was given.")
        if prediction not in ("epsilon", "v_prediction"):
            raise BadInput(f"A denoiser predicts 'epsilon' or 'v_prediction', but {prediction!r} was given.")
        self.timesteps, self.schedule, self.prediction = timesteps, schedule, prediction
        self.beta_start, self.beta_end, self.clip, self.seed = beta_start, beta_end, clip, seed
        self._scheduler: Any = None

    # -- the forward diffusion -------------------------------------------------------------------------------------

    @property
    def scheduler(self) -> Any:
        """The `DDPMScheduler` that holds the noise schedule; samplers are made from its `config`."""
        if self._scheduler is None:
            try:
                from diffusers import DDPMScheduler
            except ImportError:
                raise MissingExtra("diffusers", "diffusion") from None
            self._scheduler = DDPMScheduler(
                num_train_timesteps=self.timesteps,
                beta_schedule=self.schedule,
                beta_start=self.beta_start,
                beta_end=self.beta_end,
                prediction_type=self.prediction,
                clip_sample=self.clip is not None,
                clip_sample_range=self.clip or 1.0,
            )
        return self._scheduler

    def signal(self, timestep: Tensor) -> Tensor:
        """abar_t of each step: the share of the variance of x_t that is signal."""
        return self.scheduler.alphas_cumprod.to(timestep.device)[timestep]

    def noised(self, batch: Batch) -> Batch:
        """The batch with `timestep` (B,) and `noise`, drawn from torch's generator unless it holds them."""
        checked(batch)
        if "noise" in batch:
            return batch
        x0 = batch["x0"]
        timestep = torch.randint(self.timesteps, (len(x0),))
        return {**batch, "timestep": timestep.to(x0.device), "noise": torch.randn(x0.shape, dtype=x0.dtype).to(x0)}

    def mixed(self, batch: Batch) -> Tensor:
        """x_t of a noised batch, (B, C, H, W)."""
        return self.scheduler.add_noise(batch["x0"], batch["noise"], batch["timestep"])

    def predict(self, model: nn.Module, sample: Tensor, timestep: Tensor, prompt: Tensor) -> Tensor:
        """What the model says of x_t = `sample` at the steps (B,) under the prompts. Counts the pass."""
        return self.forward(model, {"sample": sample, "timestep": timestep, "prompt": prompt})

    def clean(self, output: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """The one-step estimate of x0 from what the model says of x_t = `sample`."""
        signal = self.signal(timestep).to(output).view(-1, *[1] * (output.ndim - 1))
        if self.prediction == "v_prediction":
            return signal.sqrt() * sample - (1 - signal).sqrt() * output
        return (sample - (1 - signal).sqrt() * output) / signal.sqrt()

    # -- batches ---------------------------------------------------------------------------------------------------

    def loader(
        self, dataset: Dataset[Any], batch_size: int, shuffle: bool = False, seed: int = 0
    ) -> DataLoader[Any] | TensorBatches:
        if len(dataset):  # type: ignore[arg-type]
            checked(dataset[0])
        return super().loader(dataset if shuffle else WithNoise(dataset, self), batch_size, shuffle, seed)

    def collate(self, samples: list[Any]) -> Batch:
        plain = [{k: v for k, v in checked(sample).items() if k != "labels"} for sample in samples]
        batch = self.noised(default_collate(plain))
        if any("labels" in sample for sample in samples):  # samples with targets of their own beside ordinary ones
            own = self.targets(batch)
            chosen = [torch.as_tensor(s["labels"]) if "labels" in s else own[i] for i, s in enumerate(samples)]
            batch["labels"] = torch.stack(chosen)
        return batch

    def inputs(self, batch: Batch) -> Any:
        if "sample" in batch:  # a step of sampling, or a comparison of two models at the same x_t
            return {name: batch[name] for name in ("sample", "timestep", "prompt")}
        batch = self.noised(batch)
        return {"sample": self.mixed(batch), "timestep": batch["timestep"], "prompt": batch["prompt"]}

    def targets(self, batch: Batch) -> Tensor:
        """What the model should put out. `labels` in a batch stand in for it."""
        checked(batch)
        if "labels" in batch:
            return batch["labels"]
        if "noise" not in batch:
            raise BadInput("This batch holds no noise yet, so it has no target. Pass it through noised() first.")
        if self.prediction == "v_prediction":
            return self.scheduler.get_velocity(batch["x0"], batch["noise"], batch["timestep"])
        return batch["noise"]

    def with_targets(self, batch: Batch, targets: Tensor) -> Batch:
        return {**self.noised(batch), "labels": targets}

    # -- judging ---------------------------------------------------------------------------------------------------

    def per_sample_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().per_sample_loss(model, self.noised(batch))

    def score(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().score(model, self.noised(batch))

    def per_sample_gradients(self, model: nn.Module, batch: Batch, names: set[str] | None = None) -> dict[str, Tensor]:
        return super().per_sample_gradients(model, self.noised(batch), names)

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        if output.shape != targets.shape:
            raise BadInput(
                f"A denoiser's output must have the shape of its input, {tuple(targets.shape)}, but it has the shape "
                f"{tuple(output.shape)}."
            )
        return (output - targets).square().flatten(1).mean(1)

    def predictions_of(self, output: Tensor) -> Tensor:
        return output

    def score_of(self, output: Tensor, targets: Tensor) -> Tensor:
        return -self.loss_of(output, targets)

    def divergence(self, output: Tensor, reference: Tensor) -> Tensor:
        return (output - reference).square().mean()

    def resample(self, targets: Tensor, pool: Tensor, how: Resampling, generator: torch.Generator) -> Tensor:
        """Noise that has nothing to do with the sample: what is learned from it is to predict nothing at all."""
        return torch.randn(targets.shape, generator=generator, dtype=targets.dtype)


class WithNoise(Dataset[Any]):
    """A dataset whose samples carry their step and noise, decided by the objective's seed and the sample's place."""

    def __init__(self, dataset: Dataset[Any], objective: Denoising) -> None:
        self.dataset, self.objective = dataset, objective

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        sample = checked(self.dataset[index])
        if "noise" in sample:
            return sample
        generator = torch.Generator().manual_seed(self.objective.seed * STRIDE + index)
        x0 = torch.as_tensor(sample["x0"])
        timestep = torch.randint(self.objective.timesteps, (), generator=generator)
        return {**sample, "timestep": timestep, "noise": torch.randn(x0.shape, generator=generator, dtype=x0.dtype)}


def checked(batch: Any) -> Any:
    """The batch or sample, if it is one of a diffusion model."""
    if not isinstance(batch, Mapping) or "x0" not in batch or "prompt" not in batch:
        found = f"the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        raise BadInput(
            f"A diffusion sample is a mapping with 'x0', a clean image, and 'prompt', token ids, but {found} was given."
        )
    return batch

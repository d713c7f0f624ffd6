"""The variational autoencoder that learns where embeddings lie."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Variational autoencoder: d -> 128 -> 32 -> (mean, log variance), each of size z -> 32 -> 128 -> d."""

    def __init__(self, size: int, z: int, output: Literal["linear", "sigmoid"] = "linear") -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(size, 128), nn.ReLU(), nn.Linear(128, 32), nn.ReLU())
        self.mean, self.log_variance = nn.Linear(32, z), nn.Linear(32, z)
        layers = [nn.Linear(z, 32), nn.ReLU(), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, size)]
        self.decoder = nn.Sequential(*layers, *([nn.Sigmoid()] if output == "sigmoid" else []))

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, d), mean and standard deviation of the code (B, z)."""
        hidden = self.encoder(embedding)
        mean, deviation = self.mean(hidden), torch.exp(0.5 * self.log_variance(hidden))
        # The code is drawn also after training, as in the authors' code.
        rebuilt: Tensor = self.decoder(mean + deviation * torch.randn_like(deviation))
        return rebuilt, mean, deviation


def vae_loss(vae: nn.Module, embedding: Tensor, kl_weight: float) -> Tensor:
    """Squared error plus weighted KL, each summed over dimensions and averaged over samples."""
    rebuilt, mean, deviation = vae(embedding)
    return squared_distance(rebuilt, embedding).mean() + kl_weight * kl(mean, deviation).mean()


def kl(mean: Tensor, deviation: Tensor) -> Tensor:
    """(B,) KL divergence of normals (B, z) from the standard normal."""
    variance = deviation.square()
    return 0.5 * (mean.square() + variance - torch.log(variance + 1e-8) - 1).sum(-1)


def reconstruction_error(vae: nn.Module, embedding: Tensor) -> Tensor:
    """(B,) squared distances of embeddings from their reconstructions."""
    return squared_distance(vae(embedding)[0], embedding)


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """(B,) squared Euclidean distances of the rows of two (B, d)."""
    return (a - b).square().sum(1)


@torch.no_grad()
def mean_error(vae: nn.Module, embeddings: Tensor) -> float:
    return float(reconstruction_error(vae, embeddings).mean())

"""Your own network and your own data set: forget one class of images.

    didact bench forgetting --problem examples/own_convnet.py:make --methods retrain,ssd,fine-tune --seeds 1

Nothing here comes from didact except the recipe, the cache of trained models and the problem itself.
"""

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.forgetting import UnlearningProblem, unlearning_problem
from didact.models import trained


class Digits28(Dataset):
    """scikit-learn's handwritten digits, resized to 28 x 28: (1, 28, 28) float image, int label."""

    def __init__(self, rows: np.ndarray) -> None:
        data = load_digits()
        self.images = torch.tensor(data.images[rows] / 16, dtype=torch.float32).unsqueeze(1)
        self.labels = data.target[rows]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = F.interpolate(self.images[index : index + 1], size=28, mode="bilinear", align_corners=False)
        return image[0], int(self.labels[index])


class SmallNet(nn.Module):
    """Two strided convolutions with batch normalisation and a linear head: (B, 1, 28, 28) -> (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 5, stride=2, padding=2)
        self.head = nn.Linear(32 * 7 * 7, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.norm(self.first(images)))
        hidden = F.relu(self.second(hidden))
        return self.head(hidden.flatten(1))


def make(seed: int = 0, *, forget: int = 3, epochs: int = 8) -> UnlearningProblem:
    """Forget one digit: `--problem examples/own_convnet.py:make:forget=8` chooses another."""
    labels = load_digits().target
    order = np.random.default_rng(seed).permutation(len(labels))
    train, validation, test = np.split(order, [1000, 1300])

    def those(rows: np.ndarray, forgotten: bool) -> Digits28:
        return Digits28(rows[(labels[rows] == forget) == forgotten])

    # How the model was trained. "Retraining" means: the same, without the forget data.
    recipe = Recipe(SmallNet, Classification(), name="SmallNet", epochs=epochs, batch_size=32, lr=1e-3)
    model = trained(recipe, Digits28(train), seed)  # or load your own checkpoint here

    return unlearning_problem(
        model,
        forget=those(train, True),
        retain=those(train, False),
        test=those(test, False),
        holdout=those(test, True),  # never trained on, of the forgotten kind
        validation=those(validation, False),  # what --tune may look at
        validation_holdout=those(validation, True),
        recipe=recipe,
        target=0.0,  # a forgotten class should be recognised never
        seed=seed,
        about={"class": forget},
    )

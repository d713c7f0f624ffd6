"""What methods on language models share: likelihoods of answers, and a reference that is looked at once and kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.cache import cache_folder
from didact.core.objective import IGNORED, Batch, Objective, evaluating
from didact.models.workpieces import digest

Reduction = Literal["sum", "mean"]


def sequence_nll(objective: Objective, model: nn.Module, batch: Batch, reduction: Reduction = "sum") -> Tensor:
    """(B,) negative log-likelihood of each sample's target tokens, summed or averaged over them."""
    output = objective.forward(model, batch)
    return sequence_nll_of(output, objective.targets(batch).to(output.device), reduction)


def sequence_nll_of(logits: Tensor, labels: Tensor, reduction: Reduction = "sum") -> Tensor:
    """As `sequence_nll`, from logits (B, T, V) and labels (B, T); position t predicts token t + 1."""
    nll, kept = token_nll(logits, labels)
    total = (nll * kept).sum(-1)
    return total if reduction == "sum" else total / kept.sum(-1).clamp(min=1)


def token_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T-1) negative log-likelihoods and the mask of the positions that are targets."""
    shifted, tokens = logits[:, :-1], labels[:, 1:]
    nll = F.cross_entropy(shifted.flatten(0, 1).float(), tokens.flatten(), reduction="none", ignore_index=IGNORED)
    return nll.view(tokens.shape), tokens != IGNORED


def kl_to(reference: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Mean KL(reference || model) over the target positions, from two sets of logits (B, T, V)."""
    kept = labels[:, 1:] != IGNORED
    old, new = (x[:, :-1][kept].log_softmax(-1) for x in (reference, logits))
    return F.kl_div(new, old, log_target=True, reduction="batchmean")


class Indexed(Dataset[dict[str, Any]]):
    """A data set of mappings whose samples know their row: `row` travels in the batch."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "row": torch.tensor(index)}


def without_row(batch: Batch) -> tuple[Batch, Tensor]:
    """The batch as a model takes it, and the rows of its samples."""
    return {k: v for k, v in batch.items() if k != "row"}, batch["row"]


@torch.no_grad()
def reference_nll(
    model: nn.Module,
    dataset: Dataset[Any],
    objective: Objective,
    *,
    reduction: Reduction = "sum",
    batch_size: int = 64,
    keep: bool = False,
) -> Tensor:
    """(N,) negative log-likelihoods under a model that will not be held while another is trained.

    With `keep` they are read from, or written to, the cache on disk, by the contents of model and data: a reference
    too large to hold beside the model in training is looked at once.

    Cost: one forward pass over the data, none when they are kept already.
    """
    file = _kept(model, dataset, reduction) if keep else None
    if file is not None and file.is_file():
        return load_file(str(file))["nll"]
    with evaluating(model):
        found = torch.cat(
            [
                sequence_nll(objective, model, batch, reduction).float().cpu()
                for batch in objective.loader(dataset, batch_size)
            ]
        )
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".tmp")
        save_file({"nll": found}, str(scratch))
        scratch.replace(file)
    return found


def _kept(model: nn.Module, dataset: Dataset[Any], reduction: str) -> Path:
    sha = hashlib.sha256(f"{digest(dataset)} {reduction}".encode())
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return cache_folder() / "references" / f"{sha.hexdigest()[:24]}.safetensors"

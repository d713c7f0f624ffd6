"""Prompts by what a language model makes of them: a small network on its hidden states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.errors import BadInput
from didact.core.objective import device_of, evaluating
from didact.data.text import prompt_ids
from didact.models.generation import pad_id

Pooling = Literal["last", "mean"]


class HiddenStates(nn.Module):
    """One hidden layer of ReLU units on a prompt's hidden state, standardised; class-weighted cross-entropy, Adam."""

    mean: Tensor
    spread: Tensor

    def __init__(
        self,
        model: nn.Module | None,
        tokenizer: Any,
        layer: int = -1,
        pooling: Pooling = "last",
        width: int = 256,
        lr: float = 1e-3,
        steps: int = 300,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        if model is None or tokenizer is None:
            raise BadInput("The backend hidden looks into a language model: give model= and tokenizer=.")
        if pooling not in ("last", "mean"):
            raise BadInput(f"pooling is 'last' or 'mean', but {pooling!r} was given.")
        # Not a submodule: the language model belongs to whoever holds this classifier and is saved there.
        self._outside = (model, tokenizer)
        self.settings: dict[str, Any] = {
            "layer": layer, "pooling": pooling, "width": width, "lr": lr, "steps": steps, "batch_size": batch_size
        }  # fmt: skip
        self._hold(0)

    def fit(self, positives: list[str], negatives: list[str], seed: int) -> None:
        states = self.states([*map(self._ids, positives), *map(self._ids, negatives)]).float()
        truth = torch.zeros(len(states))
        truth[: len(positives)] = 1
        self._hold(states.shape[1])
        self.to(states.device)
        self.mean, self.spread = states.mean(0), states.std(0).clamp(min=1e-6)
        weights = torch.where(truth > 0, len(truth) / len(positives), len(truth) / len(negatives))
        x, y, weights = (states - self.mean) / self.spread, truth.to(states.device), weights.to(states.device)
        optimiser = torch.optim.Adam(self.parameters(), lr=self.settings["lr"])
        with torch.enable_grad():
            for _ in range(self.settings["steps"]):
                optimiser.zero_grad()
                losses = F.binary_cross_entropy_with_logits(self.net(x).squeeze(-1), y, reduction="none")
                ((weights * losses).sum() / weights.sum()).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        self.requires_grad_(False)

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return self.probabilities_of_tokens([self._ids(text) for text in texts])

    @torch.no_grad()
    def probabilities_of_tokens(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        if not self.settings.get("inputs"):
            raise BadInput("This classifier of prompts has not been fitted. Call fit(positives, negatives) first.")
        states = self.states(prompts).to(self.mean)
        score = self.net((states - self.mean) / self.spread).squeeze(-1)
        return np.asarray(torch.sigmoid(score.double()).cpu().numpy(), dtype=np.float64)

    @torch.no_grad()
    def states(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """(n, d) hidden states of prompts. Right-padded: in a causal model nothing that follows changes a token."""
        model, tokenizer = self._outside
        size, found = int(self.settings["batch_size"]), []
        with evaluating(model):
            for start in range(0, len(prompts), size):
                rows = [list(ids) or [pad_id(tokenizer)] for ids in prompts[start : start + size]]
                mask = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
                tokens = torch.full(mask.shape, pad_id(tokenizer))
                for i, ids in enumerate(rows):
                    tokens[i, : len(ids)], mask[i, : len(ids)] = torch.tensor(ids), 1
                tokens, mask = tokens.to(device_of(model)), mask.to(device_of(model))
                output = model(input_ids=tokens, attention_mask=mask, output_hidden_states=True)
                count_forward(len(rows))
                states = output.hidden_states[self.settings["layer"]]
                if self.settings["pooling"] == "last":
                    found.append(states[torch.arange(len(rows)), mask.sum(1) - 1])
                else:
                    found.append((states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
        return torch.cat(found)

    def options(self) -> dict[str, Any]:
        return dict(self.settings)

    @classmethod
    def blank(cls, options: Mapping[str, Any], model: nn.Module | None = None, tokenizer: Any = None) -> HiddenStates:
        made = cls(model, tokenizer, **{k: v for k, v in options.items() if k != "inputs"})
        made._hold(int(options.get("inputs", 0)))
        return made.requires_grad_(False)

    def _hold(self, inputs: int) -> None:
        self.settings["inputs"] = inputs
        width = int(self.settings["width"])
        self.net = nn.Sequential(nn.Linear(max(1, inputs), width), nn.ReLU(), nn.Linear(width, 1))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))

    def _ids(self, text: str) -> list[int]:
        return prompt_ids(self._outside[1], text)

"""Data whose answer is one label token: reading the labels, their probabilities, and the state they are read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.cost import count_forward
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import IGNORED, CausalLM, Objective, device_of, evaluating


class Labelled(Dataset[dict[str, Tensor]]):
    """Prompts whose only target is the label token; whatever came after it (an end token) is cut off.

    `truth` (N,) are the places of the true labels in `label_ids`, the label tokens in ascending order.

    Raises:
        NotApplicable: answers of several tokens.
        BadInput: all answers are the same.
    """

    def __init__(self, dataset: Dataset[Any], label_ids: Sequence[int] | None = None) -> None:
        samples = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
        if not all(isinstance(s, Mapping) and "labels" in s for s in samples):
            raise BadInput("Label tasks are mappings with 'input_ids' and 'labels', -100 except on the label.")
        targets = [torch.as_tensor(s["labels"]) for s in samples]
        places = [torch.nonzero(t != IGNORED).flatten().tolist() for t in targets]
        # After the label the same token may follow everywhere: the end token.
        ends = {tuple(t[p[1:]].tolist()) for t, p in zip(targets, places, strict=True)}
        if len(ends) > 1 or max(map(len, ends)) > 1:
            raise NotApplicable(
                "Labels of one token each were expected, but the tokenizer splits the answers of this data, or they "
                "are free text. Use labels that are one token, such as yes and no."
            )
        self._samples = [
            {
                "input_ids": torch.as_tensor(s["input_ids"])[: p[0] + 1],
                "attention_mask": torch.ones(p[0] + 1, dtype=torch.long),
                "labels": F.pad(t[p[0]].view(1), (p[0], 0), value=IGNORED),
            }
            for s, t, p in zip(samples, targets, places, strict=True)
        ]
        tokens = [int(s["labels"][-1]) for s in self._samples]
        self.label_ids = tuple(sorted(set(tokens)) if label_ids is None else label_ids)
        if len(self.label_ids) < 2:
            raise BadInput("All samples have the same label. A task needs at least two: there is nothing to guess.")
        unknown = set(tokens) - set(self.label_ids)
        if unknown:
            raise BadInput(f"The labels {sorted(unknown)} are none of the task's, {list(self.label_ids)}.")
        self.truth = torch.tensor([self.label_ids.index(token) for token in tokens])

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._samples[index]

    @property
    def chance(self) -> float:
        return 1 / len(self.label_ids)

    def rows(self, indices: Sequence[int]) -> Labelled:
        """Some of the samples, with the labels of all."""
        return Labelled(_Rows(self, indices), self.label_ids)

    def relabelled(self, places: Tensor) -> Labelled:
        """The same prompts with other labels: places (N,) in `label_ids`."""
        other = Labelled(self, self.label_ids)
        tokens = torch.tensor(self.label_ids)[places]
        for sample, token in zip(other._samples, tokens, strict=True):
            sample["labels"] = torch.cat([sample["labels"][:-1], token.view(1)])
            sample["input_ids"] = torch.cat([sample["input_ids"][:-1], token.view(1)])
        other.truth = places
        return other


class _Rows(Dataset[Any]):
    def __init__(self, dataset: Dataset[Any], indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


@torch.no_grad()
def label_probabilities(objective: Objective, model: nn.Module, data: Labelled) -> Tensor:
    """(N, K) probabilities of the label tokens among each other, in the order of `label_ids`."""
    chosen = torch.tensor(data.label_ids)
    rows = [objective.decisions(output, targets).cpu() for output, targets in objective.outputs(model, data)]
    return torch.cat(rows)[:, chosen].float().softmax(-1)


@dataclass(frozen=True)
class Grip:
    """How well a model has a task in hand, over its examples."""

    probability: float  #: mean probability of the true label
    accuracy: float  #: share of right answers
    confidence: float  #: mean distance of that probability from chance


def grip(objective: Objective, model: nn.Module, data: Labelled) -> Grip:
    found = label_probabilities(objective, model, data)
    right = found.gather(1, data.truth[:, None])
    hits = (found.argmax(-1) == data.truth).float()
    return Grip(float(right.mean()), float(hits.mean()), float((right - data.chance).abs().mean()))


def forget_ratio(before: float, after: float, chance: float) -> float:
    """(before - after) / (before - chance): 0 when nothing is forgotten, 1 when what is left is guessing."""
    return (before - after) / (before - chance)


def random_label_loss(probabilities: Tensor) -> Tensor:
    """Mean expected loss under labels drawn uniformly, from (N, K) label probabilities; log K at the least."""
    return -probabilities.clamp(min=1e-12).log().mean()


@torch.no_grad()
def label_states(model: nn.Module, data: Labelled, batch_size: int = 256) -> list[Tensor]:
    """Hidden states from which the label is read, the last prompt token's: a (N, d) tensor a layer, embeddings first.

    Raises:
        NotApplicable: a model that gives no hidden states (a Hugging Face model does).
    """
    layers: list[list[Tensor]] = []
    with evaluating(model):
        batches: Iterable[Any] = CausalLM().loader(data, batch_size)
        for batch in batches:
            last = batch["attention_mask"].sum(-1) - 2  # the label itself comes after the prompt
            moved = {k: v.to(device_of(model)) for k, v in batch.items() if k != "labels"}
            output = model(**moved, output_hidden_states=True)
            count_forward(len(last))
            states = getattr(output, "hidden_states", None)
            if states is None:
                raise NotApplicable(
                    f"{type(model).__name__} gives no hidden states to probe. Use a Hugging Face language model."
                )
            layers.append([state[torch.arange(len(last)), last.to(state.device)].float().cpu() for state in states])
    return [torch.cat(parts) for parts in zip(*layers, strict=True)]

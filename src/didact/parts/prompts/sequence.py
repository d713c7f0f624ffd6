"""Prompts by a Hugging Face sequence classifier, with a tokenizer of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from didact.core.batches import TensorBatches
from didact.core.cost import count_backward, count_forward
from didact.core.errors import BadInput
from didact.core.objective import device_of, evaluating


class SequenceClassifier(nn.Module):
    """Class-weighted cross-entropy, AdamW with a cosine schedule; the defaults are those of eco for RoBERTa-base."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        positive: int = 1,
        lr: float = 2e-5,
        epochs: int = 30,
        weight_decay: float = 0.1,
        batch_size: int = 16,
    ) -> None:
        super().__init__()
        if model is None or tokenizer is None:
            raise BadInput("The backend sequence is a Hugging Face sequence classifier: give model= and tokenizer=.")
        if not 0 <= positive < model.config.num_labels:
            raise BadInput(f"positive={positive} is none of the classifier's {model.config.num_labels} labels.")
        self.model: Any = copy.deepcopy(model).requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.settings: dict[str, Any] = {
            "positive": positive, "lr": lr, "epochs": epochs, "weight_decay": weight_decay, "batch_size": batch_size
        }  # fmt: skip

    def fit(self, positives: list[str], negatives: list[str], seed: int) -> None:
        encoded = self._encoded(positives + negatives)
        other = next(i for i in range(self.model.config.num_labels) if i != self.settings["positive"])
        labels = torch.tensor([self.settings["positive"]] * len(positives) + [other] * len(negatives))
        counts = torch.where(labels == other, len(negatives), len(positives))
        weights = len(labels) / counts
        batches = TensorBatches(
            (encoded["input_ids"], encoded["attention_mask"], labels, weights), self.settings["batch_size"], True, seed
        )
        total = len(batches) * self.settings["epochs"]
        self.model.requires_grad_(True).train()
        optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=self.settings["lr"], weight_decay=self.settings["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, total))
        device = device_of(self.model)
        with torch.enable_grad():
            for _ in range(self.settings["epochs"]):
                for batch in batches:
                    ids, mask, truth, weight = (part.to(device) for part in batch)
                    logits = self.model(input_ids=ids, attention_mask=mask).logits
                    losses = F.cross_entropy(logits, truth, reduction="none")
                    ((weight * losses).sum() / weight.sum()).backward()  # type: ignore[no-untyped-call]
                    count_forward(len(ids))
                    count_backward(len(ids))
                    optimiser.step()
                    optimiser.zero_grad()
                    schedule.step()
        self.model.requires_grad_(False).eval()

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        found = []
        with evaluating(self.model):
            for start in range(0, len(texts), 64):
                encoded = self._encoded(texts[start : start + 64])
                logits = self.model(**{k: v.to(device_of(self.model)) for k, v in encoded.items()}).logits
                count_forward(len(logits))
                found.append(logits.double().softmax(-1)[:, self.settings["positive"]].cpu())
        return np.asarray(torch.cat(found).numpy(), dtype=np.float64)

    def options(self) -> dict[str, Any]:
        return {
            **self.settings,
            "config": {**self.model.config.to_dict(), "model_type": self.model.config.model_type},
            "tokenizer": tokenizer_as_json(self.tokenizer),
        }

    @classmethod
    def blank(
        cls, options: Mapping[str, Any], model: nn.Module | None = None, tokenizer: Any = None
    ) -> SequenceClassifier:
        from transformers import AutoConfig, AutoModelForSequenceClassification

        config = AutoConfig.for_model(**options["config"])
        own = {k: v for k, v in options.items() if k not in ("config", "tokenizer")}
        model = AutoModelForSequenceClassification.from_config(config)  # type: ignore[no-untyped-call]
        return cls(model, tokenizer_from_json(options["tokenizer"]), **own)

    def _encoded(self, texts: Sequence[str]) -> dict[str, Any]:
        longest = getattr(self.model.config, "max_position_embeddings", None)
        limits = [n for n in (longest, self.tokenizer.model_max_length) if isinstance(n, int) and n < 10**6]
        found = self.tokenizer(
            list(texts), padding=True, truncation=bool(limits), max_length=min(limits) if limits else None,
            return_tensors="pt",
        )  # fmt: skip
        return {name: found[name] for name in ("input_ids", "attention_mask")}


def tokenizer_as_json(tokenizer: Any) -> dict[str, Any]:
    """A fast tokenizer as JSON values, so that it travels with the options of what uses it."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None:
        raise BadInput(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so it cannot be saved with the classifier. "
            "Load it with AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    return {
        "tokenizer": inner.to_str(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)},
        "model_max_length": int(min(tokenizer.model_max_length, 10**9)),
        "padding_side": tokenizer.padding_side,
    }


def tokenizer_from_json(saved: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(saved["tokenizer"]),
        model_max_length=saved["model_max_length"],
        padding_side=saved["padding_side"],
        **saved["special"],
    )

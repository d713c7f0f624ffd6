"""Which tokens of a flagged prompt are corrupted: those of names, or all but the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from didact.core.cost import count_forward
from didact.core.objective import device_of, evaluating
from didact.parts.prompts.names import name_pattern
from didact.parts.prompts.sequence import tokenizer_as_json, tokenizer_from_json

Spans = list[tuple[int, int]]


class TokenClassifier(nn.Module):
    """prompt tokens -> which of them tell whom or what the prompt is about.

    `names` finds the given names in the decoded prompt, `model` with its `tokenizer` (any Hugging Face token
    classifier that tags people, with labels that contain `label`) finds others; both are mapped to the language
    model's tokens by their places in the text. Where nothing is found, and without either, it is all tokens but the
    last.
    """

    def __init__(
        self, names: Sequence[str] = (), model: nn.Module | None = None, tokenizer: Any = None, label: str = "PER"
    ) -> None:
        super().__init__()
        self.names, self.label, self.own_tokenizer = tuple(names), label, tokenizer
        self.pattern = name_pattern(self.names) if self.names else None
        self.model: Any = model.requires_grad_(False).eval() if model is not None else None

    def chosen(self, ids: Sequence[int], tokenizer: Any) -> list[bool]:
        """One flag a token of a prompt."""
        text, places = decoded(ids, tokenizer)
        spans = self.spans(text)
        marked = [any(start < b and a < end for a, b in spans) for start, end in places]
        if any(marked):
            return marked
        return [True] * (len(ids) - 1) + [False] * min(1, len(ids))

    def spans(self, text: str) -> Spans:
        """Where in a text people are named."""
        found = [match.span() for match in self.pattern.finditer(text)] if self.pattern is not None else []
        return found + self._tagged(text) if self.model is not None else found

    @torch.no_grad()
    def _tagged(self, text: str) -> Spans:
        encoded = self.own_tokenizer(text, return_offsets_mapping=True, return_tensors="pt", truncation=True)
        places = encoded.pop("offset_mapping")[0].tolist()
        inputs = {name: encoded[name].to(device_of(self.model)) for name in ("input_ids", "attention_mask")}
        with evaluating(self.model):
            labels = self.model(**inputs).logits[0].argmax(-1).tolist()
        count_forward(1)
        names: Mapping[int, str] = self.model.config.id2label
        return [(a, b) for (a, b), i in zip(places, labels, strict=True) if a < b and self.label in names[i]]

    def options(self) -> dict[str, Any]:
        """JSON values that `blank` needs; the model's tensors are saved with those of the wrapper."""
        tagger = None
        if self.model is not None:
            config = {**self.model.config.to_dict(), "model_type": self.model.config.model_type}
            tagger = {"config": config, "tokenizer": tokenizer_as_json(self.own_tokenizer)}
        return {"names": list(self.names), "label": self.label, "tagger": tagger}

    @classmethod
    def blank(cls, options: Mapping[str, Any]) -> TokenClassifier:
        from transformers import AutoConfig, AutoModelForTokenClassification

        model, tokenizer = None, None
        if options["tagger"] is not None:
            config = AutoConfig.for_model(**options["tagger"]["config"])
            model = AutoModelForTokenClassification.from_config(config)  # type: ignore[no-untyped-call]
            tokenizer = tokenizer_from_json(options["tagger"]["tokenizer"])
        return cls(options["names"], model, tokenizer, options["label"])


def decoded(ids: Sequence[int], tokenizer: Any) -> tuple[str, Spans]:
    """The text of some tokens, and the place of each token in it.

    Decoded token by token, as a language model's tokens need not come from encoding a text. Cost: quadratic in the
    number of tokens of a prompt.
    """
    lengths = [len(tokenizer.decode(list(ids[:n]), skip_special_tokens=True)) for n in range(len(ids) + 1)]
    text = tokenizer.decode(list(ids), skip_special_tokens=True)
    return text, list(pairwise(lengths))

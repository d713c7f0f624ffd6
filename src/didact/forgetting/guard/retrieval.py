"""Looking up what a prompt may be about: the nearest stored prompts, by words or by vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from didact.core.cost import count_forward
from didact.core.errors import BadInput
from didact.core.objective import device_of, evaluating
from didact.parts.prompts.sequence import tokenizer_as_json, tokenizer_from_json
from didact.parts.prompts.tfidf import WORD


class Encoder(nn.Module):
    """Texts -> (n, d) unit vectors: means of the last hidden states of a Hugging Face encoder.

    Without a model, means of the language model's own input embeddings, which belong to the wrapper and are not saved
    here. Vectors are normalised, whatever the model does.
    """

    def __init__(self, model: Any = None, tokenizer: Any = None, base: Any = None) -> None:
        super().__init__()
        self.model: Any = model.requires_grad_(False).eval() if model is not None else None
        self.tokenizer = tokenizer
        self._base = (base,)  # not a submodule

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        if self.model is None:
            return F.normalize(torch.stack([self._mean_embedding(text) for text in texts]), dim=-1)
        encoded = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        inputs = {name: encoded[name].to(device_of(self.model)) for name in ("input_ids", "attention_mask")}
        with evaluating(self.model):
            states = self.model(**inputs).last_hidden_state
        count_forward(len(texts))
        mask = inputs["attention_mask"].unsqueeze(-1)
        return F.normalize(((states * mask).sum(1) / mask.sum(1)).float().cpu(), dim=-1)

    def _mean_embedding(self, text: str) -> Tensor:
        embeddings = self._base[0].get_input_embeddings().weight
        ids = self.tokenizer.encode(f" {text}", add_special_tokens=False)
        return embeddings[ids].mean(0).float().cpu() if ids else torch.zeros(embeddings.shape[1])

    def options(self) -> dict[str, Any]:
        if self.model is None:
            return {"config": None}
        config = {**self.model.config.to_dict(), "model_type": self.model.config.model_type}
        return {"config": config, "tokenizer": tokenizer_as_json(self.tokenizer)}

    @classmethod
    def blank(cls, options: Mapping[str, Any], base: Any, tokenizer: Any) -> Encoder:
        from transformers import AutoConfig, AutoModel

        if options["config"] is None:
            return cls(None, tokenizer, base)
        model = AutoModel.from_config(AutoConfig.for_model(**options["config"]))  # type: ignore[no-untyped-call]
        return cls(model, tokenizer_from_json(options["tokenizer"]), base)


class Retriever(nn.Module):
    """The `k` stored items nearest to a text; an item has one or more wordings, the nearest of which counts.

    By TF-IDF of words and word pairs without stop words, which would make all questions of one form alike; document
    frequencies are those of `corpus` (all prompts, not those of the store alone: else every name in it would look
    common). Or by the cosine of an encoder's vectors.
    """

    idf: Tensor

    def __init__(
        self, wordings: Sequence[Sequence[str]], corpus: Sequence[str] = (), encoder: Encoder | None = None
    ) -> None:
        super().__init__()
        self.wordings = [list(texts) for texts in wordings]
        self.owner = np.repeat(np.arange(len(self.wordings)), [len(texts) for texts in self.wordings])
        self._encoder = (encoder,)  # belongs to the wrapper
        self._stored: Any = None
        self.terms: list[str] = []
        self.register_buffer("idf", torch.zeros(0, dtype=torch.float64))
        if encoder is None and corpus:
            try:
                vectorizer = _vectorizer().fit(list(corpus))
            except ValueError as error:
                raise BadInput(f"The prompts cannot be looked up by their words: {error}. Use an encoder.") from None
            self.terms = vectorizer.get_feature_names_out().tolist()
            self.idf = torch.from_numpy(vectorizer.idf_.copy())

    def nearest(self, texts: Sequence[str], k: int) -> list[list[int]]:
        """Of each text, the items by falling similarity; ties in the order of the store."""
        similar = self.similarities(texts)
        return [np.argsort(-row, kind="stable")[:k].tolist() for row in similar]

    def similarities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n, items) cosine with the nearest wording of each stored item."""
        stored = [text for wordings in self.wordings for text in wordings]
        if self._stored is None:
            self._stored = self._vectors(stored)
        found = np.asarray(self._vectors(texts) @ self._stored.T)
        starts = np.flatnonzero(np.r_[True, self.owner[1:] != self.owner[:-1]])
        return np.asarray(np.maximum.reduceat(found, starts, axis=1))

    def _vectors(self, texts: Sequence[str]) -> Any:
        (encoder,) = self._encoder
        if encoder is not None:
            return encoder.encode(texts).double().numpy()
        vectorizer = _vectorizer({term: i for i, term in enumerate(self.terms)})
        vectorizer.idf_ = self.idf.double().cpu().numpy()
        return vectorizer.transform(texts).toarray()

    def options(self) -> dict[str, Any]:
        return {"wordings": self.wordings, "terms": self.terms}

    @classmethod
    def blank(cls, options: Mapping[str, Any], encoder: Encoder | None) -> Retriever:
        made = cls(options["wordings"], (), encoder)
        made.terms = list(options["terms"])
        made.idf = torch.zeros(len(made.terms), dtype=torch.float64)
        return made


def _vectorizer(vocabulary: dict[str, int] | None = None) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=WORD, stop_words="english", vocabulary=vocabulary)

"""A trained hypernetwork with the model it was trained for: embeddings for any tokens, models for any tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.models.artifacts import load, load_tokenizer, save
from didact.reusing.request import fingerprint
from didact.reusing.zett.bytelevel import ByteVocabulary, matched_specials
from didact.reusing.zett.embeddings import Source, with_embeddings
from didact.reusing.zett.hypernetwork import Hypernetwork
from didact.reusing.zett.surface import Speller, SurfaceForms

ABOUT = "zett.json"


@dataclass(eq=False)
class TransferNetwork:
    """What `TokenizerTransfer.fit` returns. Saves and loads without the model, which is given again when loading."""

    hypernetwork: Hypernetwork
    source: Source
    losses: list[float] = field(default_factory=list)  #: of the main training, a step
    warmup_losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.speller = Speller(self.source.vocabulary, self.hypernetwork.length)

    @torch.no_grad()
    def embeddings(self, tokens: Sequence[bytes | str], chunk: int = 4096) -> list[Tensor]:
        """Predicted embeddings of any tokens: (n, d) for the input, (n, d) for an untied output, (n, 1) for a bias."""
        forms = self.forms(tokens).ids
        table = self.source.table.to(next(self.hypernetwork.parameters()).device)
        parts = [self.hypernetwork(forms[i : i + chunk], table) for i in range(0, max(1, len(forms)), chunk)]
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def forms(self, tokens: Sequence[bytes | str]) -> SurfaceForms:
        return self.speller([t.encode() if isinstance(t, str) else t for t in tokens])

    def columns(self, target: ByteVocabulary) -> list[Tensor]:
        """Embeddings of a whole vocabulary: predicted, but for special tokens, which keep the source's."""
        return filled(self.source, target, self.embeddings([token or b"" for token in target.tokens]))

    def model_for(self, tokenizer: Any, into: nn.Module | None = None) -> nn.Module:
        """A copy of the source model, or of a fine-tuned variant of it, that runs with another tokenizer."""
        target = ByteVocabulary.of(tokenizer)
        return with_embeddings(into if into is not None else self.source.model, target, self.columns(target))

    def save(self, folder: str | Path) -> Path:
        folder = Path(folder)
        save(self.hypernetwork, folder / "hypernetwork")
        self.source.vocabulary.tokenizer.save_pretrained(folder / "tokenizer")
        (folder / ABOUT).write_text(json.dumps({"model": fingerprint(self.source.model)}), encoding="utf-8")
        return folder

    @classmethod
    def open(cls, folder: str | Path, model: nn.Module) -> TransferNetwork:
        """
        Raises:
            BadInput: a folder without a transfer network, or another model than it was trained for.
        """
        folder = Path(folder)
        if not (folder / ABOUT).is_file():
            raise BadInput(f"{folder} holds no transfer network: {ABOUT} is missing.")
        trained_for = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["model"]
        if fingerprint(model) != trained_for:
            raise BadInput(
                "This transfer network was trained for a model with other weights. Give the model it was fitted to; "
                "a fine-tuned variant goes to model_for(tokenizer, into=variant)."
            )
        network = load(folder / "hypernetwork")
        assert isinstance(network, Hypernetwork)
        return cls(network, Source.of(model, load_tokenizer(folder / "tokenizer")))


def filled(source: Source, target: ByteVocabulary, rows: Sequence[Tensor]) -> list[Tensor]:
    """Rows for every token of the target, with those of special tokens taken from the source."""
    made, columns = [row.clone() for row in rows], source.columns
    for mine, theirs in matched_specials(source.vocabulary, target).items():
        for column, own in zip(made, columns, strict=True):
            column[mine] = own[theirs]
    return made

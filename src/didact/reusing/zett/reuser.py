"""The base of methods that move a language model to another tokenizer by giving it new embeddings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.fit import fit
from didact.core.objective import CausalLM
from didact.data.text import TextDataset, TextItem
from didact.reusing.baselines import provenance
from didact.reusing.problem import Reuser
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult
from didact.reusing.zett.bytelevel import ByteVocabulary
from didact.reusing.zett.embeddings import Source, embedding_names, with_embeddings
from didact.reusing.zett.texts import as_texts, windows
from didact.reusing.zett.transfer import filled

#: vocabulary -> its embeddings, column by column (rows of special tokens are overwritten by the source's)
Embedder = Callable[[ByteVocabulary], list[Tensor]]


class TokenizerReuser(Reuser):
    """Base: `embedder` says how the new embeddings are made.

    Of a request it reads the first model, `extras["source_tokenizer"]`, `wants["tokenizer"]` (a tokenizer, or a
    mapping of names to tokenizers) and, where texts are needed, `extras["texts"]`. With one tokenizer the answer is a
    network with that tokenizer; with a mapping `produce(name)` makes the network for each, as `produce(tokenizer)`
    does for any other. When `base` is given, the embeddings are made for it and put into the model, a fine-tuned
    variant of it.
    """

    continue_steps: NonNegativeInt = 0  #: steps of ordinary training with the new tokenizer afterwards
    continue_lr: PositiveFloat = 1e-4  #: their learning rate
    body_shift: NonNegativeFloat = 0.5  #: share of what that changed in the base's body, for a fine-tuned variant

    @abstractmethod
    def embedder(self, source: Source, request: Request) -> Embedder:
        """Prepare whatever is needed for any target."""

    def apply(self, request: Request) -> ReuseResult:
        record = request.need_models()[0]
        model = record.network()
        base = request.base.network() if request.base is not None else model
        source = Source.of(base, request.need("source_tokenizer"))
        targets = named_targets(request.want("tokenizer"))
        embed = self.embedder(source, request)

        def produce(target: Any) -> nn.Module:
            tokenizer = targets[target] if isinstance(target, str) else target
            vocabulary = ByteVocabulary.of(tokenizer)
            swapped = with_embeddings(base, vocabulary, filled(source, vocabulary, embed(vocabulary)))
            if self.continue_steps:
                swapped = self.continued(swapped, tokenizer, request)
            return swapped if base is model else shifted(model, base, swapped, vocabulary, self.body_shift)

        only = targets[next(iter(targets))] if not isinstance(request.want("tokenizer"), Mapping) else None
        records = [record, *([request.base] if request.base is not None else [])]
        return ReuseResult(
            module=produce(only) if only is not None else None,
            tokenizer=only,
            produce=produce,
            weights={record.id: 1.0},
            cost={"training_steps": self.training_steps(request), "evaluations": 1, "bytes_sent": 0},
            provenance=provenance(records),
            extras=self.found(embed),
        )

    def training_steps(self, request: Request) -> int:
        return self.continue_steps

    def found(self, embed: Embedder) -> dict[str, Any]:
        """What the method wants to hand out besides models."""
        return {}

    def continued(self, model: nn.Module, tokenizer: Any, request: Request) -> nn.Module:
        """The model trained further, in place, on texts under the new tokenizer."""
        longest = getattr(getattr(model, "config", None), "max_position_embeddings", None) or 512
        pieces = windows(as_texts(request.need("texts")), 2 * longest)
        data = TextDataset([TextItem("", piece) for piece in pieces], tokenizer)
        short = [row for row in range(len(data)) if len(data[row]["input_ids"]) <= longest]
        objective = CausalLM(pad_id=tokenizer.pad_token_id or 0)
        options: dict[str, Any] = {"optimizer": "adamw", "schedule": "cosine", "seed": request.seed}
        size = request.budget.batch_size
        fit(
            model,
            data.rows(short),
            objective,
            steps=self.continue_steps,
            lr=self.continue_lr,
            batch_size=size,
            **options,
        )
        return model.eval()


def named_targets(wanted: Any) -> dict[str, Any]:
    """Name -> tokenizer of what a task wants."""
    found = dict(wanted) if isinstance(wanted, Mapping) and not hasattr(wanted, "backend_tokenizer") else {"": wanted}
    if not found:
        raise BadInput("No target tokenizer was given. Give one, or a mapping of names to tokenizers.")
    return found


@torch.no_grad()
def shifted(model: nn.Module, base: nn.Module, swapped: nn.Module, target: ByteVocabulary, share: float) -> nn.Module:
    """A fine-tuned variant with the swapped base's embeddings and `share` of what the base's body changed."""
    names = embedding_names(model)
    columns = [swapped.get_parameter(name) for name in names]
    made = with_embeddings(model, target, [c.unsqueeze(1) if c.ndim == 1 else c for c in columns])
    before, after = dict(base.named_parameters()), dict(swapped.named_parameters())
    for name, parameter in made.named_parameters():
        if name not in names:
            parameter.add_(after[name] - before[name], alpha=share)
    return made

"""The embeddings of a Hugging Face causal language model: read, replaced for a pass, replaced for good."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from didact.core.cost import backward_counter, count_forward
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import output_tensor
from didact.reusing.zett.bytelevel import ByteVocabulary


@dataclass(frozen=True, eq=False)
class Source:
    """A language model with its vocabulary, and its embeddings as columns: input, output (when not tied), bias."""

    model: nn.Module
    vocabulary: ByteVocabulary
    names: tuple[str, ...]  #: of the parameters, one a column

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any) -> Source:
        """
        Raises:
            NotApplicable: a model without input and output embeddings.
            BadInput: a tokenizer with more tokens than the model has rows, or one that cannot write every byte.
        """
        vocabulary = tokenizer if isinstance(tokenizer, ByteVocabulary) else ByteVocabulary.of(tokenizer)
        names = tuple(embedding_names(model))
        rows = len(model.get_parameter(names[0]))
        if rows < len(vocabulary):
            raise BadInput(
                f"The tokenizer has {len(vocabulary)} tokens, but the model only {rows} embeddings. Give the model's "
                "own tokenizer as source_tokenizer."
            )
        return cls(model, vocabulary, names)

    @property
    def columns(self) -> list[Tensor]:
        """(V, d) input embeddings, (V, d) output embeddings when they are not tied, (V, 1) output bias if any."""
        found = [self.model.get_parameter(name).detach()[: len(self.vocabulary)].float() for name in self.names]
        return [column.unsqueeze(1) if column.ndim == 1 else column for column in found]

    @property
    def table(self) -> Tensor:
        """(V, sum of widths) all columns side by side."""
        return torch.cat(self.columns, 1)

    def logits(self, columns: Sequence[Tensor], ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T, V') logits of the frozen model with other embeddings in place of its own; gradients reach these."""
        frozen: dict[str, Tensor] = {name: p.detach() for name, p in self.model.named_parameters()}
        kinds = [frozen[name] for name in self.names]
        shaped = (c.squeeze(1) if k.ndim == 1 else c for c, k in zip(columns, kinds, strict=True))
        replaced = {name: c.to(k.dtype) for name, c, k in zip(self.names, shaped, kinds, strict=True)}
        inputs = {"input_ids": ids, "attention_mask": mask}
        output = output_tensor(functional_call(self.model, {**frozen, **replaced}, kwargs=inputs, tie_weights=True))
        count_forward(len(ids))
        if output.requires_grad:
            output.register_hook(backward_counter(len(ids)))  # type: ignore[no-untyped-call]
        return output


@torch.no_grad()
def with_embeddings(model: nn.Module, target: ByteVocabulary, columns: Sequence[Tensor]) -> nn.Module:
    """A copy of the model that runs with another vocabulary: these embeddings, special ids set accordingly."""
    made: Any = copy.deepcopy(model)
    made.resize_token_embeddings(len(target), mean_resizing=False)
    for name, column in zip(embedding_names(made), columns, strict=True):
        parameter = made.get_parameter(name)
        parameter.copy_(column.squeeze(1) if parameter.ndim == 1 else column)
    table = made.get_input_embeddings()
    table.padding_idx = target.specials.get("pad")
    for config in (made.config, getattr(made, "generation_config", None)):
        for role in ("bos", "eos", "pad"):
            if config is not None and hasattr(config, f"{role}_token_id"):
                setattr(config, f"{role}_token_id", target.specials.get(role))
    network: nn.Module = made.eval()
    return network


def embedding_names(model: nn.Module) -> list[str]:
    """Names of the embedding parameters: input, output unless tied, bias of the output."""
    try:
        table, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        table = head = None
    if table is None or head is None or not isinstance(getattr(head, "weight", None), nn.Parameter):
        raise NotApplicable(
            f"{type(model).__name__} has no input and output embeddings to replace. A Hugging Face causal language "
            "model is needed."
        )
    name_of = {id(p): name for name, p in model.named_parameters()}
    wanted = [table.weight] if head.weight is table.weight else [table.weight, head.weight]
    if isinstance(getattr(head, "bias", None), nn.Parameter):
        wanted.append(head.bias)
    return [name_of[id(parameter)] for parameter in wanted]

"""The wrapper: a target model whose next-token logits an assistant corrects."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessorList, PreTrainedModel

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import evaluating
from didact.forgetting.uld.assistant import depth_of, first_layers
from didact.forgetting.uld.decoding import LogitDifferenceProcessor, Runner
from didact.models.wrappers import LanguageWrapper, wrapper
from didact.parts.lora import with_lora

#: how many nats a token that must not be said lies below those that may: finite, and yet no chance in floating point
EXCLUDED = 1000.0


def logit_difference(target: Tensor, assistant: Tensor, weight: float, tau: float = 0.0) -> Tensor:
    """(..., V) target - weight * assistant, on the tokens that the target itself finds likely.

    Those with a target probability of at least tau times the largest; all others cannot be generated. Without the
    filter (tau 0) a token that both models find absurd may win, because the assistant finds it more absurd.
    """
    target = target.float()
    difference = target - weight * assistant.float() if weight else target
    if tau == 0:
        return difference
    kept = target >= target.amax(-1, keepdim=True) + math.log(tau)
    lowest = difference.masked_fill(~kept, math.inf).amin(-1, keepdim=True)
    return torch.where(kept, difference, lowest - EXCLUDED)


def offset(target: Tensor, assistant: Tensor, initial: Tensor, weight: float) -> Tensor:
    """(..., V) target + weight * (trained assistant - the assistant before its training)."""
    return target.float() + weight * (assistant.float() - initial.float())


@wrapper("logit-difference")
class LogitDifferenceModel(LanguageWrapper):
    """A target model and an assistant, decoded together; the assistant is adapters on the target's own first layers.

    (B, T) tokens -> logits (B, T, V). `generate` takes what the target's takes (greedy, sampling, beams) and runs the
    assistant beside it with a key-value cache of its own. Target and assistant share their weights: what is held, and
    saved, besides the target is the adapters (and `small`, where the assistant is another model).

    Args:
        base: the target, any Hugging Face causal language model; its parameters are frozen.
        layers: how many of the first layers (of `small`, where given) the assistant has; None takes all.
        rank, alpha, dropout: of the adapters.
        weight: how much of the assistant is subtracted.
        tau: tokens below this share of the target's most likely one cannot be generated.
        relative: offset unlearning instead: add the trained assistant and subtract the untrained one; no filter.
        small: another model of the same vocabulary, to be the assistant; its parameters are frozen too.

    Raises:
        BadInput: more layers than there are, another vocabulary, a negative weight, a tau outside 0 to 1.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: Any = None,
        *,
        layers: int | None = None,
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.05,
        weight: float = 1.0,
        tau: float = 0.0,
        relative: bool = False,
        small: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(base, tokenizer)
        if not isinstance(base, PreTrainedModel):
            raise NotApplicable(f"A Hugging Face causal language model was expected, not {type(base).__name__}.")
        if weight < 0 or not 0 <= tau <= 1:
            raise BadInput(f"weight must be at least 0 and tau between 0 and 1, but {weight} and {tau} were given.")
        if small is not None and small.config.vocab_size != base.config.vocab_size:
            raise BadInput(
                f"The assistant has {small.config.vocab_size} words and the model {base.config.vocab_size}: their "
                "logits cannot be subtracted. Take an assistant with the model's own tokenizer."
            )
        self.small = small
        source = base if small is None else small
        self.layers = depth_of(source) if layers is None else layers
        self.rank, self.alpha, self.dropout = rank, alpha, dropout
        self.weight, self.tau, self.relative = float(weight), float(tau), relative
        for held in (base, small):
            if held is not None:
                held.requires_grad_(False)
        self.initial = first_layers(source, self.layers) if relative else None
        plain = first_layers(source, self.layers)
        # A pass of the assistant counts by its share of the target's weights.
        self.extra_forwards = (2 if relative else 1) * _numbers(plain) / _numbers(base)
        self.assistant = with_lora(plain, rank, alpha, dropout)  # freezes all but the adapters

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        target: Tensor = self.base(**given).logits
        return target if self.silent else self.combine(target, *(m(**given).logits for m in self.companions))

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if self.silent:
            return super().generate(input_ids, mask, **options)
        theirs = options.pop("logits_processor", None) or []
        ours = LogitDifferenceProcessor(self.combine, [Runner(m, mask) for m in self.companions])
        with evaluating(self):
            return super().generate(input_ids, mask, logits_processor=LogitsProcessorList([ours, *theirs]), **options)

    def combine(self, target: Tensor, assistant: Tensor, initial: Tensor | None = None) -> Tensor:
        """(..., V) logits from those of the target and of the assistant (and of the assistant before its training)."""
        if initial is not None:
            return offset(target, assistant, initial, self.weight)
        return logit_difference(target, assistant, self.weight, self.tau)

    @property
    def silent(self) -> bool:
        """The target speaks alone: nothing is subtracted and nothing filtered."""
        return self.weight == 0 and (self.tau == 0 or self.relative)

    @property
    def companions(self) -> list[nn.Module]:
        """What runs beside the target."""
        return [self.assistant] if self.initial is None else [self.assistant, self.initial]

    def train(self, mode: bool = True) -> LogitDifferenceModel:
        """Only the assistant is ever trained: dropout in the target would blur what it is compared with."""
        super().train(mode)
        for frozen in (self.base, self.small, self.initial):
            if frozen is not None:
                frozen.eval()  # type: ignore[no-untyped-call]
        return self

    # -- saving and loading ----------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        names = ("layers", "rank", "alpha", "dropout", "weight", "tau", "relative")
        return {name: getattr(self, name) for name in names}

    def parts(self) -> dict[str, nn.Module]:
        return {"base": self.base} if self.small is None else {"base": self.base, "small": self.small}

    @classmethod
    def assemble(
        cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any
    ) -> LogitDifferenceModel:
        return cls(parts["base"], tokenizer, small=parts.get("small"), **options)  # type: ignore[arg-type]

    def own_tensors(self) -> dict[str, Tensor]:
        """The adapters: everything else in the assistant is the target's."""
        return {name: value.contiguous() for name, value in super().own_tensors().items() if ".lora_" in name}


def _numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())

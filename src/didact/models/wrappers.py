"""Wrappers: a language model with something around it that behaves as one, and saves and loads like one.

Methods that forget at inference time leave the weights alone and change what goes in or comes out. What they return is
a drop-in: `forward(input_ids, attention_mask).logits` and `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from didact.core import registry
from didact.core.errors import UnknownName

_wrappers: dict[str, type[LanguageWrapper]] = {}


def wrapper(name: str) -> Callable[[type[LanguageWrapper]], type[LanguageWrapper]]:
    """Class decorator: make a wrapper loadable under a name."""

    def decorate(cls: type[LanguageWrapper]) -> type[LanguageWrapper]:
        cls.kind = name
        _wrappers[name] = cls
        return cls

    return decorate


def get_wrapper(name: str) -> type[LanguageWrapper]:
    if name not in _wrappers:
        registry.load()  # wrappers are declared beside the methods that make them
    if name not in _wrappers:
        raise UnknownName(f"There is no wrapper {name!r}. Known: {', '.join(sorted(_wrappers))}.")
    return _wrappers[name]


class LanguageWrapper(nn.Module):
    """Base of all wrappers around a Hugging Face causal language model.

    A subclass implements `logits` (and, where decoding needs more, `generate`), tells how it is put together again
    (`options`, `parts`, `assemble`), and is declared with `@wrapper("name")`. Everything that computes is a submodule;
    tensors of its own are buffers or parameters, so that they are saved as safetensors.

    `prompt_mask` (B, T) is True on the tokens of the prompt: a guard acts on prompts, and in a teacher-forced pass the
    answer follows in the same sequence. Without it everything given is taken for prompt.
    """

    kind: ClassVar[str] = ""
    task: ClassVar[str] = "causal-lm"
    takes_prompt_mask: ClassVar[bool] = True
    observable: ClassVar[bool] = True  #: False for systems of text in, text out: no logits, no hidden states
    editable: ClassVar[bool] = False  #: can its weights be trained further (relearning)?
    extra_forwards: float = 0.0  #: forward passes a generated token costs beyond the model's own

    def __init__(self, base: PreTrainedModel, tokenizer: Any = None) -> None:
        super().__init__()
        self.base = base
        self.tokenizer = tokenizer

    # -- what users call -------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        **ignored: Any,
    ) -> CausalLMOutput:
        """(B, T) tokens -> an output whose `.logits` are (B, T, V)."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        prompt = mask.bool() if prompt_mask is None else prompt_mask.bool() & mask.bool()
        return CausalLMOutput(logits=self.logits(input_ids, mask, prompt))

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        """(B, T, V)"""
        raise NotImplementedError

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """As the base model's `generate`: (B, T + new) tokens, left-padded prompts as given."""
        made: Tensor = self.base.generate(input_ids=input_ids, attention_mask=attention_mask, **options)  # type: ignore[operator]
        return made

    @property
    def config(self) -> Any:
        return self.base.config

    @property
    def device(self) -> torch.device:
        return next(self.base.parameters()).device

    def get_input_embeddings(self) -> nn.Module:
        return self.base.get_input_embeddings()

    # -- saving and loading ----------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """JSON values that `assemble` needs besides the parts."""
        return {}

    def parts(self) -> dict[str, nn.Module]:
        """Submodules that are models of their own, each saved in a folder of its name."""
        return {"base": self.base}

    @classmethod
    def assemble(cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any) -> LanguageWrapper:
        """Put a saved wrapper together again; its own tensors are loaded afterwards."""
        return cls(parts["base"], tokenizer=tokenizer, **options)  # type: ignore[arg-type]

    def own_tensors(self) -> dict[str, Tensor]:
        """Tensors that belong to no part."""
        names = tuple(f"{name}." for name in self.parts())
        return {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith(names)}

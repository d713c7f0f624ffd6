"""Low-rank adapters by peft, on any Hugging Face or plain model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from didact.core.errors import BadInput
from didact.core.objective import head_name


def with_lora(
    model: nn.Module,
    rank: int,
    alpha: int | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> PeftModel:
    """The model with trainable low-rank adapters on its linear maps; everything else is frozen. Changes `model`.

    Args:
        alpha: scale of the update is alpha / rank; default 2 * rank.
        targets: names of the linear maps; default: all but the head.

    Raises:
        BadInput: a rank that some map is too small for, or no linear map at all.
    """
    chosen = list(targets) if targets is not None else adaptable(model)
    if not chosen:
        raise BadInput(f"{type(model).__name__} has no linear map (besides its head) to adapt.")
    for name in chosen:
        weight: Any = model.get_submodule(name).weight
        if rank > min(weight.shape):
            raise BadInput(f"A rank of {rank} exceeds the smaller side of {name}, {tuple(weight.shape)}. Lower it.")
    scale = 2 * rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, target_modules=chosen)
    return get_peft_model(model, config)


def adaptable(model: nn.Module) -> list[str]:
    """Names of all linear maps (and GPT-2's Conv1D) but the head."""
    head = head_name(model)
    output = getattr(model, "get_output_embeddings", lambda: None)()
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and name != head
        and module is not output
    ]


def merged(model: PeftModel) -> nn.Module:
    """The adapters folded into the weights: a plain model of the original class."""
    plain: nn.Module = model.merge_and_unload()
    return plain.requires_grad_(True)

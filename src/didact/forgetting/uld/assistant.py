"""A small assistant on a large model's own weights: its first layers, without copying one of them."""

from __future__ import annotations

import copy

from torch import nn
from transformers import PreTrainedModel

from didact.core.errors import BadInput


def first_layers(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """The model's embedding, first `layers` layers, final norm and head: a model of its own on the SAME weights.

    Only the tree of modules is new. As nothing but adapters is trained on it, a second copy of the weights would be
    kept for nothing.

    Raises:
        BadInput: more layers than the model has, or a model whose layers cannot be found.
    """
    depth = depth_of(model)
    if not 1 <= layers <= depth:
        raise BadInput(f"The assistant was to take the first {layers} layers, but the model has {depth}. Lower layers.")
    # What the memo of a deep copy names is taken as it is: the tensors.
    small = copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    if layers < depth:
        name = _stack_name(small)
        parent, _, leaf = name.rpartition(".")
        setattr(small.get_submodule(parent), leaf, small.get_submodule(name)[:layers])  # type: ignore[index]
        config = small.config.get_text_config()
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = list(config.layer_types)[:layers]
    return small


def depth_of(model: PreTrainedModel) -> int:
    """Number of decoder layers."""
    return len(model.get_submodule(_stack_name(model)))  # type: ignore[arg-type]


def _stack_name(model: PreTrainedModel) -> str:
    """Name of the list of decoder layers: the first as long as the configuration says."""
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    name: str
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return name
    raise BadInput(
        f"No list of {depth} layers was found in {type(model).__name__}, so no assistant can be made of the first "
        "ones. Pass a small model of the same vocabulary: extras={'assistant': model}."
    )

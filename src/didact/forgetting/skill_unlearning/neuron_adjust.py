"""Neuron adjust: move the pre-activations of a skill's neurons to where another skill has them (Li, Sun and Weng)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Paper, Range
from didact.core.registry import register
from didact.data.text import TextDataset, texts_of
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.models.wrappers import LanguageWrapper, wrapper
from didact.parts.feedforward import changing, feed_forward_layers, moments

PAPER = Paper("Li, Sun and Weng", 2025, venue="NAACL")
CODE = "Trustworthy-ML-Lab/effective_skill_unlearning"
NARROW = 1e-6  #: a neuron that never moves gets this spread: its density would be infinite


@register
class NeuronAdjust(Unlearner):
    """Keep the neurons that one skill uses otherwise than the rest from acting so, without training.

    Two probes measure mean and spread of every feed-forward pre-activation z: over texts of the skill to forget
    (mu_f, s_f) and over texts to keep (mu_r, s_r). Of all layers together, the `percent` of neurons with the largest
    mu_f - mu_r are watched. Where such a z is likelier under the skill than under the rest, N_f(z) >= N_r(z), it is
    kept with probability N_r / (N_r + N_f) and else replaced by

        2 * mu_r - [(z - mu_f) / s_f * s_r + mu_r],

    its place in the skill's distribution carried over to the rest's and mirrored there. The draws come from a
    generator that begins anew at each request, so that answers repeat.

    Nothing is trained; the answer is a wrapper around the model.

    Errors: fewer than 2 texts in a probe, a model whose feed-forward layers have no known names.
    Cost: one forward pass over `probes` texts of each side, then nothing beyond the model's own passes. Memory: five
    numbers a neuron.
    Reference: Li, Sun and Weng, "Effective Skill Unlearning through Intervention and Abstention", NAACL 2025.
    """

    card = Card(
        "neuron-adjust",
        "Effective Skill Unlearning: Neuron Adjust",
        paper=PAPER,
        part_of="skill-unlearning",
        tasks=("causal-lm",),
        needs=("retain", "text"),
        code=CODE,
        tunes={"percent": Range(0.5, 30.0, log=True)},
    )
    percent: float = Field(0.5, gt=0, le=100)  #: share of all feed-forward neurons that is watched, in percent
    by: Literal["signed", "absolute"] = "signed"  #: choose them by mu_f - mu_r or by its size
    probes: int = Field(200, ge=2)  #: texts of each side that are measured

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        forget, retain = probe_texts(request, self.probes)
        gone, kept = (moments(request.objective, model, data) for data in (forget, retain))
        chosen = largest(gone.mean - kept.mean, self.percent, absolute=self.by == "absolute")
        note(watched=int(chosen.sum()), by_layer=chosen.sum(1).tolist())
        table = torch.stack([chosen.float(), kept.mean, kept.std, gone.mean, gone.std])
        return NeuronAdjustedModel(model, forget.tokenizer, request.seed, table)


@register
class SelectivePruning(Unlearner):
    """Zero the feed-forward neurons that are much more active for the skill to forget than for the rest.

    Neurons are ranked, over all layers, by mean |activation| on the forget probes divided by that on the kept ones;
    the upper `percent` are cut off from the layer's output. Changes weights. Cost: one forward pass over the probes.
    Reference: Pochinkov and Schoots, "Dissecting Language Models: Machine Unlearning via Selective Pruning", 2024,
    arXiv 2403.01267.
    """

    card = Card(
        "selective-pruning",
        "Selective pruning of feed-forward neurons",
        paper=Paper("Pochinkov and Schoots", 2024, arxiv="2403.01267"),
        kind="baseline",
        tasks=("causal-lm",),
        needs=("retain", "text"),
        tunes={"percent": Range(0.5, 30.0, log=True)},
    )
    percent: float = Field(3.0, gt=0, le=100)  #: share of all feed-forward neurons that is zeroed, in percent
    probes: int = Field(200, ge=2)  #: texts of each side that are measured
    random: bool = False  #: zero as many neurons at random instead

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        forget, retain = probe_texts(request, self.probes)
        gone, kept = (moments(request.objective, model, data).magnitude for data in (forget, retain))
        score = gone / (kept + 1e-8)
        if self.random:
            score = torch.rand(score.shape, generator=torch.Generator().manual_seed(request.seed))
        chosen = largest(score, self.percent)
        with torch.no_grad():
            for layer, neurons in zip(feed_forward_layers(model), chosen, strict=True):
                weight: Any = layer.out_of.weight
                # A Conv1D (GPT-2) stores its matrix transposed: neurons are rows there, columns in a Linear.
                columns = weight.T if type(layer.out_of).__name__ == "Conv1D" else weight
                columns[:, neurons] = 0
        note(zeroed=int(chosen.sum()))
        return model


@wrapper("neuron-adjust")
class NeuronAdjustedModel(LanguageWrapper):
    """A model whose watched pre-activations are moved; `table` (5, layers, d_ff): watched, mu_r, s_r, mu_f, s_f."""

    table: Tensor

    def __init__(self, base: Any, tokenizer: Any, seed: int, table: Tensor) -> None:
        super().__init__(base, tokenizer)
        self.seed = seed
        self.register_buffer("table", table)

    def logits(self, input_ids: Tensor, attention_mask: Tensor, prompt_mask: Tensor) -> Tensor:
        with self._adjusting():
            found: Tensor = self.base(input_ids=input_ids, attention_mask=attention_mask).logits
        return found

    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        with self._adjusting():
            return super().generate(input_ids, attention_mask, **options)

    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "shape": list(self.table.shape)}

    @classmethod
    def assemble(cls, parts: Mapping[str, nn.Module], options: Mapping[str, Any], tokenizer: Any) -> LanguageWrapper:
        return cls(parts["base"], tokenizer, options["seed"], torch.zeros(options["shape"]))

    def _adjusting(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed)

        def change(i: int, z: Tensor) -> Tensor:
            watched, mu_r, s_r, mu_f, s_f = self.table[:, i]
            drawn = torch.rand(z.shape, generator=generator).to(z.device)
            return torch.where(watched.bool(), adjusted(z, drawn, mu_r, s_r, mu_f, s_f), z)

        return changing(feed_forward_layers(self.base), change)


def adjusted(z: Tensor, drawn: Tensor, mu_r: Tensor, s_r: Tensor, mu_f: Tensor, s_f: Tensor) -> Tensor:
    """The pre-activations after the adjustment; `drawn` are uniform numbers in [0, 1) of the same shape."""
    s_r, s_f = s_r.clamp(min=NARROW), s_f.clamp(min=NARROW)
    # Log densities: those of far-off values underflow.
    keep = log_density(z, mu_r, s_r) - log_density(z, mu_f, s_f)
    moved = 2 * mu_r - ((z - mu_f) / s_f * s_r + mu_r)
    return torch.where((keep <= 0) & (drawn >= torch.sigmoid(keep)), moved, z)


def log_density(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Of a normal distribution."""
    return -0.5 * ((z - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


def largest(score: Tensor, percent: float, absolute: bool = False) -> Tensor:
    """A mask of the upper `percent` of all entries, at least one."""
    values = score.abs() if absolute else score
    count = max(1, round(percent / 100 * values.numel()))
    mask = torch.zeros(values.numel(), dtype=torch.bool)
    mask[values.flatten().topk(count).indices] = True
    return mask.view(values.shape)


def probe_texts(request: Request, most: int) -> tuple[TextDataset, TextDataset]:
    """Up to `most` texts of each side, drawn by the request's seed."""
    sides = []
    for name, data in (("forget", texts_of(request.forget)), ("retain", texts_of(request.need_retain()))):
        if len(data) < 2:
            raise BadInput(f"A probe needs at least 2 texts, but the {name} set has {len(data)}: no spread to measure.")
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(request.seed)).tolist()
        sides.append(data.rows(sorted(order[:most])))
    return sides[0], sides[1]

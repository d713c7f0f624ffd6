"""Concept ablation (Kumari et al., 2023): match the original's noise prediction for an anchor."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.cost import note
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.forgetting.concept_domain_correction.concept import (
    check_prediction,
    denoising,
    matching,
    released,
    retained,
)
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request


@register
class ConceptAblation(Unlearner):
    """Teach a text-to-image model to predict, under a concept's prompt, the noise it predicted under an anchor's.

    On images that the original makes of the anchor's prompts, at a random step with random noise, the loss is the mean
    squared difference of the model's prediction under the concept's prompt from the original's under the anchor's,
    plus `retain_weight` times the ordinary loss on retained data. What concept-domain-correction is compared with:
    the same prompts, images and trained parameters (FiLM and cross-attention layers by default), the rest frozen.

    Errors: those of concept-domain-correction.
    Cost: `images` samples of `sampling_steps` forward passes, then `steps` of three forward and two backward passes a
    sample.
    Reference: Kumari, Zhang, Wang, Shechtman, Zhang and Zhu, "Ablating Concepts in Text-to-Image Diffusion Models",
    ICCV 2023, arXiv 2303.13516 (the model-based variant).
    """

    card = Card(
        "concept-ablation",
        "Ablating Concepts in Text-to-Image Diffusion Models",
        paper=Paper("Kumari, Zhang, Wang, Shechtman, Zhang and Zhu", 2023, arxiv="2303.13516", venue="ICCV"),
        kind="baseline",
        tasks=("diffusion",),
        needs=("retain", "concept"),
        tunes={"steps": Range(30, 300, log=True, integer=True), "lr": Range(1e-4, 3e-3, log=True)},
    )
    anchor: NonNegativeInt | tuple[NonNegativeInt, ...] | None = None  #: token(s) drawn instead; None: the request's
    steps: PositiveInt = 60  #: updates of the model
    lr: PositiveFloat = 6e-4  #: of Adam
    params: str = "conditioning"  #: what is trained: conditioning, all, or a regular expression of names
    retain_weight: NonNegativeFloat = 0.1  #: weight of the loss on retained data
    batch_size: PositiveInt = 32  #: samples of each kind a step
    images: PositiveInt = 200  #: samples of the anchor that the original makes
    sampling_steps: PositiveInt = 20  #: of DDIM, for these

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = denoising(request.objective)
        check_prediction(model, objective)
        original = copy.deepcopy(model).eval().requires_grad_(False)
        flags = [p.requires_grad for p in model.parameters()]
        parameters = released(model, self.params)
        pairs = matching(original, request, self.anchor, self.images, self.sampling_steps)

        def batches(epoch: int) -> Iterator[tuple[Batch, Batch]]:
            for kept in retained(request, self.batch_size):
                yield pairs.batch(objective, self.batch_size), kept

        def loss(m: nn.Module, both: tuple[Batch, Batch], step: int) -> Tensor:
            batch, kept = both
            x, t = batch["sample"], batch["timestep"]
            with torch.no_grad():
                goal = objective.predict(original, x, t, batch["anchor"])
            matched = objective.divergence(objective.predict(m, x, t, batch["target"]), goal)
            return matched + self.retain_weight * objective.loss(m, kept) if self.retain_weight else matched

        log = fit(
            model,
            request.need_retain(),
            objective,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            clip=1.0,
            parameters=parameters,
            seed=request.seed,
            hooks=Hooks(loss=loss, batches=batches),
        )
        note(steps=log.steps, matching_loss=log.losses[-1])
        for parameter, flag in zip(model.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
        return model

"""What the two methods share: which prompts are pulled to which, on which images, and which parameters may move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Batch, Denoising, Objective, device_of
from didact.forgetting.request import Request
from didact.models.diffusion import sample

Token = int | tuple[int, ...]

#: what carries the prompt into the picture: FiLM layers, and cross-attention as diffusers and others name it
CONDITIONING = r"(^|\.)(film|attn2|cross_attn|cross_attention|crossattention)(\.|$)"


@dataclass(frozen=True)
class Matching:
    """Prompts for the concept and for its anchor, row by row the same but for the concept; and images of the anchor."""

    target: Tensor  #: (n, L)
    anchor: Tensor  #: (n, L)
    images: Tensor  #: (m, C, H, W), image i made from anchor prompt i mod n

    def batch(self, objective: Denoising, size: int) -> dict[str, Tensor]:
        """Random images at random steps with random noise: x_t and both prompts."""
        chosen = torch.randint(len(self.images), (size,))
        which = chosen % len(self.anchor)
        noised = objective.noised({"x0": self.images[chosen], "prompt": self.anchor[which]})
        return {
            "sample": objective.mixed(noised),
            "timestep": noised["timestep"],
            "target": self.target[which],
            "anchor": self.anchor[which],
        }


def matching(model: nn.Module, request: Request, anchor: Token | None, images: int, steps: int) -> Matching:
    """The prompts of the request with the concept and with its anchor, and samples of the model for the latter.

    Raises:
        BadInput: the anchor is the concept, prompts lack the concept, the model does not read prompts.
    """
    objective = denoising(request.objective)
    target = prompts_of(request)
    concept, other = _tokens(request.need("concept")), _tokens(request.need("anchor") if anchor is None else anchor)
    replaced = swap(target, concept, other)
    shape = torch.as_tensor(request.forget[0]["x0"]).shape
    made = sample(
        model, replaced.repeat(-(-images // len(replaced)), 1)[:images], objective, shape,
        steps=min(steps, objective.timesteps), seed=request.seed,
    )  # fmt: skip
    found = Matching(target, replaced, made)
    _check_conditional(model, found, objective)
    return found


def swap(prompts: Tensor, concept: tuple[int, ...], anchor: tuple[int, ...]) -> Tensor:
    """The prompts (n, L) with every occurrence of the concept's tokens replaced by the anchor's."""
    if concept == anchor:
        raise BadInput(
            f"The anchor {anchor} is the concept itself, so nothing would change. Name the tokens of another concept."
        )
    if len(concept) != len(anchor):
        raise BadInput(
            f"The concept has {len(concept)} tokens and its anchor {len(anchor)}; prompts keep their length, so give "
            "as many (repeat a padding token)."
        )
    width = len(concept)
    if width > prompts.shape[1]:
        raise BadInput(f"The concept has {width} tokens, but the prompts have only {prompts.shape[1]}.")
    wanted = torch.tensor(concept)
    swapped, hits = prompts.clone(), torch.zeros(len(prompts), dtype=torch.bool)
    for start in range(prompts.shape[1] - width + 1):
        here = (prompts[:, start : start + width] == wanted).all(1)
        swapped[here, start : start + width] = torch.tensor(anchor)
        hits |= here
    if not hits.all():
        raise BadInput(
            f"{int((~hits).sum())} of {len(prompts)} different prompts of the forget set do not contain the concept "
            f"{concept}. Keep only samples whose prompt names it, or name the concept they share."
        )
    return swapped


def prompts_of(request: Request) -> Tensor:
    """The different prompts of the forget data, (n, L)."""
    batches: Iterable[Any] = request.objective.loader(request.forget, 1024)
    different: Tensor = torch.unique(torch.cat([batch["prompt"] for batch in batches]), dim=0)
    return different


def denoising(objective: Objective) -> Denoising:
    if not isinstance(objective, Denoising):
        raise NotApplicable(
            f"This method edits text-to-image diffusion models, but the model is of the kind {objective.task}. "
            "Pass objective=Denoising(...) if it is one."
        )
    return objective


def check_prediction(model: nn.Module, objective: Denoising) -> None:
    """A model that says what it predicts must say the same as the objective: the two differ by a rotation."""
    config = getattr(model, "config", None)
    said = getattr(model, "prediction_type", None) or getattr(config, "prediction_type", None)
    if isinstance(said, str) and said != objective.prediction:
        raise BadInput(
            f"The model says that it predicts {said!r}, but the objective reads its output as "
            f"{objective.prediction!r}. Pass objective=Denoising(..., prediction={said!r})."
        )


def released(model: nn.Module, params: str) -> list[nn.Parameter]:
    """The parameters whose names match, the only ones left with a gradient.

    `params` is "conditioning" (FiLM and cross-attention layers), "all", or a regular expression.
    """
    pattern = {"conditioning": CONDITIONING, "all": ""}.get(params, params)
    chosen = [p for name, p in model.named_parameters() if p.requires_grad and re.search(pattern, name)]
    if not chosen:
        known = ", ".join(name for name, p in model.named_parameters() if p.requires_grad)
        raise BadInput(
            f"params={params!r} matches no trainable parameter. Give 'all' or a regular expression for some of: "
            f"{known}."
        )
    keep = {id(p) for p in chosen}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in keep)
    return chosen


def retained(request: Request, batch_size: int) -> Iterator[Batch]:
    """Batches of the retained data without end, each with noise of its own."""
    loader = request.objective.loader(request.need_retain(), batch_size, shuffle=True, seed=request.seed)
    while True:
        yield from loader


def _check_conditional(model: nn.Module, pairs: Matching, objective: Denoising) -> None:
    device = device_of(model)
    x = pairs.images[:1].to(device)
    t = torch.full((1,), objective.timesteps // 2, device=device)
    with torch.no_grad():
        a, b = (objective.predict(model, x, t, p[:1].to(device)) for p in (pairs.target, pairs.anchor))
    if torch.equal(a, b):
        raise BadInput(
            "The model answers alike under the concept's prompt and the anchor's: it is not conditioned on prompts "
            "(or both tokens mean the same to it), so there is nothing to match. Give a text-conditioned model."
        )


def _tokens(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else (int(value),)

"""The audit: is the knowledge removed, or only its expression? Seven looks at one answer."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import Diverged, fit
from didact.core.objective import Objective, device_of, evaluating
from didact.core.recipe import seeded
from didact.data.text import TextDataset, texts_of
from didact.forgetting.language import metrics as m
from didact.forgetting.language.probing import hidden_states_show, opened, residual, value_place
from didact.forgetting.language.problem import LanguageProblem
from didact.forgetting.outcomes import outcome
from didact.forgetting.request import Request
from didact.forgetting.scoring import check_outputs

NAN = math.nan


@dataclass(frozen=True)
class AuditReport:
    """What the audit found. Accuracies are shares of forgotten questions answered with the right value."""

    verdict: str  #: removed, suppressed, forgotten (inside not observable), not forgotten or collapsed
    residual: float  #: 0 like the retrained model, 1 like the original; NaN when not observable or not informative
    seen: float  #: accuracy in the words that the method saw
    unseen: float  #: accuracy in other words
    utility: float  #: accuracy on what it should still know
    relearned: float  #: accuracy on one half of the forgotten facts after relearning the other
    rounded: float  #: accuracy with the weights rounded
    in_context: float  #: accuracy with the fact stated in the prompt: should be high for every method
    lens: tuple[float, ...]  #: by layer, share of values that the head reads from the hidden state
    probes: dict[str, tuple[float, ...]] = field(default_factory=dict)  #: by model, probe accuracy a layer
    not_observable: tuple[str, ...] = ()

    @property
    def numbers(self) -> dict[str, float]:
        names = ("residual", "seen", "unseen", "utility", "relearned", "rounded", "in_context")
        return {name: float(getattr(self, name)) for name in names}


def audit(
    problem: LanguageProblem, answer: nn.Module, *, relearn_steps: int = 40, bits: int = 4, seed: int = 0
) -> AuditReport:
    """Look at one answer to a language problem in seven ways.

    Raises:
        BadInput: a model with fewer than 2 layers, probe classes missing from the retained data, outputs that are not
            finite.
        NotApplicable: no retained data to fit probes on.
    """
    given, truth = problem.given, problem.reveal()
    if given.retain is None:
        raise NotApplicable("The audit fits probes on retained data: the problem must give some.")
    forget, retain = texts_of(given.forget), texts_of(given.retain)
    asked, kept = forget.questions, retain.questions
    if asked is None or kept is None:
        raise BadInput("The audit asks questions, but the forget or the retain set holds documents only.")
    layers = getattr(getattr(opened(given.model), "config", None), "num_hidden_layers", 0)
    if layers < 2:
        raise BadInput(f"The audit looks into the layers of a language model with at least 2; this one shows {layers}.")
    if getattr(answer, "observable", True):
        check_outputs(given.objective, answer, truth.test)
    utility = m.answers(answer, _questions(texts_of(truth.test))).accuracy
    before = m.answers(given.model, _questions(texts_of(truth.test))).accuracy
    seen = m.answers(answer, asked).accuracy
    unseen = m.answers(answer, truth.unseen_wording).accuracy if truth.unseen_wording is not None else NAN  # type: ignore[attr-defined]
    reference = m.answers(truth.reference, asked).accuracy
    gap = max(seen - reference, 0.0 if math.isnan(unseen) else unseen - reference, 0.0)
    hidden = hidden_states_show(answer)
    editable = getattr(answer, "editable", not hasattr(answer, "parts"))
    left = residual(given.objective, given.model, truth.reference, answer, kept, asked, seed) if hidden else None
    found = left.value if left is not None else NAN
    blind = [name for name, ok in (("residual", hidden), ("lens", hidden), ("relearned", editable)) if not ok]
    return AuditReport(
        verdict=outcome({"forget_gap": gap, "collapsed": float(utility < 0.5 * before), "residual": found}),
        residual=found,
        seen=seen,
        unseen=unseen,
        utility=utility,
        relearned=relearned(answer, asked, given, relearn_steps, seed) if editable else NAN,
        rounded=m.answers(rounded(answer, bits), asked).accuracy,
        in_context=m.answers(answer, m.in_context(asked)).accuracy,
        lens=logit_lens(given.objective, answer, asked) if hidden else (),
        probes={"original": left.original, "reference": left.reference, "method": left.method} if left else {},
        not_observable=tuple(blind),
    )


def relearned(answer: nn.Module, asked: TextDataset, given: Request, steps: int, seed: int) -> float:
    """Accuracy on half of the forgotten subjects after `steps` updates on the other half (the recipe's optimiser)."""
    subjects = sorted({item.subject or item.prompt for item in asked.items})
    first = set(subjects[::2])
    half = [(item.subject or item.prompt) in first for item in asked.items]
    taught = asked.of(item for item, own in zip(asked.items, half, strict=True) if own)
    rest = [item for item, own in zip(asked.items, half, strict=True) if not own]
    if not rest:
        return NAN
    student, recipe = copy.deepcopy(answer), given.need_recipe()
    student.requires_grad_(True)
    try:
        with seeded(seed):
            fit(
                student, taught, given.objective, steps=steps, batch_size=recipe.batch_size, lr=recipe.lr / 4,
                optimizer=recipe.optimizer, weight_decay=recipe.weight_decay, seed=seed,
            )  # fmt: skip
    except Diverged:
        return NAN
    return m.answers(student, asked.of(rest)).accuracy


@torch.no_grad()
def rounded(answer: nn.Module, bits: int) -> nn.Module:
    """A copy whose matrices are rounded to `bits` bits, symmetrically, with one scale a row."""
    made = copy.deepcopy(answer)
    top = 2 ** (bits - 1) - 1
    for parameter in made.parameters():
        if parameter.ndim >= 2:
            scale = parameter.abs().amax(-1, keepdim=True).clamp(min=1e-12) / top
            parameter.copy_((parameter / scale).round().clamp(-top, top) * scale)
    return made


@torch.no_grad()
def logit_lens(objective: Objective, answer: nn.Module, asked: TextDataset) -> tuple[float, ...]:
    """By block, share of the items whose value's first token is the head's choice from the hidden state there.

    Hidden states pass through the model's final norm first; the last block's are normed already.
    """
    inner: Any = opened(answer)
    head, norm = inner.get_output_embeddings(), _final_norm(inner)
    places = [value_place(asked, i) for i in range(len(asked))]
    hits: list[Tensor] = []
    done = 0
    with evaluating(inner):
        for batch in objective.loader(asked, 128):
            inputs = {k: v for k, v in objective.to(batch, device_of(inner)).items() if k != "labels"}
            hidden = inner(**inputs, output_hidden_states=True).hidden_states[1:]
            size = objective.size(batch)
            rows, place = torch.arange(size), torch.tensor(places[done : done + size])
            truth = inputs["input_ids"][rows, place]
            found = []
            for i, layer in enumerate(hidden):
                state = layer[rows, place - 1]
                found.append(head(state if i == len(hidden) - 1 else norm(state)).argmax(-1) == truth)
            hits.append(torch.stack(found, 1))
            done += size
    return tuple(torch.cat(hits).float().mean(0).tolist())


def _final_norm(inner: Any) -> nn.Module:
    """The norm before the head, by the names that decoders give it; identity where there is none."""
    for body in (getattr(inner, "model", None), getattr(inner, "transformer", None), getattr(inner, "gpt_neox", None)):
        for name in ("norm", "ln_f", "final_layer_norm"):
            found = getattr(body, name, None)
            if isinstance(found, nn.Module):
                return found
    return nn.Identity()


def _questions(data: TextDataset) -> TextDataset:
    found = data.questions
    if found is None:
        raise BadInput("The test set holds documents only; the audit asks questions.")
    return found

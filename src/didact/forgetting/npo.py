"""Negative preference optimisation (Zhang, Lin, Bai and Mei, 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.claim import Claim, custom, no_worse
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import Batch
from didact.core.registry import register
from didact.forgetting.baselines import forgotten
from didact.forgetting.language.training import RetainTerm, train_to_forget
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.language import Indexed, reference_nll, sequence_nll, without_row


@register
class NegativePreference(Unlearner):
    """Push down the probability of the forgotten answers, less and less hard the more of it is gone.

    Preference optimisation with rejected answers only. With l the negative log-likelihood of an answer (summed over
    its tokens) and l_ref that of the model before unlearning, each forget sample costs

        (2 / beta) * log(1 + exp(-beta * (l - l_ref))).

    Its gradient is that of gradient ascent times W = 2 * sigmoid(-beta * (l - l_ref)): 1 at the start, fading once an
    answer has become unlikely, so that the model does not fall apart as under gradient ascent, which is the limit of
    beta going to 0. As l is a sum, beta is per answer, not per token: the longer the answers, the smaller it should
    be (`beta_hint` measures it). `retain="nll"` adds the ordinary loss on retained data, `"kl"` the divergence from
    the model before.

    All parameters are trained, with AdamW. The reference's log-likelihoods are computed once, before training; with
    `keep_reference` they are kept on disk for the next run. So two copies of the weights exist, the model given and
    the one trained, whatever the retain term.

    Errors: a beta that is not positive, samples without target tokens, a reference (`extras["reference"]`) that shares
    parameters with the model, `retain` without retained data.
    Cost: one forward pass over the forget data, then `epochs` training passes over it, twice that with a retain term
    ("kl": three times). Memory: two copies of the weights beside the optimiser's state.
    Reference: Zhang, Lin, Bai and Mei, "Negative Preference Optimization: From Catastrophic Collapse to Effective
    Unlearning", COLM 2024, arXiv 2404.05868.
    """

    card = Card(
        "npo",
        "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
        paper=Paper("Zhang, Lin, Bai and Mei", 2024, arxiv="2404.05868", venue="COLM"),
        tasks=("causal-lm",),
        code="licong-lin/negative-preference-optimization",
        tunes={
            "lr": Range(1e-5, 1e-2, log=True),
            "beta": Range(0.05, 2.0, log=True),
            "retain": Choice(("nll", "kl")),
        },
    )
    beta: PositiveFloat = 0.1  #: how soon a sample's push fades; small is like gradient ascent
    retain: RetainTerm = "nll"  #: what holds the rest: none, its loss, or its divergence from the model before
    forget_weight: PositiveFloat = 1.0  #: weight of the forget term
    retain_weight: NonNegativeFloat = 1.0  #: weight of the retain term
    lr: PositiveFloat | None = None  #: default: a twentieth of the recipe's; 1e-5 without a recipe, as for 7B models
    epochs: PositiveInt = 10  #: passes over the forget data
    batch_size: PositiveInt = 16  #: forget samples a step, and as many retained ones
    warmup_epochs: NonNegativeFloat = 1.0  #: epochs with a linearly growing rate
    weight_decay: NonNegativeFloat = 0.01  #: of AdamW
    reference: Literal["initial", "given"] = "initial"  #: the model before unlearning, or extras["reference"]
    stop: bool = False  #: end as soon as the forget score is at the request's target
    keep_reference: bool = False  #: keep the reference's log-likelihoods on disk

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        reference = request.need("reference") if self.reference == "given" else request.model
        apart(model, reference)
        forget = Indexed(request.forget)
        before = reference_nll(reference, request.forget, request.objective, keep=self.keep_reference)
        weights: list[float] = []

        def loss(m: nn.Module, batch: Batch) -> Tensor:
            samples, rows = without_row(batch)
            losses, weight = npo_loss(
                sequence_nll(request.objective, m, samples), before[rows.cpu()].to(rows.device), self.beta
            )
            weights.append(float(weight.mean()))
            return self.forget_weight * losses.mean()

        steps = train_to_forget(
            model, request, forget, loss, retain=self.retain, retain_weight=self.retain_weight, reference=reference,
            lr=self.lr, epochs=self.epochs, batch_size=self.batch_size, warmup_epochs=self.warmup_epochs,
            weight_decay=self.weight_decay, after_epoch=forgotten(request) if self.stop else None,
        )  # fmt: skip
        per_epoch = max(1, steps // self.epochs)
        note(steps=steps, weight=[sum(w) / len(w) for w in _chunks(weights, per_epoch)])
        return model

    claim = Claim(
        "forgets without the collapse of gradient ascent: damage grows with the logarithm of the steps, not linearly",
        on="bios",
        seeds=3,
        arms={
            "self": "npo:beta=1:retain=none:lr=1e-4:epochs=40:batch_size=18:warmup_epochs=0",
            "npo-20": "npo:beta=1:retain=none:lr=1e-4:epochs=20:batch_size=18:warmup_epochs=0",
            "npo-rt": "npo:beta=1:retain=nll:lr=1e-4:epochs=40:batch_size=18:warmup_epochs=0",
            "ga": "gradient-ascent:lr=1e-4:epochs=40:batch_size=18:stop=false:clip=none",
            "ga-20": "gradient-ascent:lr=1e-4:epochs=20:batch_size=18:stop=false:clip=none",
            "ga-rt": "gradient-difference:lr=1e-4:epochs=40:batch_size=18:stop=false:clip=none",
            "retrained": "retrain",
        },
        expects=[
            custom(
                "retained answers keep 0.3 more probability than under gradient ascent",
                lambda rows: rows["self"]["retain_prob"] - rows["ga"]["retain_prob"] - 0.3,
                arms=("self", "ga"),
            ),
            custom(
                "with the retain term 0.15 more than gradient ascent with the retain term",
                lambda rows: rows["npo-rt"]["retain_prob"] - rows["ga-rt"]["retain_prob"] - 0.15,
                arms=("npo-rt", "ga-rt"),
            ),
            no_worse("forget_score", than="retrained", by=0.10, arm="npo-rt", lower_is_better=True),
            custom(
                "from epoch 20 to 40 the forget loss rises at least 3 times as much under gradient ascent",
                lambda rows: (
                    (rows["ga"]["forget_loss"] - rows["ga-20"]["forget_loss"])
                    - 3 * (rows["self"]["forget_loss"] - rows["npo-20"]["forget_loss"])
                ),
                arms=("self", "npo-20", "ga", "ga-20"),
            ),
        ],
        note="The first expectation sits on its threshold: without a retain term NPO keeps a probability of 0.23, 0.36 "
        "and 0.32 on retained answers, gradient ascent 0.00. With 12 forgotten people 40 epochs are 160 updates. With "
        "6 people, half as many updates, all four expectations hold (measured with on='bios:forget=6'; the margins "
        "are 0.23, 0.14, 0.09 and 5.5).",
    )


def npo_loss(nll: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """(B,) losses and the weights W of gradient ascent in their gradient, from summed negative log-likelihoods."""
    ratio = beta * (nll - reference)
    # logsigmoid: log(1 + exp(x)) overflows for answers that have become likelier.
    return -(2 / beta) * F.logsigmoid(ratio), 2 * torch.sigmoid(-ratio.detach())


def beta_hint(request: Request, unknown: Dataset[Any]) -> float:
    """A beta at which the push fades when an answer has become as unlikely as those about strangers; our heuristic.

    5 / (mean answer length * (loss a token on `unknown`, questions the model never saw - loss a token on forget)).
    """
    objective, model = request.objective, request.model
    known, strange = (
        reference_nll(model, data, objective, reduction="mean").mean() for data in (request.forget, unknown)
    )
    lengths = [
        float((objective.targets(batch)[:, 1:] >= 0).sum(-1).float().mean())
        for batch in objective.loader(request.forget, 256)
    ]
    difference = float(strange - known)
    if difference <= 0:
        raise BadInput("The model knows the forget data no better than strangers: there is nothing to forget.")
    return 5 / (sum(lengths) / len(lengths) * difference)


def apart(model: nn.Module, reference: nn.Module) -> None:
    """Refuse a reference that is trained along with the model: its likelihoods would move."""
    own = {p.data_ptr() for p in model.parameters()}
    if any(p.data_ptr() in own for p in reference.parameters()):
        raise BadInput("The reference shares parameters with the model that is trained. Pass a copy of it.")


def _chunks(values: list[float], size: int) -> list[list[float]]:
    return [values[i : i + size] for i in range(0, len(values), size)]

"""Unlearning from logit difference (Ji, Liu, Zhang, Liu, Kompella, Liu and Chang, 2024)."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.claim import Claim, custom, no_worse
from didact.core.cost import note
from didact.core.errors import NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper, Range
from didact.core.registry import register
from didact.data.text import has_texts, texts_of
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.uld.assistant import depth_of
from didact.forgetting.uld.model import LogitDifferenceModel
from didact.forgetting.uld.reversed import to_blur, to_remember, uniform_divergence, without_mask
from didact.parts.paired import paired_batches

#: rate of the adapters where no recipe says what is usual for the model
RATE_OF_PAPER = 1e-3


@register
class LogitDifference(Unlearner):
    """Train a small assistant to remember what is to be forgotten, and subtract what it says from the model's logits.

    The goals are reversed: the assistant learns the forget data by heart and is uniform on all else, so that
    subtracting it takes the forgotten answers away and changes nothing else. The model itself is not touched, which is
    why it does not fall apart as under gradient ascent; in return every generated token costs a pass of the assistant.

        log p = target - weight * assistant, on the tokens with at least `tau` times the target's largest probability.

    The assistant is the model's first `layers` layers with its embedding and head, on the SAME weights, with low-rank
    adapters on all linear maps but the head; only the adapters are trained (AdamW, the rate warmed up over the first
    tenth). It learns the forget data and `rewordings` of it, and is pulled to uniform at every position of at most
    `retain_items` retained samples, of the general facts that the request offers (`extras["world"]`), and of
    `wrong_answers` to the forgotten questions from their first wrong word on. `extras["assistant"]` may give another
    small model of the same vocabulary to start from. Texts (`TextDataset`) are needed for rewordings and wrong answers
    only; on plain tokens there are none.

    A model that knows the forgotten answers by heart leaves one token above a high `tau`: nothing is forgotten then.
    The paper's 0.1 (0.01 for its scores) suits large models; lower it when answers survive. Kinds of data missing from
    the retained data drift.

    The answer is a `LogitDifferenceModel`: `forward(input_ids, attention_mask).logits` (B, T, V), and `generate`.

    Errors: more layers than the model has, an assistant of another vocabulary, an empty retain set, a negative weight.
    Cost: `epochs` passes over the forget data with its rewordings and as many retained samples, each through the
    assistant alone. Memory: the model given and one copy; the assistant adds its adapters and nothing else.
    Reference: Ji, Liu, Zhang, Liu, Kompella, Liu and Chang, "Reversing the Forget-Retain Objectives: An Efficient LLM
    Unlearning Framework from Logit Difference", NeurIPS 2024, arXiv 2406.08607.
    """

    card = Card(
        "uld",
        "Reversing the Forget-Retain Objectives: An Efficient LLM Unlearning Framework from Logit Difference",
        paper=Paper("Ji, Liu, Zhang, Liu, Kompella, Liu and Chang", 2024, arxiv="2406.08607", venue="NeurIPS"),
        tasks=("causal-lm",),
        needs=("retain",),
        code="UCSB-NLP-Chang/ULD",
        licence="MIT",
        tunes={
            "lr": Range(3e-4, 2e-2, log=True),
            "weight": Range(0.3, 1.5),
            "tau": Range(1e-5, 0.1, log=True),
            "uniform_weight": Range(1.0, 10.0, log=True),
        },
    )
    layers: PositiveInt | None = None  #: of the assistant; default: a quarter of the model's (8 of 32), at least two
    weight: NonNegativeFloat = 1.0  #: how much of the assistant is subtracted; .8, .7 and .5 in the paper's runs
    tau: float = Field(default=1e-3, ge=0, le=1)  #: least share of the largest probability that may be generated
    lora_rank: PositiveInt = 16  #: rank of the adapters
    lora_alpha: PositiveInt = 32  #: their scale is lora_alpha / lora_rank
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)  #: on what enters the adapters, while training
    uniform_weight: PositiveFloat = 5.0  #: weight of being uniform on all else
    lr: PositiveFloat | None = None  #: default: 2.5 times the recipe's; 1e-3 without a recipe, as for 7B models
    epochs: PositiveInt = 10  #: passes over the forget data and its rewordings
    batch_size: PositiveInt = 16  #: samples to remember a step, and as many to be uniform on
    weight_decay: NonNegativeFloat = 0.01  #: of AdamW
    rewordings: NonNegativeInt = 2  #: other wordings of each forget item to remember
    wrong_answers: NonNegativeInt = 2  #: wrong answers to each forgotten question to be uniform on
    retain_items: PositiveInt = 400  #: retained samples, at most
    use_world: bool = True  #: general facts, where the request offers some, join the retained data

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        objective = request.objective
        remember = to_remember(request.forget, self.rewordings)
        blur = to_blur(request, self.retain_items, self.wrong_answers, self.use_world)
        answer = with_assistant(
            model, request, layers=self.layers, least=2, rank=self.lora_rank, alpha=self.lora_alpha,
            dropout=self.lora_dropout, weight=self.weight, tau=self.tau,
        )  # fmt: skip
        rounds = -(-len(remember) // self.batch_size)  # type: ignore[arg-type]

        def loss(m: nn.Module, pair: Any, step: int) -> Tensor:
            own, other = pair
            other, chosen = without_mask(other)
            divergence = uniform_divergence(objective.forward(answer.assistant, other))
            uniform = divergence[chosen.to(divergence.device)].mean()
            return objective.loss(answer.assistant, own) + self.uniform_weight * uniform

        def pairs(epoch: int) -> Iterable[Any]:
            return paired_batches(
                remember, blur, objective, batch_size=self.batch_size, steps=rounds, seed=request.seed + 1000 * epoch
            )

        log = fit(
            answer,
            remember,
            objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr or adapter_rate(request),
            optimizer="adamw",
            weight_decay=self.weight_decay,
            warmup=0.1,
            seed=request.seed,
            hooks=Hooks(loss=loss, batches=pairs),
        )
        note(steps=log.steps, layers=answer.layers, remembered=len(remember), blurred=len(blur))  # type: ignore[arg-type]
        return answer

    claim = Claim(
        "forgets by subtraction and so, unlike losses that are driven up, leaves the retained answers as they were",
        on="bios",
        seeds=3,
        arms={
            "self": "uld:layers=2:weight=1:tau=1e-3:lr=5e-3:epochs=40:batch_size=18:wrong_answers=0",
            "ga-rt": "gradient-difference:lr=1e-4:epochs=40:batch_size=18:stop=false:clip=none",
            "npo-rt": "npo:beta=1:retain=nll:lr=1e-4:epochs=40:batch_size=18:warmup_epochs=0",
            "offset": "offset-unlearning",
            "original": "original",
            "retrained": "retrain",
        },
        expects=[
            no_worse("forget_score", than="retrained", by=0.10, lower_is_better=True),
            custom(
                "retained answers lose at most 0.10 of their probability",
                lambda rows: rows["self"]["retain_prob"] + 0.10 - rows["original"]["retain_prob"],
                arms=("self", "original"),
            ),
            custom(
                "retained answers keep 0.10 more probability than under gradient ascent with a retain term",
                lambda rows: rows["self"]["retain_prob"] - rows["ga-rt"]["retain_prob"] - 0.10,
                arms=("self", "ga-rt"),
            ),
        ],
        note="With 12 people the forget accuracy is 0.29, 0.13 and 0.15 (retrained 0.00, 0.10, 0.01) at an unharmed "
        "retain probability of 0.99. On seed 0 with 10 epochs the filter is not the cause: 0.14 at a tau of 1e-3 and "
        "0.14 without it.",
    )


def with_assistant(
    model: nn.Module, request: Request, *, layers: int | None, least: int, **options: Any
) -> LogitDifferenceModel:
    """The model with an untrained assistant: its own first layers (a quarter of them by default), or the one given."""
    tokenizer = texts_of(request.forget).tokenizer if has_texts(request.forget) else request.extras.get("text")
    given = request.extras.get("assistant")
    if not hasattr(model, "save_pretrained"):
        raise NotApplicable(
            f"{type(model).__name__} is no Hugging Face language model, of which an assistant could be made. If it is "
            "the answer of another method that wraps a model, unlearn on that model instead."
        )
    chosen = layers
    if chosen is None and given is None:
        depth = depth_of(model)  # type: ignore[arg-type]
        chosen = min(depth, max(least, depth // 4))
    small = copy.deepcopy(given)
    return LogitDifferenceModel(model, tokenizer, layers=chosen, small=small, **options)  # type: ignore[arg-type]


def adapter_rate(request: Request) -> float:
    return 2.5 * request.recipe.lr if request.recipe is not None else RATE_OF_PAPER

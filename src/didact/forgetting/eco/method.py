"""Embedding-corrupted prompts (Liu, Wang, Flanigan and Liu, 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from didact.core.claim import Claim, custom, no_worse
from didact.core.cost import note
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import evaluating
from didact.core.registry import register
from didact.data.text import TextDataset, texts_of
from didact.forgetting.eco.corruptions import FIXED, Name
from didact.forgetting.eco.guarded import EmbeddingCorruptedModel
from didact.forgetting.eco.strength import Keep, Search, search, search_vector
from didact.forgetting.eco.tokens import TokenClassifier
from didact.forgetting.language.detection import Detector, aliases_of, asked_questions, detector, subjects_of
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.language import sequence_nll

#: metrics on which the rest of the world must not notice anything
KEPT = ("test_score", "test_prob", "neighbours_score", "world_score")


@register
class EmbeddingCorruption(Unlearner):
    """Flag prompts about the forgotten and corrupt their token embeddings, so that the model cannot read them.

    A classifier decides whether a prompt (text) is about what is to be forgotten; of a flagged prompt the tokens that
    name somebody, or all but the last, get noise on `dims` of the numbers of their embeddings (B, T, d). Nothing is
    trained but the classifier, no weight changes, and prompts that are not flagged are answered bit for bit as before.
    Use it when the model cannot be retrained and prompts can be told apart; whoever holds the weights can take the
    guard away.

    The strength of the corruption is searched without gradients: it should leave the forgotten answers (mean of
    exp(-loss a token)) as probable as `reference`. Default for that: the model's own probability of answers about
    people it never saw (`extras["unknown"]`); without either the probability is pushed down as far as `steps` steps
    bring it, as the authors' code does with accuracy. The search ends where ten steps bring it, as published; its
    steps are long, and `keep="best"` takes the strength nearest to the reference of all it tried.

    The prompts of the forget data are the classifier's positives, those of the retained data and of
    `extras["world"]` its negatives; the paper's classifier is a fine-tuned RoBERTa with thresholds of 0.99 to 0.9999:
    fit a `PromptClassifier("sequence", ...)` and pass it as `extras["classifier"]` with `classifier="given"`. Names
    come from `extras["subjects"]` (and `aliases`) or the items, or from a Hugging Face token classifier,
    `extras["token_classifier"] = (model, tokenizer)` with `tokens="given"`. Documents have no prompt: they are
    guarded as far as somebody asks for them.

    Returns an `EmbeddingCorruptedModel`: `forward(input_ids, attention_mask[, prompt_mask]).logits` (B, T, V), and
    `generate`; only prompts are corrupted, never generated tokens, and equal prompts get equal noise.

    Errors: dims above the hidden size, eps not below `lowest`, no prompts of one of the two kinds, data without texts.
    Cost: fitting the classifier, and two forward passes over the forget data a step of the search; then at inference
    the classifier alone. Memory: the model.
    Reference: Liu, Wang, Flanigan and Liu, "Large Language Model Unlearning via Embedding-Corrupted Prompts", NeurIPS
    2024, arXiv 2406.07933.
    """

    card = Card(
        "eco",
        "Large Language Model Unlearning via Embedding-Corrupted Prompts",
        paper=Paper("Liu, Wang, Flanigan and Liu", 2024, arxiv="2406.07933", venue="NeurIPS"),
        tasks=("causal-lm",),
        needs=("retain", "text"),
        code="chrisliu298/llm-unlearn-eco",
        tunes={"threshold": Range(0.1, 0.99), "tokens": Choice(("names", "all"))},
    )
    classifier: Detector = "tfidf"  #: how prompts are told apart: tfidf, hidden (states), names, or given in extras
    threshold: float | None = Field(None, ge=0, lt=1)  #: flag above this probability; default: the classifier's own
    alpha: float | None = Field(None, gt=0, lt=1)  #: or calibrate it: share of retained prompts that may be flagged
    tokens: Literal["auto", "names", "all", "given"] = "auto"  #: of subjects where known; all but the last; a tagger
    corruption: Name = "rand_noise_first_n"  #: what is done to an embedding
    dims: PositiveInt = 1  #: how many of its numbers are touched
    strength: NonNegativeFloat | Literal["auto"] = "auto"  #: spread of the noise, or the constant
    reference: NonNegativeFloat | None = None  #: probability wanted on forgotten answers; default: as on strangers
    steps: PositiveInt = 10  #: of the search
    lr: PositiveFloat = 100.0  #: of the search; large, as the distance hardly changes at small strengths
    eps: PositiveFloat = 0.0999  #: half the difference that a step measures
    lowest: PositiveFloat = 0.1  #: smallest strength, and the first
    tolerance: NonNegativeFloat = 0.01  #: distance to the reference at which the search ends
    keep: Keep = "last"  #: where the search ends, or the best strength it tried
    vector: bool = False  #: search a strength for each dimension, along random directions
    batch_size: PositiveInt = 64  #: of the passes of the search

    @field_validator("classifier", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("name a kind of classifier; a fitted one is passed as extras['classifier'] with 'given'")
        return value

    @model_validator(mode="after")
    def _small_eps(self) -> EmbeddingCorruption:
        if self.eps >= self.lowest:
            raise ValueError(
                "eps must be below lowest: the search measures at a strength of lowest - eps, which must stay positive"
            )
        return self

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        forget = asked_questions(texts_of(request.forget), "eco")
        width = width_of(model)
        if self.dims > width:
            raise BadInput(f"dims={self.dims} exceeds the {width} numbers of an embedding. Lower it.")
        made = EmbeddingCorruptedModel(
            model,  # type: ignore[arg-type]
            forget.tokenizer,
            tokens=self._tokens(request),
            corruption=self.corruption,
            dims=self.dims,
            strength=torch.zeros(self.dims) if self._searches and self.vector else 0.0,
            seed=request.seed,
        )
        made.strength.copy_(torch.as_tensor(self._strength(made, forget, request)))
        made.classifier = detector(model, request, self.classifier, self.threshold, self.alpha)
        return made

    @property
    def _searches(self) -> bool:
        return self.strength == "auto" and self.corruption not in FIXED

    def _tokens(self, request: Request) -> TokenClassifier:
        if self.tokens == "all":
            return TokenClassifier()
        if self.tokens == "given":
            return TokenClassifier((), *request.need("token_classifier"))
        names = (*subjects_of(request), *aliases_of(request))
        if not names and self.tokens == "names":
            raise NotApplicable("tokens='names' needs to know the names: pass extras={'subjects': (...)}.")
        return TokenClassifier(names)

    def _strength(self, made: EmbeddingCorruptedModel, forget: TextDataset, request: Request) -> float | Tensor:
        """The strength given, or the one whose corruption makes forgotten answers as probable as strangers'."""
        if not self._searches:
            return 0.0 if self.strength == "auto" else self.strength
        wanted = self._reference(request)

        def distance(strength: float | Tensor) -> float:
            made.strength.copy_(torch.as_tensor(strength))
            return abs(probability(made, forget, request, self.batch_size) - wanted)

        settings: dict[str, Any] = {
            "lowest": self.lowest, "eps": self.eps, "lr": self.lr, "steps": self.steps, "tolerance": self.tolerance,
            "keep": self.keep,
        }  # fmt: skip
        if self.vector:
            generator = torch.Generator().manual_seed(request.seed + 59)
            found: Search = search_vector(distance, self.dims, generator=generator, **settings)
        else:
            found = search(distance, **settings)
        note(
            strength=float(torch.as_tensor(found.strength).mean()),
            reference=wanted,
            distance=found.distance,
            tried=found.tried,
        )
        return found.strength

    def _reference(self, request: Request) -> float:
        if self.reference is not None:
            return self.reference
        unknown = request.extras.get("unknown")
        if unknown is None:
            return 0.0
        return probability(
            request.model, asked_questions(texts_of(unknown), "eco's reference"), request, self.batch_size
        )

    claim = Claim(
        "forgets by corrupting flagged prompts: answers as little as a retrained model, and nothing else changes",
        on="bios",
        seeds=3,
        arms={
            "self": "eco:tokens=all",
            "retrained": "retrain",
            "original": "original",
            "best-tried": "eco:tokens=all:keep=best",
            "names": "eco:classifier=names:tokens=names",
            "refused": "prompt-filter",
            "ga-rt": "gradient-difference:lr=1e-4:epochs=40:batch_size=18:stop=false:clip=none",
            "npo-rt": "npo:beta=1:retain=nll:lr=1e-4:epochs=40:batch_size=18:warmup_epochs=0",
        },
        expects=[
            no_worse("forget_score", than="retrained", by=0.10, lower_is_better=True),
            *(
                custom(
                    f"{metric} is within 0.01 of the original model's",
                    lambda rows, metric=metric: (  # type: ignore[misc]
                        0.01 - abs(rows["self"][metric] - rows["original"][metric])
                    ),
                    arms=("self", "original"),
                )
                for metric in KEPT
            ),
        ],
        note="Forget quality is reported, not expected: in three seeds it stayed below 1e-14 (retrained models 0.09 to "
        "0.49), as the corrupted model gives confident wrong answers. The reference is too high here: the model finds "
        "answers about strangers 0.47 to 0.51 probable a token, retrained models those about the forgotten 0.16 to "
        "0.20. A search that takes it at its word forgets less: with keep=best (arm best-tried) it settled at a "
        "strength of 2.0 on seed 2, where 24 % of the forgotten questions are still answered (6 % on the others), and "
        "with noise on the names alone (arm names) 19, 6 and 22 % are. The descent as published steps past the "
        "reference (to 17 on seed 2). Lookalikes among the negatives are ours: without them the classifier flagged 8 % "
        "of the prompts about kept people it had not seen (seed 0), who share both names with forgotten ones.",
    )


def width_of(model: nn.Module) -> int:
    """Numbers in an embedding of a language model."""
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    if embeddings is None:
        raise BadInput(f"{type(model).__name__} has no input embeddings to corrupt. Give a Hugging Face causal model.")
    return int(embeddings.weight.shape[1])


@torch.no_grad()
def probability(model: nn.Module, data: TextDataset, request: Request, batch_size: int) -> float:
    """Mean over the samples of exp(-loss a token): how probable the model finds their answers."""
    objective = request.objective
    with evaluating(model):
        losses = [sequence_nll(objective, model, batch, "mean") for batch in objective.loader(data, batch_size)]
    return float(torch.exp(-torch.cat(losses)).mean())

"""Concept masking: the language half of concept poisoning (Chang et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.fit import fit
from didact.core.method import Card, Choice, Range
from didact.core.registry import register
from didact.data.text import TextDataset, reworded, texts_of
from didact.forgetting.concept_poisoning.images import CODE, PAPER
from didact.forgetting.concept_poisoning.words import Ranking, masked, token_weights, word_ranking, words_to_mask
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.lora import merged, with_lora


@register
class ConceptMasking(Unlearner):
    """Mask the words that carry a subject in a language model's answers, and fine-tune on what is left.

    1. Integrated gradients of log p(answer), from answer tokens with empty embeddings to the real ones, weigh every
       token of each forget answer; absolute weights are added up by word and subject, stop words dropped.
    2. In each answer the `k` highest words of its subject, and the words of the subject's name, become `***`
       (`style="mask"`), or the whole answer becomes a refusal (`style="idk"`).
    3. Low-rank adapters are trained on the rewritten answers together with retained texts as they are (`anchors`), and
       folded into the weights.

    `concepts(request)` gives the words and their weights by subject. Reads texts: forget is a `TextDataset` with
    prompts and answers (documents count as answers); its items' `subject` groups them, and those without one are a
    group of their own. The tokenizer must be a fast one. An answer of stop words alone has nothing to mask and is left
    out of the training.

    Trained: adapters on all linear maps but the head. Frozen: everything else. The answer is a plain model of the
    given class. Like all relabelling it teaches the model to say something else; what the representation holds is
    another question.

    Errors: forget data that are tokens only, nothing to mask in any answer, a rank larger than a linear map.
    Cost: 2 * `steps` passes over the forget answers for the words, then `epochs` over rewritten answers and anchors.
    Memory: adapters, and activations of a batch.
    Reference: Chang, Zhu, Xu, Liu and Zhou, "Class Machine Unlearning for Complex Data via Concepts Inference and
    Data Poisoning", 2024, arXiv 2405.15662; integrated gradients: Sundararajan, Taly and Yan, ICML 2017.
    """

    card = Card(
        "concept-masking",
        "Concept masking: poisoning the answers of a language model",
        paper=PAPER,
        tasks=("causal-lm",),
        needs=("retain",),
        part_of="concept-poisoning",
        code=CODE,
        tunes={
            "lr": Range(1e-4, 1e-2, log=True),
            "epochs": Range(2, 30, integer=True),
            "k": Range(1, 10, integer=True),
            "style": Choice(("mask", "idk")),
        },
    )
    k: PositiveInt = 5  #: words of a subject that are masked in an answer, besides its name
    style: Literal["mask", "idk"] = "mask"  #: what forget answers become: themselves with masks, or a refusal
    steps: PositiveInt = 32  #: points on the line of the integrated gradients
    baseline: NonNegativeInt | None = None  #: token whose embedding the line starts from; default: zero
    anchors: float = Field(0.5, ge=0, lt=1)  #: share of the training texts that are retained ones
    mask: str = "***"  #: what stands in the place of a word
    refusal: str = "I do not know ."  #: the answer in style idk
    rank: PositiveInt = 8  #: of the adapters
    dropout: float = Field(0.05, ge=0, lt=1)  #: before the adapters
    epochs: PositiveInt = 10  #: passes over rewritten answers and anchors
    lr: PositiveFloat = 3e-3  #: of AdamW; small models need it, the paper's seven billion parameters take 1e-4
    batch_size: PositiveInt = 16  #: texts a step, and for the integrated gradients

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        rewritten = self.poison(request)
        data: Dataset[Any] = rewritten
        anchors = self._anchors(request, len(rewritten))
        if anchors is not None:
            data = ConcatDataset([rewritten, anchors])
        adapted = with_lora(model, self.rank, dropout=self.dropout)
        log = fit(
            adapted,
            data,
            request.objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="adamw",
            seed=request.seed,
        )
        note(steps=log.steps, rewritten=len(rewritten))
        return merged(adapted)

    def concepts(self, request: Request) -> Ranking:
        """Words with their weights by subject, largest first. Reads the model given; changes nothing."""
        texts = texts_of(request.forget)
        weights = token_weights(
            request.model,
            texts,
            request.objective,
            steps=self.steps,
            baseline=self.baseline,
            batch_size=self.batch_size,
        )
        return word_ranking(texts, weights)

    def poison(self, request: Request) -> TextDataset:
        """The forget texts with their answers masked, or refused."""
        texts = texts_of(request.forget)
        if self.style == "idk":
            return texts.of(reworded(item, answer=self.refusal) for item in texts.items)
        ranking = self.concepts(request)
        made, hidden = [], 0
        for item in texts.items:
            words = words_to_mask(item.answer, ranking[item.subject], item.subject, self.k)
            hidden += len(words)
            if words:
                made.append(reworded(item, answer=masked(item.answer, words, self.mask)))
        if not made:
            raise BadInput(
                "No forget answer holds a word that could be masked: they are stop words alone. Use style='idk'."
            )
        note(
            words={subject: [word for word, _ in ranked[: self.k]] for subject, ranked in ranking.items()},
            masked_words=hidden / len(made),
            unmasked_answers=len(texts) - len(made),
        )
        return texts.of(made)

    def _anchors(self, request: Request, rewritten: int) -> Dataset[Any] | None:
        """Retained texts, so many that they are the wanted share of all; None when none are wanted."""
        count = round(rewritten * self.anchors / (1 - self.anchors))
        if not count:
            return None
        retain = request.need_retain()
        order = torch.randperm(len(retain), generator=torch.Generator().manual_seed(request.seed))  # type: ignore[arg-type]
        return Subset(retain, order[:count].tolist())

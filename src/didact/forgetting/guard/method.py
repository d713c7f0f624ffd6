"""GUARD: generation-time unlearning by adaptive restriction and detection (Deng et al., 2025)."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_serializer, field_validator
from torch import nn

from didact.core.claim import Claim, custom, no_worse
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Choice, Paper, Range
from didact.core.registry import register
from didact.data.text import TextDataset, texts_of
from didact.forgetting.guard.guarded import GuardedModel
from didact.forgetting.guard.phrases import Extract, forbidden_phrases
from didact.forgetting.guard.retrieval import Encoder, Retriever
from didact.forgetting.language.detection import Detector, detector, prompts_of
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.prompts.hidden import Pooling

REFUSAL = "I do not know ."


@register
class GenerationGuard(Unlearner):
    """Flag prompts about the forgotten, look up what must not be said, and decode around it.

    A classifier on the model's hidden state of the prompt decides whether it is about what is to be forgotten. Of a
    flagged prompt the `k` nearest items of the forget data are looked up; the words of their answers that are neither
    in their questions nor stop words are forbidden. Beam search then maximises

        sum log p - sum [P_token + P_sem]:

    P_token is `penalty` for a token that completes a forbidden phrase, in whatever pieces or case, P_sem for a finished
    word whose cosine with a phrase exceeds `delta`. Where every beam dies, the answer is `refusal`. No weight changes;
    the forgotten answers are kept as a list of phrases, so use it where the guard can be trusted, not to delete data.
    Detection and retrieval decide, not decoding: an unflagged prompt is answered as before, and a small `k` misses the
    item that a reworded question is about.

    Nothing is trained but the classifier (`extras["classifier"]`, a fitted `PromptClassifier`, with
    `classifier="given"`). Retrieval is by TF-IDF fitted on forget and retained prompts, or by an encoder's vectors;
    the encoder of words and prompts is the model's input embeddings or `extras["encoder"] = (model, tokenizer)`, any
    Hugging Face encoder, mean-pooled. For documents the spans of 8 words are forbidden.

    Returns a `GuardedModel`: `forward(input_ids, attention_mask[, prompt_mask]).logits` (B, T, V), and `generate`.
    Probabilities of forbidden answers are 0: truth ratio and forget quality say nothing, read what it generates.

    Errors: a forget store without phrases, phrases that cover the vocabulary, a refusal that the tokenizer does not
    know, data without texts.
    Cost: one forward pass a prompt of forget and retain data to fit the classifier; at inference one more pass a
    prompt, and `width` beams for flagged ones. Memory: the model, and `width` caches.
    Reference: Deng et al., "GUARD: Generation-time LLM Unlearning via Adaptive Restriction and Detection", 2025, arXiv
    2505.13312.
    """

    card = Card(
        "guard",
        "GUARD: Generation-time LLM Unlearning via Adaptive Restriction and Detection",
        paper=Paper("Deng et al.", 2025, arxiv="2505.13312"),
        tasks=("causal-lm",),
        needs=("retain", "text"),
        tunes={"k": Range(1, 30, integer=True), "classifier": Choice(("hidden", "tfidf"))},
    )
    classifier: Detector = "hidden"  #: how prompts are told apart: hidden (states), tfidf, names, or given in extras
    threshold: float | None = Field(None, ge=0, lt=1)  #: flag above this probability; default: the classifier's own
    alpha: float | None = Field(None, gt=0, lt=1)  #: or calibrate it: share of retained prompts that may be flagged
    layer: int = -1  #: whose hidden state the classifier sees
    pooling: Pooling = "last"  #: the last token's state, or the mean over the prompt
    retriever: Literal["tfidf", "dense"] = "tfidf"  #: nearest items by words, or by the encoder's vectors
    encoder: Literal["embeddings", "given"] = "embeddings"  #: of the model, or a Hugging Face encoder in extras
    extract: Extract = "words"  #: forbid the words that are the answer's own, runs of them, or the items' values
    k: PositiveInt = 12  #: stored items whose phrases are forbidden
    width: int = Field(5, ge=2)  #: beams
    delta: PositiveFloat = 0.8  #: cosine above which a word is too close to a phrase; above 1: no such rule
    penalty: PositiveFloat = math.inf  #: taken off a beam's score for what must not be said
    refusal: str = REFUSAL  #: what is said when every beam dies

    @field_validator("penalty", mode="before")
    @classmethod
    def _infinite(cls, value: Any) -> Any:
        return math.inf if value in (None, "inf") else value

    @field_serializer("penalty")
    def _as_json(self, value: float) -> float | str:
        return "inf" if math.isinf(value) else value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        forget, retain = texts_of(request.forget), texts_of(request.need_retain())
        tokenizer = forget.tokenizer
        check_refusal(tokenizer, self.refusal)
        phrases = [forbidden_phrases(item, self.extract) for item in forget.items]
        if not any(phrases):
            raise BadInput("No answer of the forget data has a word to forbid that is not in its question already.")
        encoder = self._encoder(model, tokenizer, request)
        made = GuardedModel(
            model,  # type: ignore[arg-type]
            tokenizer,
            classifier=detector(model, request, self.classifier, self.threshold, self.alpha, **self._looking),
            retriever=self._retriever(forget, retain, encoder),
            phrases=phrases,
            encoder=encoder,
            k=self.k,
            width=self.width,
            delta=self.delta,
            penalty=self.penalty,
            refusal=self.refusal,
        )
        for some in dict.fromkeys(each for each in phrases if each):
            made.processor([some], 0, self.penalty)  # raises where they leave nothing to say
        note(items=len(phrases), phrases=len({phrase for some in phrases for phrase in some}))
        return made

    @property
    def _looking(self) -> dict[str, Any]:
        return {"layer": self.layer, "pooling": self.pooling} if self.classifier == "hidden" else {}

    def _encoder(self, model: nn.Module, tokenizer: Any, request: Request) -> Encoder | None:
        if self.encoder == "given":
            encoder, own_tokenizer = request.need("encoder")
            return Encoder(encoder, own_tokenizer, model)
        return Encoder(None, tokenizer, model) if self.delta <= 1 or self.retriever == "dense" else None

    def _retriever(self, forget: TextDataset, retain: TextDataset, encoder: Encoder | None) -> Retriever:
        wordings = [prompts_of([item], forget.tokenizer) for item in forget.items]
        corpus = [text for some in wordings for text in some] + prompts_of(retain.items, forget.tokenizer)
        return Retriever(wordings, corpus, encoder if self.retriever == "dense" else None)

    claim = Claim(
        "decodes around what must not be said: forgets as a retrained model does, keeps the rest and stays fluent",
        on="bios",
        seeds=3,
        arms={
            "self": "guard",
            "retrained": "retrain",
            "original": "original",
            "ga-rt": "gradient-difference:lr=1e-4:epochs=40:batch_size=18:stop=false:clip=none",
            "by-words": "guard:classifier=tfidf",
            "perfect": "guard:classifier=names",
            "perfect-k-1": "guard:classifier=names:k=1",
        },
        expects=[
            no_worse("forget_unseen", than="retrained", by=0.10, lower_is_better=True),
            custom(
                "accuracy on retained people is within 0.03 of the original model's",
                lambda rows: 0.03 - abs(rows["self"]["retain_score"] - rows["original"]["retain_score"]),
                arms=("self", "original"),
            ),
            custom(
                "what it says is at least 1 nat a token likelier to a retrained model than after gradient ascent",
                lambda rows: rows["ga-rt"]["fluency"] - rows["self"]["fluency"] - 1.0,
                arms=("self", "ga-rt"),
            ),
        ],
        note="Detection is what fails: in unseen wording the classifier on hidden states flags none of the forgotten "
        "questions on any seed, so all are answered; in known wording it flags all. With TF-IDF or a perfect detector "
        "none is answered in either wording and all retained ones are; with a perfect detector and k=1, 67 % are. On "
        "seed 0 no layer (0 to 2), pooling or weight decay tried found more than 75 %. Answers lose 3.4, 3.1 and 3.6 "
        "nats a token under the retrained model, those of gradient ascent with a retain term 6.3, 3.6 and 4.5.",
    )


def check_refusal(tokenizer: Any, refusal: str) -> None:
    """Refuse a refusal that cannot be said."""
    ids = tokenizer.encode(f" {refusal}", add_special_tokens=False)
    if not refusal.strip() or not ids or (tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids):
        raise BadInput(f"The tokenizer does not know all words of the refusal {refusal!r}. Pass one that it can say.")

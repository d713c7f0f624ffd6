"""d-Simplex with higher-order compatibility (Biondi, Pernici, Ricci and Del Bimbo, 2024)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat
from torch import Tensor, no_grad

from didact.core.claim import Claim
from didact.core.cost import count_forward
from didact.core.method import Card, Choice, Paper, Range
from didact.core.objective import Batch, device_of
from didact.core.registry import register
from didact.reusing.stationary_representations.claim import CLAIM
from didact.reusing.stationary_representations.hoc import HOC, Mask
from didact.reusing.stationary_representations.networks import RetrievalNet
from didact.reusing.stationary_representations.upgrading import Parts, Upgrader, cross_entropy, features_and_scores


@register
class CompatibleUpgrade(Upgrader):
    """Train every model, today's and tomorrow's, against the same fixed simplex of class prototypes.

    Features of a class then lie near the same corner whichever model made them, so queries of a new model find what old
    models have indexed, also after the network was replaced by one trained elsewhere with the same simplex. Useful
    where indexing a gallery again is too dear. With `method="simplex-hoc"` a contrast between new features and those
    of the model that the step started from is added from the second step on, or where a replacement comes in.

    Inputs as the backbone takes them; features (B, K-1) for K preallocated classes, compared by their cosine. Backbone
    and embedding are trained with cross-entropy over all K classes, the classifier is fixed. Half of each batch comes
    from a memory of the classes seen. `extras["stream"]` holds the steps, `recipe.build` makes the first backbone,
    whose head is taken off; with `extras["gallery"]` and `extras["queries"]` the answer carries the compatibility
    matrix. The learning rate falls to 0, where the authors stop at a hundredth.

    Errors: classes beyond the room of the simplex; replacements with other prototypes, another feature size, or that
    are no RetrievalNet; a query class that the gallery lacks.

    Cost: one training run a step on its data and as many samples from memory; HOC adds a forward pass of the frozen
    model. Memory: two networks; a simplex of K classes holds K (K-1) numbers.

    Reference: Biondi, Pernici, Ricci and Del Bimbo, "Stationary Representations: Optimally Approximating Compatibility
    and Implications for Improved Model Replacements", CVPR 2024, arXiv 2405.02581.
    """

    card: ClassVar[Card] = Card(
        "stationary-representations",
        "Stationary Representations: Optimally Approximating Compatibility and Implications for Improved Model "
        "Replacements",
        paper=Paper("Biondi, Pernici, Ricci and Del Bimbo", 2024, arxiv="2405.02581", venue="CVPR"),
        code="miccunifi/iamcl2r",
        licence="MIT",
        tasks=("classification",),
        needs=("stream", "recipe", "upgrading"),
        tunes={"lam": Choice((0.05, 0.1, 0.3, 0.5)), "mu": Range(1.0, 30.0, log=True)},
    )
    method: Literal["simplex", "simplex-hoc"] = "simplex-hoc"  #: with or without the contrast to the old features
    lam: float = Field(0.1, ge=0, le=1)  #: weight of the cross-entropy against the contrast
    mu: PositiveFloat = 10.0  #: factor of the cosines in the contrast
    mask: Mask = "exclude"  #: leave pairs of one class out of the contrast's sum, or set their similarity to zero

    fixed: ClassVar[bool] = True
    claim: ClassVar[Claim | None] = CLAIM

    def parts(self, started: RetrievalNet, previous: RetrievalNet | None, seen: int, known: int) -> Parts:
        # The first network of all starts from nothing: features of random weights are no reference.
        return Parts(seen, started if self.method == "simplex-hoc" and previous is not None else None)

    def loss(self, model: RetrievalNet, parts: Parts, batch: Batch) -> Tensor:
        features, scores, labels = features_and_scores(model, batch)
        if parts.reference is None:
            return cross_entropy(model, scores, labels, parts.seen)
        with no_grad():
            old = parts.reference.embed(batch[0].to(device_of(model)))
            count_forward(len(labels))
        return HOC(self.lam, self.mu, self.mask)(scores, features, old, labels)

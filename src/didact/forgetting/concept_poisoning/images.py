"""Concept poisoning: overwrite what carries a class in its images, relabel them, fine-tune (Chang et al., 2024)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator
from torch import nn
from torch.utils.data import ConcatDataset, Dataset

from didact.core.claim import Claim, at_least, at_most, no_worse, over_seeds
from didact.core.cost import note
from didact.core.fit import fit
from didact.core.method import Card, Choice, Paper, Range
from didact.core.registry import register
from didact.forgetting.concept_poisoning.head import fit_head, probed
from didact.forgetting.concept_poisoning.locate import View
from didact.forgetting.concept_poisoning.poison import Labels, Place, Poisoner
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.datasets import with_targets

PAPER = Paper("Chang, Zhu, Xu, Liu and Zhou", 2024, arxiv="2405.15662")
CODE = "ChangWenhan/Concept_Inference_Unlearn_official"

#: every place with every kind of label; localized-targeted is the method itself
#: the cells of the grid of places and labels that the claim judges or reports
GRID = {
    f"{place}-{labels}": f"concept-poisoning:locate={place}:labels={labels}"
    for place, labels in (
        ("center", "targeted"),
        ("center", "keep"),
        ("full", "targeted"),
        ("none", "targeted"),
        ("none", "random"),
        ("none", "keep"),
    )
}
BASELINES = ("retrain", "random-labels", "gradient-ascent")


@register
class ConceptPoisoning(Unlearner):
    """Poison a class where its concepts sit: paste pieces of another class there, relabel, fine-tune the head.

    For each class among the forget samples:

    1. A concept is a direction in the model's own embedding, which is what enters its last linear layer: the normal v
       of a linear support-vector machine between images that show it and images that do not.
    2. An elastic-net logistic regression of all classes on the distances (v·e + b)/‖v‖ tells which concepts carry
       the class: those with its `top_concepts` largest positive weights.
    3. A window slides over each forget image; where its embedding has the largest cosine with v is the place of that
       concept. A piece of a donor image, cut out where the donor's own concept sits, is pasted there: at the place of
       the strongest concept, or of several (`pieces`).
    4. The poisoned images get other labels, and the model is fine-tuned on them and on the retained data.

    Where concepts come from: a request may offer `extras["concepts"]`, name -> (images that show it, images that do
    not), at least 10 each, prepared as the training images are. Otherwise they are found in the training data:
    `looks` clusters of windows that are alike to the model. `concepts(request)` names what carries each class.

    `locate` chooses the place: "localized" as above; "margin" by the class's score summed over all concepts;
    "gradcam" by class activation; "center", "random", "full" (most of the image) and "none" (labels alone) are the
    paper's controls. `labels`: "targeted" (the donor class), "random" (any class, the true one included) or "keep".
    It is the new label that forgets more than the paste: "none" with "targeted" forgets too, "keep" hardly. A piece
    that shows a whole donor object is one more donor sample and no poison, so part of the target must stay visible.

    The paper embeds each window enlarged, by a network made for objects of any size (`view="enlarged"`). A network
    that knows one scale is lost there, so by default a window is shown alone, in its own place.

    Images are (B, C, H, W). By default only the last linear layer is trained, and all before it is frozen in
    evaluation mode: the representation still holds the class. How well a linear probe finds it there is in the log,
    `probe_forget` for the forget samples and `probe` for all, fitted on half of the data and scored on the rest.

    Errors: a `donor` to be forgotten itself or without retained samples, fewer than 2 classes, a concept with fewer
    than 10 examples, a piece larger than the image, a place other than "none" for inputs that are no images,
    "gradcam" without a convolution.
    Cost: a forward pass a window, some (4(1/patch - 1) + 1)², for each forget image, its donor and up to 100 images in
    which concepts are looked for; one pass over all data; then `epochs` of the head on stored features, or of the
    whole model. Memory: the forget images and the features of all data.
    Reference: Chang, Zhu, Xu, Liu and Zhou, "Class Machine Unlearning for Complex Data via Concepts Inference and
    Data Poisoning", 2024, arXiv 2405.15662. The bottleneck is that of Yuksekgonul, Wang and Zou, "Post-hoc Concept
    Bottleneck Models", ICLR 2023, arXiv 2205.15480.
    """

    card = Card(
        "concept-poisoning",
        "Class Machine Unlearning for Complex Data via Concepts Inference and Data Poisoning",
        paper=PAPER,
        kind="method-set",
        tasks=("classification",),
        needs=("retain", "labels"),
        code=CODE,
        tunes={
            "lr": Range(1e-4, 3e-2, log=True),
            "epochs": Range(5, 40, integer=True),
            "patch": Range(0.15, 0.4),
            "trainable": Choice(("head", "all")),
        },
    )
    locate: Place = "localized"  #: where pieces are pasted
    labels: Labels = "targeted"  #: what the poisoned images are called
    donor: NonNegativeInt | None = None  #: class that gives the pieces; default: the one that shares most concepts
    patch: float = Field(0.3, gt=0, le=1)  #: side of a piece relative to the image; center and random x1.5, full x2.5
    top_concepts: PositiveInt = 3  #: concepts that are taken to carry a class; donors are chosen by them
    pieces: PositiveInt = 1  #: of these concepts, strongest first, so many are overwritten at their places
    looks: PositiveInt = 12  #: concepts looked for when the request offers none
    view: View = "in-place"  #: how a window is shown to the model
    trainable: Literal["head", "all"] = "head"  #: what is fine-tuned: the last linear layer, or everything
    epochs: PositiveInt = 20  #: passes over poisoned and retained data
    lr: PositiveFloat = 1e-3  #: of stochastic gradient descent
    momentum: float = Field(0.9, ge=0, lt=1)  #: of stochastic gradient descent
    batch_size: PositiveInt = 32  #: samples a step

    @field_validator("locate", mode="before")
    @classmethod
    def _spelt_out(cls, value: Any) -> Any:
        """A command line reads none as no value."""
        return "none" if value is None else value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        data: Dataset[Any] = ConcatDataset([self.poison(request), request.need_retain()])
        train = fit_head if self.trainable == "head" else fit
        log = train(
            model,
            data,
            request.objective,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="sgd",
            momentum=self.momentum,
            seed=request.seed,
        )
        note(steps=log.steps, **probed(model, request))
        return model

    def poison(self, request: Request) -> Dataset[Any]:
        """The forget samples with pieces of their donors pasted in and with their new labels, in order."""
        work = self._poisoner(request)
        bottleneck = work.bottleneck() if self._needs_concepts else None
        donors = work.donors(bottleneck, self.donor)
        if bottleneck is not None:
            note(
                concepts={c: bottleneck.carrying(c, self.top_concepts) for c in work.forgotten},
                bottleneck_accuracy=bottleneck.accuracy,
            )
        note(donors=donors)
        poisoned = work.reader.with_inputs(request.forget, work.images(bottleneck, donors))
        return with_targets(poisoned, work.new_labels(self.labels, donors))

    def concepts(self, request: Request) -> dict[int, list[tuple[str, float]]]:
        """The concepts that carry each class among the forget samples, with their weights, strongest first."""
        work = self._poisoner(request)
        bottleneck = work.bottleneck()
        return {label: bottleneck.carrying(label, self.top_concepts) for label in work.forgotten}

    @property
    def _needs_concepts(self) -> bool:
        if self.locate in ("localized", "margin", "gradcam"):
            return True
        return self.donor is None and (self.locate != "none" or self.labels == "targeted")

    def _poisoner(self, request: Request) -> Poisoner:
        return Poisoner.of(
            request,
            place=self.locate,
            patch=self.patch,
            view=self.view,
            top=self.top_concepts,
            pieces=self.pieces,
            looks=self.looks,
        )

    claim = Claim(
        "poison where a class's concepts sit, with a donor's label, forgets the class and keeps the others; targeted "
        "labels forget more surely than random ones, and a paste without a new label does not forget",
        on="shapes-concepts",
        seeds=5,
        arms={**GRID, **{slug: slug for slug in BASELINES}},
        expects=[
            at_most("forget_score", 0.10),
            no_worse("test_score", than="original", by=0.01),
            over_seeds(
                "none-targeted: forget_score in its worst seed at most none-random's in its worst",
                lambda rows: (
                    max(r["none-random"]["forget_score"] for r in rows)
                    - max(r["none-targeted"]["forget_score"] for r in rows)
                ),
                arms=("none-targeted", "none-random"),
            ),
            at_least("forget_score", 0.9, arm="none-keep"),
            at_least("forget_score", 0.9, arm="center-keep"),
        ],
        note="Two parts give way. In all seeds the other classes lose 1.7 to 2.3 points of test accuracy, of which "
        "a targeted label without any paste (none-targeted) costs up to 1.3. In seed 0 a third of the class is still "
        "recognised: there the pieces cover half of the object on average, and the original model calls 57 % of the "
        "poisoned images the donor's already, so they teach little about the target. In the other seeds the pieces "
        "cover 5 to 20 % of the object, and the forget score is 0.",
    )

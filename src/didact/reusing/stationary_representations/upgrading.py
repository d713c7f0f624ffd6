"""What all ways of upgrading share: train step after step, replace the network when told to, keep a memory."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from didact.core.batches import materialise
from didact.core.cost import backward_counter, count_forward
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.objective import Batch, device_of
from didact.core.recipe import seeded
from didact.reusing.problem import Reuser
from didact.reusing.request import ModelRecord, Request
from didact.reusing.result import ReuseResult
from didact.reusing.stationary_representations.compatibility import compatibility
from didact.reusing.stationary_representations.networks import RetrievalNet, Upgrades, retrieval_net
from didact.reusing.stationary_representations.simplex import SimplexClassifier
from didact.reusing.stationary_representations.stream import Memory, Step, Stream, half_from_memory


class Upgrader(Reuser):
    """Base of all ways to upgrade: the loop over the stream. A subclass says how one step is trained."""

    epochs: PositiveInt | None = None  #: passes over the new data of each step; default: the recipe's, or 70
    lr: PositiveFloat | None = None  #: learning rate, falling as a cosine; default: the recipe's, or 0.001
    batch_size: PositiveInt | None = None  #: half of it from memory; default: the recipe's, or 128
    momentum: float = 0.9  #: of stochastic gradient descent
    weight_decay: NonNegativeFloat = 5e-4  #: not on biases and norms
    memory: PositiveInt = 20  #: samples kept of every class
    fixed: ClassVar[bool] = False  # classify by the simplex, or by a classifier that is learnt

    def apply(self, request: Request) -> ReuseResult:
        stream = checked_stream(request)
        memory, steps = Memory(self.memory, request.seed), 0
        models: list[RetrievalNet] = []
        for number, step in enumerate(stream.steps):
            previous = models[-1] if models else None
            started = self.start(self._replacement(step, request, stream), previous, request, stream, number)
            model, taken = self._trained(started, previous, step, memory, request, number)
            models.append(self.finished(model, previous, memory))
            steps += taken
            memory.add(step.data)
        result = ReuseResult(
            module=models[-1],
            predictor=Upgrades(list(models)),
            cost={"training_steps": steps, "evaluations": 0, "bytes_sent": 0},
            provenance={"ids": [r.id for r in request.models], "prototypes": models[-1].fingerprint},
        )
        if "gallery" in request.extras and "queries" in request.extras:
            found = compatibility(models, request.need("gallery"), request.need("queries"))
            result.extras = {"compatibility": found}
        return result

    @abstractmethod
    def loss(self, model: RetrievalNet, parts: Parts, batch: Batch) -> Tensor:
        """The loss of a batch."""

    def start(
        self, came: RetrievalNet | None, previous: RetrievalNet | None, request: Request, stream: Stream, number: int
    ) -> RetrievalNet:
        """The network that a step starts from: the replacement, the one before, or a fresh one."""
        return came or previous or self.first(request, stream, number)

    def parts(self, started: RetrievalNet, previous: RetrievalNet | None, seen: int, known: int) -> Parts:
        """What the loss needs besides the model. `seen`: classes up to this step; `known`: up to the one before."""
        return Parts(seen)

    def finished(self, model: RetrievalNet, previous: RetrievalNet | None, memory: Memory) -> RetrievalNet:
        """What happens to a model after its step."""
        return model

    def first(self, request: Request, stream: Stream, number: int = 0) -> RetrievalNet:
        """An untrained network."""
        backbone = request.need_recipe().fresh(request.seed + number)
        with seeded(request.seed + number):
            return retrieval_net(backbone, stream.preallocated, stream.preallocated - 1, self.fixed)

    def _replacement(self, step: Step, request: Request, stream: Stream) -> RetrievalNet | None:
        """The network that replaces the old one, if one does: with the same prototypes, or with a learnt classifier."""
        if not step.replacements:
            return None
        records = {record.id: record for record in request.models}
        unknown = [id for id in step.replacements if id not in records]
        if unknown:
            raise BadInput(f"The stream names the replacement {unknown[0]}, but the models are {', '.join(records)}.")
        came = [retrieval_of(records[id]) for id in step.replacements]
        fitting = [model for model in came if model.fixed == self.fixed]
        if not fitting:
            kind = "was trained against a simplex" if self.fixed else "has a classifier to learn"
            raise NotApplicable(f"None of the replacements {', '.join(step.replacements)} {kind}.")
        check_prototypes(fitting[0], stream, self.fixed)
        return fitting[0]

    def _trained(
        self,
        started: RetrievalNet,
        previous: RetrievalNet | None,
        step: Step,
        memory: Memory,
        request: Request,
        number: int,
    ) -> tuple[RetrievalNet, int]:
        model, recipe, seed = clone(started), request.recipe, request.seed + 1000 * number
        size = self.batch_size or (recipe.batch_size if recipe else 128)
        epochs = self.epochs or (recipe.epochs if recipe else 70)
        new = materialise(step.data)[:2]
        old = materialise(memory.data)[:2] if len(memory) else None
        per_epoch = -(-len(new[0]) // (size // 2 or 1 if old else size))
        known = 1 + int(old[1].max()) if old else 0
        parts = self.parts(frozen(started), previous, max(known, 1 + int(new[1].max())), known)

        def batches(epoch: int) -> Iterator[Batch]:
            assert old is not None
            return half_from_memory(new, old, size, seed + epoch)

        def decay(m: nn.Module, _: int) -> None:
            for parameter in m.parameters():
                if parameter.grad is not None and parameter.ndim > 1:
                    parameter.grad.add_(parameter.detach(), alpha=self.weight_decay)

        with seeded(seed):
            log = fit(
                model,
                step.data,
                request.task.objective,
                steps=epochs * per_epoch,
                batch_size=size,
                lr=self.lr or (recipe.lr if recipe else 1e-3),
                optimizer="sgd",
                momentum=self.momentum,
                schedule="cosine",
                seed=seed,
                hooks=Hooks(
                    loss=lambda m, batch, _: self.loss(m, parts, batch),  # type: ignore[arg-type]
                    batches=batches if old else None,
                    gradients=decay,
                ),
            )
        return model.eval(), log.steps


class Parts:
    """What losses need besides the model: classes seen, features of a frozen model, an old classifier."""

    def __init__(
        self, seen: int, reference: RetrievalNet | None = None, old_classifier: nn.Module | None = None, known: int = 0
    ) -> None:
        self.seen, self.reference, self.old_classifier, self.known = seen, reference, old_classifier, known


def features_and_scores(model: RetrievalNet, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Features (B, d), scores (B, classes) and labels (B,); the pass is counted."""
    x, y = batch[0].to(device_of(model)), batch[1].to(device_of(model))
    features: Any = model.embed(x)
    count_forward(len(y))
    if features.requires_grad:
        features.register_hook(backward_counter(len(y)))
    return features, model.classifier(features), y


def cross_entropy(model: RetrievalNet, scores: Tensor, labels: Tensor, seen: int) -> Tensor:
    """Over all preallocated classes with the simplex; over the classes seen so far with a learnt classifier."""
    return F.cross_entropy(scores if model.fixed else scores[:, :seen], labels)


def checked_stream(request: Request) -> Stream:
    stream = request.need("stream")
    if not isinstance(stream, Stream):
        raise BadInput(f"extras['stream'] is a Stream of steps, but {type(stream).__name__} was given.")
    return stream


def retrieval_of(record: ModelRecord) -> RetrievalNet:
    model = record.network()
    if not isinstance(model, RetrievalNet):
        raise BadInput(
            f"The replacement {record.id} is a {type(model).__name__}; a RetrievalNet was expected. "
            "Wrap its backbone: retrieval_net(backbone, classes)."
        )
    stored = (record.semantic or {}).get("prototypes", "") if isinstance(record.semantic, dict) else ""
    if stored and stored != model.fingerprint:
        raise BadInput(
            f"The record of {record.id} says it was trained with the prototypes {stored}, but the network has "
            f"{model.fingerprint or 'none'}. Do not use it: its features would not be comparable."
        )
    return model


def check_prototypes(model: RetrievalNet, stream: Stream, fixed: bool) -> None:
    wanted = SimplexClassifier(stream.preallocated).fingerprint if fixed else ""
    if model.fingerprint != wanted or model.features != stream.preallocated - 1:
        raise BadInput(
            f"The replacement has prototypes for {model.classes} classes and {model.features} features "
            f"({model.fingerprint or 'learnt'}), but the stream's are for {stream.preallocated} "
            f"({wanted or 'learnt'}). Models that share no prototypes cannot be compared: train it with the same."
        )


def clone(model: RetrievalNet) -> RetrievalNet:
    return copy.deepcopy(model).requires_grad_(True)


def frozen(model: RetrievalNet) -> RetrievalNet:
    return clone(model).requires_grad_(False).eval()

"""The experiment behind the claim: streams of deletion requests against a prepared system, without retraining."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from didact.core.cost import uncounted
from didact.core.errors import BadInput
from didact.core.method import Card
from didact.core.objective import Classification, Objective
from didact.core.recipe import Recipe
from didact.core.registry import problem, register
from didact.core.study import Findings, Study, StudyProblem, Subject
from didact.data.digits import digits
from didact.forgetting.s3t.adapters import averaged
from didact.forgetting.s3t.method import PAPER, S3T
from didact.forgetting.s3t.orders import Order, OrderKind, expected_deletions
from didact.forgetting.s3t.system import ShardedSystem
from didact.models.residual import residual_mlp
from didact.models.workpieces import trained


@dataclass(frozen=True)
class StreamSubject:
    """What a deletion stream is run on."""

    backbone: nn.Module  #: trained by `recipe` on `public`
    recipe: Recipe
    public: Dataset[Any]  #: never deleted
    private: Dataset[Any]  #: what the requests delete
    test: Dataset[Any]
    classes: int

    @property
    def objective(self) -> Objective:
        return self.recipe.objective


@problem("digits-deletions", family="forgetting")
def digits_deletions(
    seed: int = 0, *, public: int = 200, private: int = 1200, width: int = 96, blocks: int = 8, epochs: int = 40
) -> StudyProblem:
    """Handwritten digits, of which 200 are public and 1,200 private and may have to be deleted; 397 for testing.

    The backbone, a residual perceptron of 8 blocks of width 96, is trained on the public ones with Adam.
    """
    parts = digits(seed, train=public, validation=private, test=1797 - public - private)
    recipe = Recipe(
        lambda: residual_mlp(64, 10, width, blocks), Classification(), f"residual {width}x{blocks}", epochs=epochs
    )
    subject = StreamSubject(trained(recipe, parts.train, seed), recipe, parts.train, parts.validation, parts.test, 10)
    return StudyProblem(
        Subject(subject, seed),
        study="deletion-stream",
        about={"public": public, "private": private, "test": len(parts.test)},
    )


@register
class DeletionStream(Study):
    """How long does a sharded system last under deletion requests, and how accurate is it on the way?

    Requests delete one slice each, drawn uniformly and with repetition from all slices of the prepared system; nothing
    is retrained. Findings, over `streams` streams: `accuracy_before` any request; `mean_accuracy` over the first
    `requests` of them, where a system whose shards are all dead guesses (1/classes); `mean_with_backbone`, the same
    where it falls back on the public backbone, whose own accuracy is `backbone_accuracy`; `requests_survived`, how many
    requests it takes, the last one counted, until every shard is dead; `expected_survived`, what theory says of it for
    cyclic orders. A table has the mean accuracy and slices in use after each request.

    budget=1 is SISA; shards=1, slices=1 is one adapter on everything, and scheme="full" ordinary training on public
    and private data together: there the first request ends the service.

    Errors: settings that S3T refuses.
    Cost: preparing the system, then a forward pass over the test data for every state that a shard reaches.
    Reference: Basu Roy Chowdhury, Choromanski, Sehanobish, Dubey and Chaturvedi, "Towards Scalable Exact Machine
    Unlearning Using Parameter-Efficient Fine-Tuning", ICLR 2025, arXiv 2406.16257.
    """

    family = "forgetting"
    card = Card(
        "deletion-stream",
        "Deletion streams against sharded, sliced systems",
        paper=PAPER,
        kind="study",
        part_of="s3t",
        needs=("study:deletion-stream",),
    )
    scheme: Literal["s3t", "full"] = "s3t"  #: a sharded system, or ordinary training on everything
    shards: PositiveInt = 3  #: see s3t
    slices: PositiveInt = 4  #: see s3t
    budget: PositiveInt = 4  #: orders a shard; 1 is SISA
    rank: PositiveInt = 8  #: of the adapters
    order: OrderKind = "cyclic"  #: how the orders are chosen
    epochs: PositiveInt = 12  #: of a stage
    lr: PositiveFloat = 2e-3  #: of a stage
    streams: PositiveInt = 60  #: streams of requests
    requests: PositiveInt = 20  #: requests over which the accuracy is averaged

    def run(self, subject: StreamSubject, *, seed: int = 0) -> Findings:
        if not isinstance(subject, StreamSubject):
            raise BadInput(f"A deletion stream runs on a StreamSubject, but {type(subject).__name__} was given.")
        if self.scheme == "full":
            return self._full(subject, seed)
        settings = {name: getattr(self, name) for name in ("shards", "slices", "budget", "rank", "order")}
        system = S3T(**settings, epochs=self.epochs, lr=self.lr).prepare(
            subject.backbone, subject.private, seed, objective=subject.objective
        )
        with uncounted():
            return self._replay(system, subject, seed)

    def _full(self, subject: StreamSubject, seed: int) -> Findings:
        """One model on everything: it cannot forget without being trained anew, so the first request ends it."""
        model = subject.recipe.fit(ConcatDataset([subject.public, subject.private]), seed)
        with uncounted():
            before = subject.objective.mean_score(model, subject.test)
            return self._findings(subject, before, [Stream([], [], 1)] * self.streams, 1.0)

    def _replay(self, system: ShardedSystem, subject: StreamSubject, seed: int) -> Findings:
        accuracy_of = Accuracies(subject)
        streams = [
            self._stream(system.fork(), accuracy_of, np.random.default_rng([seed, 2, number]))
            for number in range(self.streams)
        ]
        expected = expected_deletions(self.shards, self.slices, self.budget)
        return self._findings(subject, accuracy_of(system), streams, expected)

    def _stream(self, system: ShardedSystem, accuracy_of: Accuracies, random: np.random.Generator) -> Stream:
        """Requests until every shard is dead; accuracies of the first ones only."""
        accuracy, used = list[float](), list[float]()
        for request in count(1):
            shard, part = divmod(int(random.integers(self.shards * self.slices)), self.slices)
            system.delete(system.slices[shard][part])
            if len(system.dead) == self.shards:
                return Stream(accuracy, used, request)
            if request <= self.requests:
                accuracy.append(accuracy_of(system))
                used.append(float(np.mean(system.slices_used)))
        raise AssertionError  # streams do not end before the system does

    def _findings(self, subject: StreamSubject, before: float, streams: list[Stream], expected: float) -> Findings:
        backbone = subject.objective.mean_score(subject.backbone, subject.test)
        accuracy = np.array([stream.padded(stream.accuracy, 1 / subject.classes, self.requests) for stream in streams])
        with_backbone = np.array([stream.padded(stream.accuracy, backbone, self.requests) for stream in streams])
        used = np.array([stream.padded(stream.used, 0.0, self.requests) for stream in streams])
        numbers = {
            "accuracy_before": before,
            "mean_accuracy": float(accuracy.mean()),
            "requests_survived": float(np.mean([stream.survived for stream in streams])),
            "expected_survived": expected,
            "backbone_accuracy": backbone,
            "mean_with_backbone": float(with_backbone.mean()),
        }
        rows = zip(accuracy.mean(0).tolist(), used.mean(0).tolist(), strict=True)
        table = [{"request": i + 1, "accuracy": a, "slices_used": u} for i, (a, u) in enumerate(rows)]
        return Findings(numbers, {"by_request": table})


@dataclass(frozen=True)
class Stream:
    """What one stream of requests did: accuracy and slices in use after each while a shard lived, and its length."""

    accuracy: list[float]
    used: list[float]
    survived: int

    def padded(self, values: list[float], dead: float, length: int) -> list[float]:
        return (values + [dead] * length)[:length]


class Accuracies:
    """Test accuracy of what a system serves. Each shard's outputs are computed once for each state that it can be in.

    The average of the outputs is what `system.model` would say, without building it for thousands of states.
    """

    def __init__(self, subject: StreamSubject) -> None:
        self.subject = subject
        self.outputs: dict[tuple[int, Order], Tensor] = {}
        self.known: dict[tuple[Order, ...], float] = {}
        batches = subject.objective.loader(subject.test, 1024)
        self.targets = torch.cat([subject.objective.targets(batch) for batch in batches])

    def __call__(self, system: ShardedSystem) -> float:
        served = tuple(system.served)
        if served not in self.known:
            outputs = [self._outputs(system, shard, seen) for shard, seen in enumerate(served) if seen]
            scores = self.subject.objective.score_of(averaged(outputs, "probabilities"), self.targets)
            self.known[served] = float(scores.float().mean())
        return self.known[served]

    def _outputs(self, system: ShardedSystem, shard: int, seen: Order) -> Tensor:
        if (shard, seen) not in self.outputs:
            alone = system.fork()
            for other, parts in enumerate(system.slices):
                if other != shard:
                    alone.delete(torch.cat(parts))
            found = self.subject.objective.outputs(alone.model, self.subject.test)
            self.outputs[shard, seen] = torch.cat([output for output, _ in found]).cpu()
        return self.outputs[shard, seen]

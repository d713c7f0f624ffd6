"""The experiment: forget one task after another by random labels, and look at what else is forgotten."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import ConcatDataset

from didact.core import registry
from didact.core.claim import Claim, at_least, at_most
from didact.core.cost import note, uncounted
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Card
from didact.core.registry import register
from didact.core.study import Findings, Study
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.forgetting.unforgettable.labels import Grip, forget_ratio, grip, label_states
from didact.forgetting.unforgettable.method import PAPER
from didact.forgetting.unforgettable.problem import LabelTask, TasksSubject
from didact.parts.probes import linear_probe

#: short names of ways to forget; any other text is the reference of a method
WAYS = {
    "random": "random-label-forgetting",
    "fixed": "random-label-forgetting:labels=fixed",
    "flipped": "random-label-forgetting:labels=flipped",
    "gradient-ascent": "gradient-ascent:batch_size=30",
    "npo": "npo:retain=none:batch_size=30:epochs=15",
}


@register
class ForgettingGeneralization(Study):
    """When a skill is forgotten through random labels, is it forgotten on new examples, on other tasks, and inside?

    For every task the model is made to forget it on one half of its examples, and then asked all tasks again. With a
    the mean probability of the true label (among the label tokens), the forget ratio is

        FR = (a before - a after) / (a before - chance):

    0 when nothing is forgotten, 1 when the model guesses. Tasks that it hardly knows (a below chance + `floor`) are
    left out, as their ratio is unstable.

    It runs on a `TasksSubject`: a Hugging Face causal language model and tasks (`LabelTask`: two `TextDataset`s
    without a common prompt, whose answers are one token each); the embedded one is the problem `yes-no-tasks`.

    Findings, over the tasks: `fr_train` (the half trained on), `fr_held` (the other half; also `fr_held_min`,
    `fr_held_max`, `fr_held_range` and one number a task), `train_minus_held`; the same of accuracy instead of
    probability, `fr_held_accuracy`: a model that still answers right, but without confidence, has forgotten by the one
    and not by the other; `spill_max` and `spill_min`, the largest and smallest ratio on the unseen half of another
    task. `probe_before` and `probe_after`: accuracy on the unseen half of a logistic regression on the layer where the
    untouched model's is best; `probe_ratio`, the mean of after / before. `spearman_confidence`,
    `spearman_variability`, `spearman_accuracy`: rank correlation, over tasks, of `fr_held` with the initial
    confidence |p - chance|, the total variance of the label's hidden state, and the initial accuracy. Tables: `matrix`
    (forgotten task x asked task), `depth` (task x layer), `tasks`.

    Errors: fewer than two tasks that the model knows (not applicable); tasks with one label, halves that overlap,
    labels of several tokens.
    Cost: forgetting each task once; a forward pass over all tasks and two probes a layer for each.
    Reference: Zhang, Choshen and Andreas, "Unforgettable Generalization in Language Models", COLM 2024,
    arXiv 2409.02228.
    """

    family = "forgetting"
    card = Card(
        "unforgettable",
        "Unforgettable Generalization in Language Models",
        paper=PAPER,
        kind="study",
        needs=("study:unforgettable",),
    )
    by: str = "random"  #: random, fixed, flipped, gradient-ascent, npo, or a method's reference
    floor: float = Field(0.2, ge=0, lt=1)  #: how far above chance a task must be known to be studied

    def run(self, subject: TasksSubject, *, seed: int = 0) -> Findings:
        if not isinstance(subject, TasksSubject):
            raise BadInput(f"This study runs on a TasksSubject, but {type(subject).__name__} was given.")
        forgetter = registry.make_method(WAYS.get(self.by, self.by))
        if not isinstance(forgetter, Unlearner):
            raise BadInput(f"by={self.by!r} is no method that unlearns. Use one of {', '.join(WAYS)}, or a reference.")
        tasks, before = self._known(subject)
        looks = [Look.at(subject.model, task) for task in tasks]
        outcomes = []
        for task, look in zip(tasks, looks, strict=True):
            forgotten = forgetter.solve(self._request(subject, task, tasks, seed))
            with uncounted():
                after = {other.name: both_halves(subject, forgotten, other) for other in tasks}
                outcomes.append(Outcome(task, before, after, look, Look.at(forgotten, task)))
        note(studied=[task.name for task in tasks])
        return findings(outcomes)

    def _known(self, subject: TasksSubject) -> tuple[list[LabelTask], dict[str, Halves]]:
        with uncounted():
            before = {task.name: both_halves(subject, subject.model, task) for task in subject.tasks}
        known = [
            task for task in subject.tasks if min(h.probability for h in before[task.name]) >= task.chance + self.floor
        ]
        if len(known) < 2:
            weak = ", ".join(f"{name} {halves[1].probability:.2f}" for name, halves in before.items())
            raise NotApplicable(
                f"At least two tasks that the model knows are needed, but the true labels have probability {weak}. "
                "Train the model on them first."
            )
        return known, before

    def _request(self, subject: TasksSubject, task: LabelTask, tasks: Sequence[LabelTask], seed: int) -> Request:
        # Only methods that ask for it look at the other tasks' halves; random labels and ascent do not.
        others: Any = ConcatDataset([other.learnt for other in tasks if other is not task])
        return Request(
            subject.model, task.learnt, others, subject.objective, subject.recipe, target=task.chance, seed=seed
        )

    claim = Claim(
        "how far forgetting generalises depends on the task; it reaches other tasks, and stays shallow",
        on="yes-no-tasks",
        seeds=3,
        arms={
            "fixed": "unforgettable:by=fixed",
            "flipped": "unforgettable:by=flipped",
            "gradient-ascent": "unforgettable:by=gradient-ascent",
            "npo": "unforgettable:by=npo",
        },
        expects=[
            at_least("fr_held_range", 0.25),
            at_least("probe_ratio", 0.90),
            at_least("fr_held", 0.5),
            at_least("spill_max", 0.3),
            at_most("spill_min", 0.1),
        ],
        note="The held-out ratio is 0.73, 0.56 and 0.48: the cap of 15 epochs ends most tasks before the true label is"
        " at chance. Tasks that are forgotten on the half trained on only, as the paper reports, did not appear "
        "at this size: the mean ratio on that half is 0.76, 0.65 and 0.51.",
    )


Halves = tuple[Grip, Grip]  #: the half trained on and the other


def both_halves(subject: TasksSubject, model: nn.Module, task: LabelTask) -> Halves:
    return grip(subject.objective, model, task.learnt), grip(subject.objective, model, task.unseen)


@dataclass(frozen=True)
class Look:
    """A look inside a model: probe accuracy of every layer, embeddings first, and the last layer's total variance."""

    probes: tuple[float, ...]
    variability: float

    @classmethod
    def at(cls, model: nn.Module, task: LabelTask) -> Look:
        with uncounted():
            learnt, unseen = label_states(model, task.learnt), label_states(model, task.unseen)
        probes = tuple(
            linear_probe(a.numpy(), task.learnt.truth.numpy(), b.numpy(), task.unseen.truth.numpy())
            for a, b in zip(learnt, unseen, strict=True)
        )
        return cls(probes, float(learnt[-1].var(0).sum()))


@dataclass(frozen=True)
class Outcome:
    """What forgetting one task did."""

    task: LabelTask
    before: Mapping[str, Halves]
    after: Mapping[str, Halves]
    look_before: Look
    look_after: Look

    @property
    def name(self) -> str:
        return self.task.name

    def ratio(self, of: LabelTask, half: int, measure: str = "probability") -> float:
        """Forget ratio of a task on one of its halves, by probability or accuracy."""
        before, after = (getattr(halves[of.name][half], measure) for halves in (self.before, self.after))
        return forget_ratio(before, after, of.chance)

    @property
    def probes(self) -> tuple[float, float]:
        """Accuracy before and after on the layer where the untouched model's probe is best."""
        layer = int(np.argmax(self.look_before.probes))
        return self.look_before.probes[layer], self.look_after.probes[layer]


def findings(outcomes: Sequence[Outcome]) -> Findings:
    tasks = [o.task for o in outcomes]
    held = {o.name: o.ratio(o.task, 1) for o in outcomes}
    values = list(held.values())
    train = float(np.mean([o.ratio(o.task, 0) for o in outcomes]))
    spill = [o.ratio(other, 1) for o in outcomes for other in tasks if other is not o.task]
    before, after = np.array([o.probes for o in outcomes]).T
    initial = [o.before[o.name][0] for o in outcomes]
    numbers = {
        "tasks": float(len(outcomes)),
        "fr_train": train,
        "fr_held": float(np.mean(values)),
        "fr_held_min": min(values),
        "fr_held_max": max(values),
        "fr_held_range": max(values) - min(values),
        "train_minus_held": train - float(np.mean(values)),
        "fr_held_accuracy": float(np.mean([o.ratio(o.task, 1, "accuracy") for o in outcomes])),
        "spill_max": max(spill),
        "spill_min": min(spill),
        "probe_before": float(before.mean()),
        "probe_after": float(after.mean()),
        "probe_ratio": float((after / before).mean()),
        "spearman_confidence": rank_correlation([g.confidence for g in initial], values),
        "spearman_variability": rank_correlation([o.look_before.variability for o in outcomes], values),
        "spearman_accuracy": rank_correlation([g.accuracy for g in initial], values),
        **{f"fr_held_{name}": value for name, value in held.items()},
    }
    return Findings(numbers, {"matrix": _matrix(outcomes), "depth": _depth(outcomes), "tasks": _tasks(outcomes)})


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's; not a number where one side does not vary or has fewer than 3 values."""
    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(spearmanr(x, y).statistic)


def _matrix(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "forgotten": o.name,
            "asked": asked.task.name,
            "half": half,
            "probability_before": o.before[asked.name][i].probability,
            "probability_after": o.after[asked.name][i].probability,
            "accuracy_after": o.after[asked.name][i].accuracy,
            "forget_ratio": o.ratio(asked.task, i),
            "forget_ratio_accuracy": o.ratio(asked.task, i, "accuracy"),
        }
        for o in outcomes
        for asked in outcomes
        for i, half in enumerate(("train", "held"))
    ]


def _depth(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {"task": o.name, "layer": layer, "probe_before": before, "probe_after": after}
        for o in outcomes
        for layer, (before, after) in enumerate(zip(o.look_before.probes, o.look_after.probes, strict=True))
    ]


def _tasks(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [
        {
            "task": o.name,
            "confidence": o.before[o.name][0].confidence,
            "variability": o.look_before.variability,
            "accuracy": o.before[o.name][0].accuracy,
            "fr_train": o.ratio(o.task, 0),
            "fr_held": o.ratio(o.task, 1),
            "probe_ratio": o.probes[1] / o.probes[0],
        }
        for o in outcomes
    ]

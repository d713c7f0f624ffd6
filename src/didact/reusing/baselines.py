"""The universal baselines of reuse: what every method is compared with, given the same labels and steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from didact.core.errors import NotApplicable
from didact.core.method import Card
from didact.core.objective.models import head_name
from didact.core.registry import register
from didact.reusing.ensemble import EnsemblePredictor, Member
from didact.reusing.problem import Reuser
from didact.reusing.request import ModelRecord, Request, same_shape
from didact.reusing.result import ReuseResult
from didact.reusing.tuning import fine_tuned, train, with_head


@register
class Scratch(Reuser):
    """Reuse nothing: train a fresh network on the few labels, with the same number of steps as everybody.

    Cost: the budget's steps.
    """

    card = Card("scratch", "Training from scratch", kind="baseline", needs=("labelled", "recipe"))

    def apply(self, request: Request) -> ReuseResult:
        model = train(request.need_recipe().fresh(request.seed), request)
        return ReuseResult(module=model, cost={"training_steps": request.budget.steps, "bytes_sent": 0})


@register
class RandomSingle(Reuser):
    """Take a model of the hub at random and fine-tune it on the labels. Cost: the budget's steps."""

    card = Card("random-single", "A random model of the hub", kind="baseline", needs=("models", "labelled", "classes"))

    def apply(self, request: Request) -> ReuseResult:
        records = usable(request)
        chosen = records[int(np.random.default_rng(request.seed).integers(len(records)))]
        return single(chosen, request)


@register
class BestSingle(Reuser):
    """Try them all: fine-tune every model on half of the labels, score it on the other half, take the best.

    The winner is fine-tuned again on all labels. What a perfect ranking would reach is the metric `best_single`.
    Cost: half the budget's steps a model, and the budget's steps for the winner.
    """

    card = Card("best-single", "The best single model, by trying all", kind="baseline",
                needs=("models", "labelled", "classes"))  # fmt: skip

    def apply(self, request: Request) -> ReuseResult:
        data, objective = request.need_labelled(), request.task.objective
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(request.seed)).tolist()  # type: ignore[arg-type]
        fitting, judging = Subset(data, order[::2]), Subset(data, order[1::2] or order)
        trial = replace(request, task=replace(request.task, labelled=fitting))
        ranking = {
            record.id: objective.mean_score(fine_tuned(record, trial, request.budget.steps // 2), judging)
            for record in usable(request)[: request.budget.evaluations]
        }
        best = min(ranking, key=lambda id: (-ranking[id], id))
        answer = single(next(r for r in request.models if r.id == best), request)
        steps = request.budget.steps + len(ranking) * (request.budget.steps // 2)
        answer.ranking, answer.cost = ranking, {"training_steps": steps, "evaluations": len(ranking), "bytes_sent": 0}
        return answer


@register
class FineTuneBase(Reuser):
    """Fine-tune the common ancestor of the hub on the labels. Cost: the budget's steps."""

    card = Card("fine-tune-base", "Fine-tuning the base", kind="baseline", needs=("base", "labelled", "classes"))

    def apply(self, request: Request) -> ReuseResult:
        return single(request.need_base(), request)


@register
class UniformEnsemble(Reuser):
    """Average the probabilities of all models of the hub, class by class over those that know the class.

    Trains nothing and needs no label. Cost: one forward pass a model and sample when predicting.
    """

    card = Card("uniform-ensemble", "Uniform output ensemble", kind="baseline", needs=("models", "classes"))

    def apply(self, request: Request) -> ReuseResult:
        records = knowing(request)
        members = [Member(r.id, r.network(), r.classes) for r in records]
        return ReuseResult(
            predictor=EnsemblePredictor(members, request.task.classes),
            weights={r.id: 1 / len(records) for r in records},
            cost={"training_steps": 0, "bytes_sent": 0},
            provenance=provenance(records),
        )


@register
class UniformAverage(Reuser):
    """Average the weights of all models that share the base's architecture; the head's rows class by class.

    Trains nothing and needs no label. Works only where the models have a common ancestor. Cost: one addition of the
    weights a model.
    """

    card = Card("uniform-average", "Uniform weight average", kind="baseline", needs=("models", "base", "classes"))

    def apply(self, request: Request) -> ReuseResult:
        records = relatives(request)
        return ReuseResult(
            module=averaged(records, request.task.classes),
            weights={r.id: 1 / len(records) for r in records},
            cost={"training_steps": 0, "bytes_sent": 0},
            provenance=provenance(records),
        )


def single(record: ModelRecord, request: Request) -> ReuseResult:
    """One model, fine-tuned."""
    cost = {"training_steps": request.budget.steps, "evaluations": 1, "bytes_sent": 0}
    return ReuseResult(
        module=fine_tuned(record, request), weights={record.id: 1.0}, cost=cost, provenance=provenance([record])
    )


def usable(request: Request) -> tuple[ModelRecord, ...]:
    """The networks of the hub that take the task's inputs."""
    found = tuple(
        r for r in same_shape(request.need_models(), sample_shape(request)) if isinstance(r.load(), nn.Module)
    )
    if not found:
        raise NotApplicable("No network of the hub takes inputs of the task's shape.")
    return found


def knowing(request: Request) -> tuple[ModelRecord, ...]:
    """The usable models that know at least one class of the task."""
    found = tuple(r for r in usable(request) if set(r.classes) & set(request.task.classes))
    if not found:
        raise NotApplicable("No model of the hub knows any class of the task.")
    return found


def relatives(request: Request) -> tuple[ModelRecord, ...]:
    """The models that descend from the request's base and know a class of the task."""
    base = request.need_base()
    found = tuple(r for r in knowing(request) if r.base and r.base == base.digest)
    if not found:
        raise NotApplicable("No model of the hub that knows a class of the task descends from the base given.")
    return found


def sample_shape(request: Request) -> tuple[int, ...]:
    batch = next(iter(request.task.objective.loader(request.need_data(), 1)))
    inputs = request.task.objective.inputs(batch)
    return tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else ()


def averaged(records: Sequence[ModelRecord], classes: tuple[str, ...]) -> nn.Module:
    """Mean of the weights; of the head, each class's row over the models that know it (unknown classes: zero)."""
    first = records[0].network()
    made = with_head(first, records[0].classes, classes)
    head = head_name(first)
    states = [r.network().state_dict() for r in records]
    mean = {}
    for name, value in made.state_dict().items():
        if name.startswith(f"{head}."):
            mean[name] = _head_rows(name, value, states, records, classes)
        elif value.is_floating_point():
            mean[name] = torch.stack([state[name].float() for state in states]).mean(0).to(value.dtype)
        else:
            mean[name] = value
    made.load_state_dict(mean)
    return made.eval()


def _head_rows(
    name: str,
    like: torch.Tensor,
    states: Sequence[dict[str, torch.Tensor]],
    records: Sequence[ModelRecord],
    classes: tuple[str, ...],
) -> torch.Tensor:
    rows = torch.zeros_like(like)
    for place, label in enumerate(classes):
        found = [s[name][r.classes.index(label)] for s, r in zip(states, records, strict=True) if label in r.classes]
        if found:
            rows[place] = torch.stack(found).mean(0)
    return rows


def provenance(records: Sequence[ModelRecord]) -> dict[str, object]:
    return {
        "ids": [r.id for r in records],
        "digests": [r.digest for r in records],
        "licences": [r.licence for r in records if r.licence],
    }

"""DARE (Yu, Yu, Yu, Huang and Li, 2024): drop most of what fine-tuning changed, rescale the rest, merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from didact.core.claim import Claim
from didact.core.cost import note
from didact.core.errors import NotApplicable
from didact.core.method import Card, Choice, Paper, Range
from didact.core.registry import register
from didact.reusing.baselines import provenance
from didact.reusing.dare import merging
from didact.reusing.dare.claim import CLAIM
from didact.reusing.dare.dropping import Strategy, Target, dropping
from didact.reusing.dare.lineage import Lineage, filled, lineages
from didact.reusing.dare.statistics import expected_fisher, gram_matrices, turned_weights
from didact.reusing.deltas import (
    Change,
    Deltas,
    Merger,
    merge_checkpoints,
    recompute_statistics,
    weights_of,
    with_weights,
)
from didact.reusing.ensemble import EnsemblePredictor, Member
from didact.reusing.problem import Reuser
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult

MergeName = Literal["task-arithmetic", "average", "ties", "fisher", "regmean", "apart"]
SCALINGS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)  #: what scaling="auto" tries


@register
class DARE(Reuser):
    """Zero most of the difference between fine-tuned models and their base, rescale the rest, merge the models.

    Each number of a delta is dropped with probability `rate` and the others are divided by 1 - rate, so that every
    layer's output keeps its expectation. Sparse deltas are small to store (`merge="apart"`) and interfere less when
    several models become one. It works for the small deltas of ordinary fine-tuning; after long further training, or
    for a task far from the base's, deltas are large and high rates break the model: `diagnose` shows the curve.

    Nothing is trained. All parameters with a delta that no `exclude` pattern names are merged; an excluded one stays
    each model's own. A head whose classes differ between the models is merged row by row, class by class. Running
    statistics of batch normalisation are measured anew on the task's data. Models that do not descend from the base,
    or from one of `extras["bases"]`, are left out. Fisher and RegMean look at `extras["examples"]` (model id ->
    unlabelled data of that model's own task), or else at the task's data.

    Answers with one network, or, when the models keep heads or weights of their own, with an ensemble whose members
    carry the models' ids. `merge_checkpoints` does the same with folders on disk, shard by shard.

    Errors: a rate outside [0, 1], a base that is missing, no model of that base, names or shapes that differ, whole
    numbers among the chosen weights of a checkpoint.

    Cost: a few additions of the weights a model; Fisher adds a forward and backward pass for each example, RegMean a
    forward pass and a linear system of the input width for each layer. Memory: one tensor of each model beyond the
    models themselves.

    Reference: Yu, Yu, Yu, Huang and Li, "Language Models are Super Mario: Absorbing Abilities from Homologous Models as
    a Free Lunch", ICML 2024, arXiv 2311.03099.
    """

    card: ClassVar[Card] = Card(
        "dare",
        "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
        paper=Paper("Yu, Yu, Yu, Huang and Li", 2024, arxiv="2311.03099", venue="ICML"),
        code="yule-BUAA/MergeLM",
        needs=("models", "base"),
        tunes={
            "rate": Choice((0.1, 0.3, 0.5, 0.7, 0.9)),
            "scaling": Range(0.1, 1.0),
            "trim": Choice((0.7, 0.8, 0.9)),
        },
    )
    rate: float = Field(0.9, ge=0, le=1)  #: share of each delta that is dropped
    rescale: bool | None = None  #: divide the rest by 1 - rate; by default what was dropped at random is, not by size
    strategy: Strategy = "random"  #: drop at random, or the smallest magnitudes of each tensor
    target: Target = "delta"  #: drop the difference to the base, or the fine-tuned weights themselves
    merge: MergeName = "task-arithmetic"  #: how the deltas become one; "apart" keeps the models apart
    scaling: PositiveFloat | Literal["auto"] = 1.0  #: factor of the merged delta; "auto" tries six on the labels
    trim: float = Field(0.8, ge=0, lt=1)  #: share of each model's numbers, the smallest, that TIES leaves out
    off_diagonal: float = Field(0.9, ge=0, le=1)  #: factor of RegMean's Gram matrices off the diagonal
    examples: PositiveInt = 256  #: samples a model that Fisher and RegMean look at
    include: tuple[str, ...] = (".*",)  #: patterns of the names of parameters that take part
    exclude: tuple[str, ...] = (".*classifier.*",)  #: patterns of those that stay each model's own

    claim: ClassVar[Claim | None] = CLAIM

    def apply(self, request: Request) -> ReuseResult:
        groups = lineages(request)
        answers = [self._answer(group, request) for group in groups]
        members = [member for answer in answers for member in answer]
        records = [record for group in groups for record in group.records]
        weights = {record.id: 1 / len(group.records) for group in groups for record in group.records}
        tried = len(SCALINGS) if self.scaling == "auto" and self._scales else 0
        stored = sum(
            _stored(group, answer, self.merge == "apart") for group, answer in zip(groups, answers, strict=True)
        )
        cost = {"training_steps": 0, "evaluations": tried, "bytes_sent": 0, "stored_parameters": stored}
        facts = {**provenance(records), "settings": self.settings}
        if len({id(member.module) for member in members}) == 1:
            return ReuseResult(module=members[0].module, weights=weights, cost=cost, provenance=facts)
        together = EnsemblePredictor(members, request.task.classes or members[0].classes)
        return ReuseResult(predictor=together, weights=weights, cost=cost, provenance=facts)

    def merge_checkpoints(
        self,
        base_dir: str | Path,
        model_dirs: Sequence[str | Path],
        out_dir: str | Path,
        *,
        seed: int = 0,
        base_digest: str | None = None,
    ) -> Path:
        """Merge checkpoints in the Hugging Face layout (safetensors, in shards or not) into a new folder.

        What is dropped depends on seed, folder number and parameter name, not on how files are sharded. What `exclude`
        names is the base's, or, of a single model, its own. Memory: about one shard. See `deltas.merge_checkpoints`.
        """
        if self.merge in ("fisher", "regmean", "apart") or self.scaling == "auto":
            raise NotApplicable(
                "Checkpoints are merged by task-arithmetic, average or ties with a scaling that is given, but the "
                f"settings are merge={self.merge!r} and scaling={self.scaling!r}, which need the models in memory."
            )
        return merge_checkpoints(
            base_dir,
            model_dirs,
            out_dir,
            merging.plain(self.merge, self.trim, self.scaling),
            include=self.include,
            exclude=self.exclude,
            changes=[self._change(seed, str(i)) for i in range(len(model_dirs))],
            rest=0 if len(model_dirs) == 1 else None,
            base_digest=base_digest,
            about={"method": self.card.slug, "settings": self.settings, "seed": seed},
        )

    def _answer(self, group: Lineage, request: Request) -> list[Member]:
        """A network for each model of a lineage: the thinned ones, or the merged one."""
        sources = [
            Deltas(
                group.base,
                weights_of(network),
                include=self.include,
                exclude=group.left_out(self.exclude),
                change=self._change(request.seed, record.id),
            )
            for record, network in zip(group.records, group.networks, strict=True)
        ]
        if self.merge == "apart":
            made = self._thinned(group, sources)
        else:
            made = self._merged(group, sources, request)
        if request.task.data is not None:
            for network in dict.fromkeys(made):
                recompute_statistics(network, request.task.data, request.task.objective)
        by_class = self.merge != "apart" and group.merges_head(self.include, self.exclude)
        return group.members(made, by_class)

    def _change(self, seed: int, key: str) -> Change:
        rescale = self.rescale if self.rescale is not None else self.strategy == "random"
        return dropping(self.rate, strategy=self.strategy, rescale=rescale, target=self.target, seed=seed, key=key)

    def _thinned(self, group: Lineage, sources: Sequence[Deltas]) -> list[nn.Module]:
        """The models with most of their deltas dropped, each for itself."""
        made = []
        for network, source in zip(group.networks, sources, strict=True):
            weights = {name: group.base[name].float() + delta for name, delta in source.items()}
            made.append(with_weights(network, weights).eval())
        return made

    def _merged(self, group: Lineage, sources: Sequence[Deltas], request: Request) -> list[nn.Module]:
        merge = self._merger(group, sources, request)(sources)
        delta = {name: merge(name, [source[name] for source in sources]) for name in sources[0]}
        shells = group.shells(self.include, self.exclude)

        def scaled(factor: float) -> list[nn.Module]:
            return filled(shells, {name: group.base[name].float() + factor * d for name, d in delta.items()})

        if not self._scales:
            return scaled(1.0)
        if self.scaling != "auto":
            return scaled(self.scaling)
        data, score = request.need_labelled(), request.task.objective.mean_score
        found = {factor: sum(score(m, data) for m in dict.fromkeys(scaled(factor))) for factor in SCALINGS}
        best = max(SCALINGS, key=lambda factor: found[factor])
        note(scaling=best)
        return scaled(best)

    def _merger(self, group: Lineage, sources: Sequence[Deltas], request: Request) -> Merger:
        if self.merge not in ("fisher", "regmean"):
            return merging.plain(self.merge, self.trim)
        models, objective = self._thinned(group, sources), request.task.objective
        own = request.extras.get("examples", {})
        data = [own[r.id] if r.id in own else request.need_data() for r in group.records]
        pairs = list(zip(models, data, strict=True))
        if self.merge == "fisher":
            return merging.fisher_weighted([expected_fisher(m, d, objective, self.examples) for m, d in pairs])
        grams = [gram_matrices(m, d, objective, self.examples) for m, d in pairs]
        return merging.regmean(grams, self.off_diagonal, turned_weights(models[0]))

    @property
    def _scales(self) -> bool:
        return self.merge in ("task-arithmetic", "ties")


def _stored(group: Lineage, members: Sequence[Member], sparse: bool) -> int:
    """Numbers to store: every network once; or the base, and what of each network differs from it."""
    networks = [weights_of(network) for network in dict.fromkeys(member.module for member in members)]
    if not sparse:
        return sum(value.numel() for network in networks for value in network.values())
    size = sum(value.numel() for value in group.base.values())
    for name, value in ((name, value) for network in networks for name, value in network.items()):
        below = group.base.get(name)
        same_shape = below is not None and below.shape == value.shape
        size += int(torch.count_nonzero(value - below)) if same_shape and below is not None else value.numel()
    return size

"""The prepared system: shards, slices, the stages trained on them, and what is left of them after deletions."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import fit
from didact.core.objective import Objective, Regression, head_name
from didact.core.recipe import seeded
from didact.forgetting.s3t.adapters import Averaged, SlicedEnsemble, State, layer_groups
from didact.forgetting.s3t.orders import Order, deal, slice_orders, surviving
from didact.parts.datasets import in_memory

if TYPE_CHECKING:
    from didact.forgetting.s3t.method import S3T


@dataclass(frozen=True)
class Stage:
    """What one stage of training left: its group of adapters, map by map, and the head as it was then."""

    adapters: dict[str, State]
    head: State


@dataclass(frozen=True)
class Key:
    """Which stage: the slices that this model of the shard has seen so far, in order, and how often the shard was
    retrained before."""

    shard: int
    generation: int
    seen: Order


class ShardedSystem:
    """A model whose training data can be deleted exactly, at no training cost as long as some order survives.

    Made by `S3T.prepare`. Each shard has several models over the frozen backbone; each has seen the slices of the
    shard in another order and can be cut back to the stage before a deleted slice. Serves the longest that is left of
    each shard; `model` averages them.

    What is served depends on the records that were deleted in no way but their number and places: places are drawn
    without looking at the records, every stage has a seed of its own and a fixed number of steps, and a stage that has
    seen a deleted slice is dropped with its head. This holds for requests made without looking at what is served.
    """

    def __init__(
        self,
        backbone: nn.Module,
        private: Dataset[Any],
        objective: Objective,
        scheme: S3T,
        seed: int,
        slice_of: Sequence[int] | Tensor | None = None,
    ) -> None:
        self.backbone, self.private, self.objective = backbone.eval().requires_grad_(False), private, objective
        self.scheme, self.seed = scheme, seed % 2**32
        self.groups, self.head = layer_groups(backbone, scheme.slices, scheme.targets), head_name(backbone)
        #: ids of the records, by shard and slice
        self.slices = deal(len(private), scheme.shards, scheme.slices, self.seed, slice_of)  # type: ignore[arg-type]
        self._where = {
            id_: (shard, part)
            for shard, parts in enumerate(self.slices)
            for part, ids in enumerate(parts)
            for id_ in ids.tolist()
        }
        self._stages: dict[Key, Stage] = {}
        self._deleted: set[int] = set()  # ids
        self._lost: list[set[int]] = [set() for _ in range(scheme.shards)]  # slices hit since the shard was trained
        self._generation = [0] * scheme.shards
        self.steps = 0  #: optimiser steps made so far
        #: the slice orders of each shard's models
        self.orders: list[list[Order]] = [[] for _ in range(scheme.shards)]
        for shard in range(scheme.shards):
            self._train_shard(shard, scheme.budget)

    # -- what users call -------------------------------------------------------------------------------------------

    def delete(self, ids: Iterable[int] | Tensor) -> list[int]:
        """Make the system forget these records, without any training; returns the shards that are dead now.

        Stages that have seen a record's slice are dropped for good. Records deleted before are passed over.

        Raises:
            BadInput: ids that are not the position of a private record. Nothing is deleted then.
        """
        given = ids.tolist() if isinstance(ids, Tensor) else list(ids)
        unknown = [id_ for id_ in given if id_ not in self._where]
        if unknown:
            raise BadInput(
                f"{len(unknown)} ids are not among the {len(self._where)} private records, the first of them "
                f"{unknown[0]!r}. Give positions in the private dataset, from 0."
            )
        wanted = [int(id_) for id_ in given]
        for id_ in wanted:
            if id_ not in self._deleted:
                shard, part = self._where[id_]
                self._lost[shard].add(part)
        self._deleted.update(wanted)
        self._stages = {key: stage for key, stage in self._stages.items() if not self._hit(key)}
        return self.dead

    def retrain(self, budget: int | None = None) -> list[int]:
        """Train the dead shards anew on the records that are left; returns those that now serve again.

        `budget` is the number of orders (default: the scheme's). A shard without a record left stays dead.
        """
        dead = self.dead
        for shard in dead:
            self._generation[shard] += 1
            self._lost[shard] = {part for part, ids in enumerate(self.slices[shard]) if not len(self._left(ids))}
            self._train_shard(shard, budget or self.scheme.budget)
        return [shard for shard in dead if shard not in self.dead]

    def fork(self) -> ShardedSystem:
        """An independent system with the same models: deletions from one do not touch the other."""
        twin = copy.copy(self)
        twin._stages, twin._deleted = dict(self._stages), set(self._deleted)
        twin._lost, twin._generation = [set(lost) for lost in self._lost], list(self._generation)
        twin.orders = list(self.orders)
        return twin

    @property
    def served(self) -> list[Order]:
        """For each shard the slices, in order, behind its answer: the longest surviving beginning of an order."""
        return [
            max((surviving(order, lost) for order in orders), key=len, default=())
            for orders, lost in zip(self.orders, self._lost, strict=True)
        ]

    @property
    def slices_used(self) -> list[int]:
        """For each shard how many slices stand behind its answer; 0: it is dead."""
        return [len(seen) for seen in self.served]

    @property
    def alive(self) -> list[int]:
        """For each shard how many of its models still serve."""
        return [
            sum(bool(surviving(order, lost)) for order in orders)
            for orders, lost in zip(self.orders, self._lost, strict=True)
        ]

    @property
    def dead(self) -> list[int]:
        """Shards that serve nothing; `retrain` revives them."""
        return [shard for shard, seen in enumerate(self.served) if not seen]

    @property
    def model(self) -> SlicedEnsemble:
        """What is served now, as a module of its own: the shards' averaged probabilities, as log-probabilities.

        Raises:
            NotApplicable: when every shard is dead.
        """
        living = [(shard, seen) for shard, seen in enumerate(self.served) if seen]
        if not living:
            raise NotApplicable("Every model of the system has seen deleted data, so none is left. Call retrain().")
        with seeded(self.seed):  # building draws numbers, which the caller's generator should not notice
            model = self._ensemble([len(seen) for _, seen in living])
        for slot, (shard, seen) in enumerate(living):
            self._load(model, slot, shard, seen)
        return model.eval()

    # -- training --------------------------------------------------------------------------------------------------

    def _train_shard(self, shard: int, budget: int) -> None:
        """All stages of all orders; orders that begin alike share their first stages."""
        usable = [part for part in range(self.scheme.slices) if part not in self._lost[shard]]
        self.orders[shard] = self._orders(shard, usable, min(budget, factorial(len(usable)))) if usable else []
        for order in self.orders[shard]:
            for length in range(1, len(order) + 1):
                key = Key(shard, self._generation[shard], order[:length])
                if key not in self._stages:
                    self._stages[key] = self._trained(key)

    def _orders(self, shard: int, usable: list[int], budget: int) -> list[Order]:
        """Orders of the slices that have a record left (all of them, but after deletions)."""
        prior = self.scheme.prior
        if prior is not None:
            total = sum(prior[part] for part in usable)
            prior = tuple(prior[part] / total if total else 1 / len(usable) for part in usable)
        places = slice_orders(len(usable), budget, self.scheme.order, prior, self._seed_of(shard, ()))
        return [tuple(usable[place] for place in order) for order in places]

    def _trained(self, key: Key) -> Stage:
        """Train group j and the head on the slices seen so far, over the earlier groups as they were left."""
        scheme, shard, stage = self.scheme, key.shard, len(key.seen) - 1
        seed = self._seed_of(shard, key.seen)
        with seeded(seed):  # of the new adapters, and of dropout
            model = self._ensemble([stage + 1])
            self._load(model, 0, shard, key.seen[:-1])
            model.requires_grad_(False)
            trained = [*model.adapters(0, stage).values(), model.head_of(0)]
            for module in trained:
                module.requires_grad_(True)
            log = fit(
                model,
                self._records(shard, key.seen if scheme.cumulative else key.seen[-1:]),
                self.objective,
                epochs=scheme.epochs,
                batch_size=scheme.batch_size,
                lr=scheme.lr,
                optimizer="adamw",
                schedule=scheme.schedule,
                seed=seed,
            )
        self.steps += log.steps
        adapters = {name: _state(module) for name, module in model.adapters(0, stage).items()}
        return Stage(adapters, _state(model.head_of(0)))

    def _records(self, shard: int, parts: Sequence[int]) -> Dataset[Any]:
        ids = [id_ for part in parts for id_ in self._left(self.slices[shard][part])]
        return in_memory(Subset(self.private, ids))

    def _ensemble(self, active: list[int]) -> SlicedEnsemble:
        scheme = self.scheme
        average: Averaged = "outputs" if isinstance(self.objective, Regression) else "probabilities"
        return SlicedEnsemble(
            copy.deepcopy(self.backbone), self.groups, self.head, active,
            scheme.rank, scheme.alpha, scheme.dropout, average,
        )  # fmt: skip

    def _load(self, model: SlicedEnsemble, slot: int, shard: int, seen: Order) -> None:
        """Put the first stages into a slot, each group from its own stage, and the head of the last of them."""
        for length in range(1, len(seen) + 1):
            stage = self._stages[Key(shard, self._generation[shard], seen[:length])]
            for name, module in model.adapters(slot, length - 1).items():
                module.load_state_dict(stage.adapters[name])
            model.head_of(slot).load_state_dict(stage.head)

    # -- bookkeeping -----------------------------------------------------------------------------------------------

    def _left(self, ids: Tensor) -> list[int]:
        return [id_ for id_ in ids.tolist() if id_ not in self._deleted]

    def _hit(self, key: Key) -> bool:
        return any(part in self._lost[key.shard] for part in key.seen)

    def _seed_of(self, shard: int, seen: Order) -> int:
        """A seed for each stage, decided by its place alone (with the length, as the seeding pads with zeros)."""
        words = [self.seed, 1, shard, self._generation[shard], len(seen), *seen]
        return int(np.random.SeedSequence(words).generate_state(1)[0])


def _state(module: nn.Module) -> State:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}

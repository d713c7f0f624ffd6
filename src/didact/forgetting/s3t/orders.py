"""Which record goes to which slice, the orders in which models see the slices, and how many requests they outlive."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from didact.core.errors import BadInput

Order = tuple[int, ...]
OrderKind = Literal["cyclic", "bms", "sampled", "random"]
Random = np.random.Generator

#: exponent of `score`: large, so that the first slices of an order decide
EXPONENT = 100.0


def slice_orders(
    slices: int, budget: int, kind: OrderKind = "cyclic", prior: Sequence[float] | None = None, seed: int = 0
) -> list[Order]:
    """`budget` different orders of the slices 0..`slices`-1 of one shard.

    Args:
        kind: "cyclic" rotates: as many different first slices as possible, then second slices, and so on.
            "bms" (bipartite maximum-score matching) grows all orders slice by slice, each step an assignment
            of slices to orders that maximises `score`. "sampled" draws slices that are rarely deleted
            first, each with probability in proportion to 1 - prior; "random" draws them uniformly.
        prior: probability that a deletion request falls on each slice; "bms" and "sampled" need it.
        seed: of the drawn orders.

    Raises:
        BadInput: more orders than there are, a prior that is none.
    """
    check_orders(slices, budget, kind, prior)
    if kind == "cyclic":
        return [rotated(slices, index) for index in range(budget)]
    if kind == "bms":
        return matched([float(p) for p in prior or ()], budget)
    weights = 1 - np.asarray(prior, float) if kind == "sampled" and prior is not None else np.ones(slices)
    return drawn(weights, budget, np.random.default_rng(seed))


def check_orders(slices: int, budget: int, kind: OrderKind, prior: Sequence[float] | None) -> None:
    if slices < 1 or not 1 <= budget <= math.factorial(slices):
        raise BadInput(
            f"{slices} slices can be ordered in {math.factorial(max(slices, 0))} ways, but a budget of {budget} orders "
            "was asked for. Lower the budget or make more slices."
        )
    if prior is None:
        if kind in ("bms", "sampled"):
            raise BadInput(f"order={kind!r} needs a prior: how probable a deletion is in each of the {slices} slices.")
        return
    values = np.asarray(prior, float)
    if values.shape != (slices,) or (values < 0).any() or abs(values.sum() - 1) > 1e-6:
        raise BadInput(
            f"The prior holds the probability of each of the {slices} slices, at least 0 and 1 together, but "
            f"{list(prior)} was given, which sums to {values.sum():g}."
        )


def deal(
    records: int, shards: int, slices: int, seed: int, slice_of: Sequence[int] | Tensor | None = None
) -> list[list[Tensor]]:
    """Ids of the records of each shard and slice, in ascending order: drawn from their positions alone.

    With `slice_of` the slices are given and only the shards are drawn.
    """
    random = np.random.default_rng([seed, 0])
    if slice_of is None:
        parts = np.array_split(random.permutation(records), shards * slices)
        places = [parts[shard * slices : (shard + 1) * slices] for shard in range(shards)]
    else:
        given = np.asarray(slice_of)
        if given.shape != (records,) or not np.isin(given, np.arange(slices)).all():
            raise BadInput(
                f"slice_of holds the slice, 0 to {slices - 1}, of each of the {records} private records, but "
                f"{len(given)} numbers from {given.min()} to {given.max()} were given."
            )
        cut = [np.array_split(random.permutation(np.flatnonzero(given == part)), shards) for part in range(slices)]
        places = [[cut[part][shard] for part in range(slices)] for shard in range(shards)]
    if any(len(ids) == 0 for shard in places for ids in shard):
        raise BadInput(
            f"{records} private records leave a slice empty: each of the {slices} slices of each of the {shards} "
            "shards needs one. Use fewer shards or slices."
        )
    return [[torch.from_numpy(np.sort(ids)) for ids in shard] for shard in places]


def score(prior: Sequence[float], t: float = EXPONENT) -> float:
    """Sum over n of n * (1 - c_n)^t, c_n the sum of the first n deletion probabilities, in the order's sequence.

    (1 - c_n)^t is the probability that none of t requests falls on the first n slices; the longer they are, the more
    they count.
    """
    reached = np.cumsum(np.asarray(prior, float))
    places = np.arange(1, len(reached) + 1)
    return float((places * np.clip(1 - reached, 0.0, 1.0) ** t).sum())


def surviving(order: Order, deleted: Collection[int]) -> Order:
    """The slices before the first deleted one: what a model of this order has left."""
    hit = next((place for place, part in enumerate(order) if part in deleted), len(order))
    return order[:hit]


def expected_deletions(shards: int, slices: int, budget: int) -> float:
    """Requests until every model of every shard is dead, the last one counted, on average.

    Requests fall uniformly, with repetition, on the shards * slices slices; orders are cyclic. An order dies when its
    first slice goes, so all `shards * min(budget, slices)` first slices must be hit: a coupon collector's wait,
    N * H_K with N slices, K first slices and H the harmonic number.
    """
    firsts = shards * min(budget, slices)
    return shards * slices * sum(1 / k for k in range(1, firsts + 1))


def simulated_deletions(orders: Sequence[Sequence[Order]], slices: int, runs: int, seed: int = 0) -> float:
    """As `expected_deletions`, for any orders (one list a shard): the mean over simulated runs."""
    random, total = np.random.default_rng(seed), 0
    for _ in range(runs):
        deleted: list[set[int]] = [set() for _ in orders]
        living = set(range(len(orders)))
        while living:
            shard, part = divmod(int(random.integers(len(orders) * slices)), slices)
            deleted[shard].add(part)
            if not any(surviving(order, deleted[shard]) for order in orders[shard]):
                living.discard(shard)
            total += 1
    return total / runs


def rotated(slices: int, index: int) -> Order:
    """The index-th order: rotate all slices, then all but the first, and so on, the digits of `index` saying how far.

    The digits have the bases L, L-1, ..., so the L! indices give L! orders, and any stretch of L has L first slices.
    """
    order = list(range(slices))
    for kept in range(slices - 1):
        index, turn = divmod(index, slices - kept)
        order[kept:] = order[kept + turn :] + order[kept : kept + turn]
    return tuple(order)


def matched(prior: Sequence[float], budget: int) -> list[Order]:
    """Orders by maximum-score matching, in rounds of one order a slice; later rounds prefer unused beginnings."""
    found: list[Order] = []
    used: Counter[Order] = Counter()  # how many orders begin like this
    while len(found) < budget:
        rows: list[Order] = [()] * min(len(prior), budget - len(found))
        for step in range(len(prior)):
            gains = np.array([_gains(row, prior, used) for row in rows])
            rows = [(*row, part) for row, part in zip(rows, _assigned(gains), strict=True)]
            if step == 0:
                rows.sort()  # the first slices are dealt to orders that are all alike
        _use(rows, used)
        found += rows
    return found


def drawn(weights: np.ndarray, budget: int, random: Random) -> list[Order]:
    """Different orders, each slice drawn in proportion to its weight among those left.

    As if orders were drawn one after another and repetitions thrown away, but without the waste: a beginning loses
    the probability of the orders already found.
    """
    found: list[Order] = []
    used: Counter[Order] = Counter()
    taken: Counter[Order] = Counter()  # probability of the found orders that begin like this
    for _ in range(budget):
        order: Order = ()
        while len(order) < len(weights):
            free = _free(order, len(weights), used)
            left = np.array([_probability((*order, j), weights) - taken[(*order, j)] for j in free]).clip(min=0)
            chances = left / left.sum() if left.sum() > 0 else None
            order = (*order, int(random.choice(free, p=chances)))
        _use([order], used)
        for n in range(1, len(order) + 1):
            taken[order[:n]] += _probability(order, weights)  # type: ignore[assignment]  # a Counter of floats
        found.append(order)
    return found


def _gains(row: Order, prior: Sequence[float], used: Counter[Order]) -> list[float]:
    """Score of the order with each slice appended; minus infinity where it may not be."""
    free = _free(row, len(prior), used)
    fewest = min(used[(*row, j)] for j in free)
    allowed = {j for j in free if used[(*row, j)] == fewest}
    return [score([prior[k] for k in (*row, j)]) if j in allowed else -math.inf for j in range(len(prior))]


def _assigned(gains: np.ndarray) -> list[int]:
    """A different slice for every row, of the largest total gain; where that is impossible each row's own best."""
    try:
        return [int(j) for j in linear_sum_assignment(gains, maximize=True)[1]]
    except ValueError:
        return [int(j) for j in gains.argmax(1)]


def _free(row: Order, slices: int, used: Counter[Order]) -> list[int]:
    """Slices that may follow a beginning: not in it, and leading to orders not all found yet."""
    ways = math.factorial(slices - len(row) - 1)
    return [j for j in range(slices) if j not in row and used[(*row, j)] < ways]


def _use(rows: Sequence[Order], used: Counter[Order]) -> None:
    used.update(row[:n] for row in rows for n in range(1, len(row) + 1))


def _probability(beginning: Order, weights: np.ndarray) -> float:
    """Of drawing these slices in this order, without replacement."""
    product, left = 1.0, float(weights.sum())
    for part in beginning:
        product *= weights[part] / left if left > 1e-12 else 1.0
        left -= weights[part]
    return product

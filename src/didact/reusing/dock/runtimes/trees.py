"""Trees inside scikit-learn estimators. The library walks them without bounds checks: each is followed here first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from didact.reusing.dock.errors import BadPackage


def check_trees(estimator: Any) -> None:
    """Follow every pointer of every tree once.

    Errors: BadPackage `bad-estimator` when one points outside its tree or to a feature that is not there.
    """
    for part in _parts(estimator):
        if type(part).__name__ == "KDTree":
            _check_neighbours(part)
            continue
        tree = getattr(part, "tree_", None)
        if tree is not None:
            _check_tree(tree, int(getattr(part, "n_features_in_", 0)))
        if hasattr(part, "estimators_") and hasattr(part, "n_features_in_"):
            _check_ensemble(part)


def _check_tree(tree: Any, features: int) -> None:
    count = tree.node_count
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    inner = left != -1
    own = np.arange(count)
    # Children come after their parent, so that no walk can go round in circles.
    sound = all(((child[inner] > own[inner]) & (child[inner] < count)).all() for child in (left, right))
    if not (count and sound and (feature[inner] >= 0).all() and (feature[inner] < features).all()):
        raise _outside()


def _check_ensemble(ensemble: Any) -> None:
    """An ensemble checks its inputs once and hands them to its trees unchecked."""
    subsets = getattr(ensemble, "estimators_features_", None)
    for i, part in enumerate(np.ravel(np.asarray(ensemble.estimators_, dtype=object))):
        seen = len(subsets[i]) if subsets is not None else ensemble.n_features_in_
        if hasattr(part, "tree_") and part.n_features_in_ != seen:
            raise BadPackage("bad-estimator", "A tree in the ensemble expects another number of features.")


def _check_neighbours(tree: Any) -> None:
    data, order, nodes, bounds, _, levels, count = tree.__getstate__()[:7]
    n, d = np.shape(data)
    first, last, leaf = nodes["idx_start"], nodes["idx_end"], nodes["is_leaf"].astype(bool)
    full = len(nodes) == count == 2**levels - 1 and np.shape(bounds) == (2, count, d)
    within = np.array_equal(np.sort(order), np.arange(n)) and (first >= 0).all() and (last <= n).all()
    # A node without children in the array must not be asked for them.
    if not (full and within and (first <= last).all() and leaf[len(leaf) // 2 :].all()):
        raise _outside()


def _outside() -> BadPackage:
    return BadPackage("bad-estimator", "A tree of the estimator points outside itself.")


def _parts(root: Any) -> Iterator[Any]:
    """Everything that an estimator is made of, by attributes and in containers."""
    waiting, seen = [root], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += list(part.values())
        elif isinstance(part, list | tuple | set):
            waiting += list(part)
        elif isinstance(part, np.ndarray):
            waiting += list(part.ravel()) if part.dtype == object else []
        elif type(part).__module__.startswith("sklearn."):
            yield part
            waiting += list(getattr(part, "__dict__", {}).values())

"""The dock's specifications and search beside the PyPI package `learnware` 0.4.0, on the same numbers.

python -m venv peer && peer/bin/pip install learnware==0.4.0.post1 torch
python benchmarks/dock_search.py --peer-python peer/bin/python

On digits (20 principal components): 15 learnwares of 4 classes and 12 users of 6. The package runs in a process of its
own environment and gets the same reduced sets. Compared are the reduction itself from the same start, every distance,
quadratic programmes, scores and both kinds of mixture. Last, the time of a whole search over 10,000 learnwares (100
points of 20 numbers each), as a ratio within one run; without `--peer-python` only didact's time is printed.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

LEARNWARES, USERS, POINTS, DIMENSION, GAMMA = 15, 12, 100, 20, 0.1


def main() -> None:
    options = parsed()
    if options.peer:
        as_peer(Path(options.peer[0]), Path(options.peer[1]), options.repeats)
        return
    given = digits_cases() | many(options.learnwares)
    ours = as_didact(given, options.repeats)
    print(f"search over {options.learnwares} learnwares: {ours['seconds']:.3f} s (median of {options.repeats})")
    if options.peer_python:
        theirs = in_peer(options, given)
        compare(ours, theirs)
        ratio = float(theirs["seconds"]) / ours["seconds"]
        print(f"the package takes {float(theirs['seconds']):.2f} s: {ratio:.0f} times as long")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the interpreter of an environment with learnware 0.4.0")
    parser.add_argument("--learnwares", type=int, default=10_000, help="in the timed search")
    parser.add_argument("--repeats", type=int, default=3, help="of the timed search")
    parser.add_argument("--peer", nargs=2, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def in_peer(options: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("in.npz", "out.npz")]
        np.savez(paths[0], **given)
        command = [options.peer_python, __file__, "--repeats", str(options.repeats), "--peer", *paths]
        # The package makes folders in the home of whoever imports it.
        subprocess.run(command, check=True, env={**os.environ, "HOME": folder}, stdout=subprocess.DEVNULL)
        return dict(np.load(paths[1]))


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    print(f"{'quantity':<48}{'numbers':>9}{'largest difference':>20}")
    for name in (key for key in ours if key != "seconds"):
        mine, other = np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64)
        gap = float(np.abs(mine - other).max()) if mine.shape == other.shape else float("nan")
        print(f"{name.replace('_', ' '):<48}{mine.size:>9}{gap:>20.2e}")


# -- the inputs -------------------------------------------------------------------------------------------------------


def digits_cases() -> dict[str, Any]:
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA

    from didact.reusing.dock.specification import RKME

    rng = np.random.default_rng(0)
    x, y = load_digits(return_X_y=True)
    x = PCA(DIMENSION, random_state=0).fit_transform(x / 16.0)
    shelf, asking = rng.permutation(len(x))[:900], rng.permutation(len(x))[900:]

    def reduced(pool: Any, count: int) -> tuple[Any, Any]:
        rows = x[pool][np.isin(y[pool], rng.choice(10, count, replace=False))]
        made = RKME(30, GAMMA).fit(rows)
        return made.z, made.beta

    learnwares, users = [[reduced(pool, n) for _ in range(m)] for pool, n, m in ((shelf, 4, 15), (asking, 6, 12))]
    start = x[:40] + 0.1 * rng.normal(size=(40, DIMENSION))
    return {
        "rows": x[:400],
        "start": start,
        "learnware_z": np.stack([z for z, _ in learnwares]),
        "learnware_beta": np.stack([beta for _, beta in learnwares]),
        "user_z": np.stack([z for z, _ in users]),
        "user_beta": np.stack([beta for _, beta in users]),
    }


def many(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(count, POINTS, DIMENSION)) * 0.7 + rng.normal(size=(count, 1, DIMENSION)) * 0.7
    return {"many_z": z, "asked_z": rng.normal(size=(POINTS, DIMENSION)) * 0.7}


def uniform(z: Any) -> Any:
    return np.full(len(z), 1.0 / len(z))


# -- didact -----------------------------------------------------------------------------------------------------------


def as_didact(given: dict[str, Any], repeats: int) -> dict[str, Any]:
    from didact.reusing.dock import RKME, Index, SemanticSpecification, Specification
    from didact.reusing.dock.search.mixture import auto, greedy
    from didact.reusing.dock.specification.kernel import gaussian
    from didact.reusing.dock.specification.simplex import simplex_value, simplex_weights

    def made(z: Any, beta: Any) -> Any:
        return Specification("rkme-table", GAMMA, "", z, beta)

    words = SemanticSpecification(
        name="digits",
        data="Table",
        task="Regression",
        library="PyTorch",
        input={"dimension": 20},
        output={"dimension": 1},
    )
    shelf = [made(z, beta) for z, beta in zip(given["learnware_z"], given["learnware_beta"], strict=True)]
    users = [made(z, beta) for z, beta in zip(given["user_z"], given["user_beta"], strict=True)]
    z, beta = RKME(40, GAMMA, released=True).refine(given["rows"], given["start"])
    kernel = gaussian(given["start"], given["start"], GAMMA)
    near = gaussian(given["start"], given["rows"], GAMMA).mean(1)
    weights = simplex_weights(kernel, near)
    among = np.array([[a.inner(b) for b in shelf] for a in shelf])
    toward = [np.array([user.inner(each) for each in shelf]) for user in users]
    index = Index()
    for i, specification in enumerate(shelf):
        index.add(str(i), words, specification)
    found = [index.search(None, user) for user in users]
    mixtures = [
        [how(among[np.ix_(near, near)], inner[near], user.self_product) for how in (greedy, auto)]
        for user, inner in zip(users, toward, strict=True)
        for near in [np.argsort([user.distance(each) for each in shelf], kind="stable")[:25]]
    ]
    return {
        "reduced_points_after_3_rounds": z,
        "reduced_weights_after_3_rounds": beta,
        "weights_of_a_quadratic_programme": weights,
        "value_of_a_quadratic_programme": simplex_value(kernel, near, weights),
        "distances_of_users_to_learnwares": [[user.distance(each) for each in shelf] for user in users],
        "singles_found_and_their_scores": padded([[(int(h.id), h.score) for h in each.single] for each in found]),
        "scores_of_mixtures": [-1.0 if each.mixture is None else each.mixture.score for each in found],
        "greedy_mixtures,_members_and_weights": padded([pairs(*each[0][:2]) for each in mixtures]),
        "greedy_mixtures,_distances": [each[0][2] for each in mixtures],
        "auto_mixtures,_members_and_weights": padded([pairs(*each[1][:2]) for each in mixtures]),
        "auto_mixtures,_distances": [each[1][2] for each in mixtures],
        "seconds": timed_didact(given, words, made, repeats),
    }


def timed_didact(given: dict[str, Any], words: Any, made: Any, repeats: int) -> float:
    from didact.reusing.dock import Index

    index = Index()
    for i, z in enumerate(given["many_z"]):
        index.add(str(i), words, made(z, uniform(z)))
    asked = made(given["asked_z"], uniform(given["asked_z"]))
    return median_seconds(lambda: index.search(None, asked), repeats)


# -- the package, in its own process ----------------------------------------------------------------------------------


def as_peer(inputs: Path, outputs: Path, repeats: int) -> None:
    import torch
    from learnware.learnware import Learnware
    from learnware.market.base import BaseUserInfo
    from learnware.market.easy.searcher import EasyStatSearcher
    from learnware.specification import RKMETableSpecification, Specification, rkme_solve_qp
    from learnware.specification.regular.table.rkme import torch_rbf_kernel

    logging.disable(logging.INFO)
    given = dict(np.load(inputs))
    kind = "RKMETableSpecification"

    def made(z: Any, beta: Any) -> Any:
        specification = RKMETableSpecification(gamma=GAMMA, cuda_idx=-1)
        specification.z, specification.beta = torch.from_numpy(z), torch.from_numpy(beta)
        specification.num_points = len(given["rows"])
        return specification

    def learnware(i: int, specification: Any) -> Any:
        return Learnware(str(i), None, Specification(None, {kind: specification}), "")

    searcher = EasyStatSearcher(None)
    searcher.stat_spec_type = kind
    shelf = [made(z, beta) for z, beta in zip(given["learnware_z"], given["learnware_beta"], strict=True)]
    users = [made(z, beta) for z, beta in zip(given["user_z"], given["user_beta"], strict=True)]
    shelved = [learnware(i, specification) for i, specification in enumerate(shelf)]
    reduced = made(given["start"], np.empty(0))
    reduced._update_beta(given["rows"])
    for _ in range(3):
        reduced._update_z(None, given["rows"], 0.1)
        reduced._update_beta(given["rows"])
    start, rows = torch.from_numpy(given["start"]), torch.from_numpy(given["rows"])
    weights, value = rkme_solve_qp(torch_rbf_kernel(start, start, GAMMA), torch_rbf_kernel(start, rows, GAMMA).mean(1))
    found = [searcher(shelved, BaseUserInfo(stat_info={kind: user})) for user in users]
    nearest = [searcher._search_by_rkme_spec_single(shelved, user)[1] for user in users]
    greedy = [searcher._search_by_rkme_spec_mixture_greedy(n, u, 5) for n, u in zip(nearest, users, strict=True)]
    auto = [searcher._search_by_rkme_spec_mixture_auto(n, u, 5) for n, u in zip(nearest, users, strict=True)]

    def members(mixtures: Any) -> Any:
        places = [[n.index(each) for each in m[2]] for n, m in zip(nearest, mixtures, strict=True)]
        return padded([pairs(place, m[1]) for place, m in zip(places, mixtures, strict=True)])

    many_learnwares = [learnware(i, made(z, uniform(z))) for i, z in enumerate(given["many_z"])]
    asked = BaseUserInfo(stat_info={kind: made(given["asked_z"], uniform(given["asked_z"]))})
    mixed = [each.get_multiple_results() for each in found]
    np.savez(
        outputs,
        **{
            "reduced_points_after_3_rounds": reduced.get_z(),
            "reduced_weights_after_3_rounds": reduced.get_beta(),
            "weights_of_a_quadratic_programme": weights.numpy(),
            "value_of_a_quadratic_programme": value,
            "distances_of_users_to_learnwares": [[each.dist(user) for each in shelf] for user in users],
            "singles_found_and_their_scores": padded(
                [[(int(h.learnware.id), h.score) for h in each.get_single_results()] for each in found]
            ),
            "scores_of_mixtures": [each[0].score if each else -1.0 for each in mixed],
            "greedy_mixtures,_members_and_weights": members(greedy),
            "greedy_mixtures,_distances": [each[0] for each in greedy],
            "auto_mixtures,_members_and_weights": members(auto),
            "auto_mixtures,_distances": [each[0] for each in auto],
            "seconds": median_seconds(lambda: searcher(many_learnwares, asked), repeats),
        },
    )


# -- shared -----------------------------------------------------------------------------------------------------------


def pairs(members: Any, weights: Any) -> list[tuple[float, float]]:
    """(place among the nearest, weight) in the order of places: both sides may choose in another order."""
    return sorted((float(member), float(weight)) for member, weight in zip(members, weights, strict=True))


def padded(rows: list[Any]) -> Any:
    filled = np.full((len(rows), 2 * LEARNWARES), -1.0)
    for i, row in enumerate(rows):
        flat = np.ravel(row)
        filled[i, : len(flat)] = flat
    return filled


def median_seconds(call: Any, repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


if __name__ == "__main__":
    main()

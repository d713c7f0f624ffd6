"""Side by side: transferability scores and tokenizer transfer against their equations, written anew in plain numpy.

python benchmarks/reusing_peers.py

The scores are computed on the features of one network of the transfer hub (200 pictures, 64 dimensions). LogME's
evidence is also found by a direct search over both precisions with the full N x N covariance, the k-th neighbours of
TMI by all pairwise distances. Fast vocabulary transfer is compared with loops over the spellings. Last, wall times as
ratios within one run.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma

from didact.data.docstrings import docstrings
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer
from didact.reusing.features import read, targets
from didact.reusing.request import Task
from didact.reusing.tmi import GBC, LEEP, NCE, TMI, HScore, LogME, transfer_hub
from didact.reusing.zett import VocabularyTransfer, unigram_tokenizer
from didact.reusing.zett.bytelevel import BYTES


def main() -> None:
    torch.set_num_threads(1)
    features, probabilities, labels = measured()
    pairs: list[tuple[str, Callable[[], float], Callable[[], float]]] = [
        ("LogME", lambda: LogME()(features, labels), lambda: plain_logme(features, labels)),
        ("LEEP", lambda: LEEP()(probabilities, labels), lambda: plain_leep(probabilities, labels)),
        ("NCE", lambda: NCE()(probabilities, labels), lambda: plain_nce(probabilities, labels)),
        ("H-score", lambda: HScore()(features, labels), lambda: plain_h_score(features, labels)),
        ("GBC, diagonal", lambda: GBC(covariance="diagonal")(features, labels), lambda: plain_gbc(features, labels)),
        ("TMI, rms", lambda: TMI(normalise="rms")(features, labels), lambda: plain_tmi(features, labels)),
    ]
    print("score              ours        plain   difference   plain time / ours")
    for name, ours, plain in pairs:
        ratio = seconds(plain) / seconds(ours)
        print(f"{name:<14}{ours():12.6g}{plain():13.6g}{abs(ours() - plain()):13.2e}{ratio:16.1f}")
    transfer_of_vocabulary()


def measured() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, source-class probabilities and labels of one network of the hub."""
    given = transfer_hub(0).given
    data, objective = given.need_labelled(), given.task.objective
    seen = read(given.models[0].network(), data, objective)
    outputs = seen.outputs.double().softmax(1).numpy()
    return seen.features[None].double().numpy(), outputs, targets(data, objective).numpy()


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def plain_logme(f: np.ndarray, y: np.ndarray) -> float:
    n = len(f)
    gram = f @ f.T
    values, vectors = np.linalg.eigh(gram)
    total = 0.0
    for c in np.unique(y):
        turned = (vectors.T @ (y == c).astype(float)) ** 2

        def minus(logs: np.ndarray, turned: np.ndarray = turned) -> float:
            variance = np.maximum(values, 0) * math.exp(-logs[0]) + math.exp(-logs[1])
            return 0.5 * float((np.log(2 * math.pi * variance) + turned / variance).sum())

        starts = ((0.0, 0.0), (2.0, 4.0), (4.0, 2.0))
        options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000}
        total -= min(minimize(minus, s, method="Nelder-Mead", options=options).fun for s in starts) / n
    return total / len(np.unique(y))


def plain_leep(p: np.ndarray, y: np.ndarray) -> float:
    n, sources = p.shape
    total = 0.0
    for i in range(n):
        inner = 0.0
        for z in range(sources):
            inner += p[i, z] * p[y == y[i], z].sum() / p[:, z].sum()
        total += math.log(inner)
    return total / n


def plain_nce(p: np.ndarray, y: np.ndarray) -> float:
    z = p.argmax(1)
    total = 0.0
    for i in range(len(y)):
        same = z == z[i]
        total += math.log((y[same] == y[i]).mean())
    return total / len(y)


def plain_h_score(f: np.ndarray, y: np.ndarray) -> float:
    centred = f - f.mean(0)
    kept = centred[:, centred.std(0) > 0]
    means = np.stack([kept[y == c].mean(0) for c in y])
    return float(np.trace(np.linalg.lstsq(kept.T @ kept, means.T @ means, rcond=1e-10)[0]))


def plain_gbc(f: np.ndarray, y: np.ndarray) -> float:
    z = f - f.mean(0)
    z = z @ np.linalg.eigh(z.T @ z)[1][:, ::-1][:, :64]
    floor = 1e-8 * z.var(0).mean()
    total = 0.0
    for a in np.unique(y):
        for b in np.unique(y):
            if a == b:
                continue
            va, vb = (np.maximum(z[y == c].var(0), floor) for c in (a, b))
            middle = (va + vb) / 2
            gap = z[y == a].mean(0) - z[y == b].mean(0)
            distance = 0.125 * (gap**2 / middle).sum() + 0.5 * np.log(middle / np.sqrt(va * vb)).sum()
            total -= math.exp(-distance)
    return total


def plain_tmi(f: np.ndarray, y: np.ndarray, k: int = 3) -> float:
    z = f / math.sqrt(f.var(0).sum())
    n, d = z.shape
    found = []
    for c in np.unique(y):
        own = z[y == c]
        distances = np.sort(np.abs(own[:, None] - own[None]).max(-1), axis=1)[:, k]
        entropy = digamma(len(own)) - digamma(k) + d * np.log(2 * np.maximum(distances, 1e-4)).mean()
        found.append(len(own) / n * entropy)
    return float(np.mean(found))


def transfer_of_vocabulary() -> None:
    texts = [item.text[:300] for item in docstrings(limit=300, seed=0)]
    source, target = bpe_tokenizer(texts, 400), unigram_tokenizer(texts, 400)
    torch.manual_seed(0)
    model = gpt_tiny(len(source))
    table = model.get_input_embeddings().weight.detach()
    extras = {"source_tokenizer": source, "texts": texts}
    made = VocabularyTransfer().reuse([model], Task(wants={"tokenizer": target}), extras=extras).module
    assert made is not None
    rows = made.get_input_embeddings().weight.detach()  # type: ignore[operator,union-attr]
    worst = 0.0
    for token, i in target.get_vocab().items():
        letters = i >= 4 and all(letter in BYTES for letter in token)  # the first four are special
        ids = [t.id for t in source.backend_tokenizer.model.tokenize(token)] if letters else [i]
        worst = max(worst, float((rows[i] - table[ids].mean(0)).abs().max()))
    print(f"FVT, largest difference of a row to the mean of its spelling: {worst:.1e}")


if __name__ == "__main__":
    main()

"""Requests that come one after another: the answer to each is the model of the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.errors import BadInput
from didact.core.registry import problem
from didact.data.text import has_texts, texts_of
from didact.forgetting.language.bios import bios_people
from didact.forgetting.problem import Unlearner, UnlearningProblem
from didact.forgetting.problems import digits_random
from didact.forgetting.request import Request


def successively(method: Unlearner, request: Request, parts: int) -> list[nn.Module]:
    """The models after each of `parts` requests that together make the forget set.

    Texts about one subject stay together. What is not yet to be forgotten counts as retained until its turn comes;
    what was forgotten is never shown again.

    Raises:
        BadInput: more parts than subjects or samples.
    """
    chunks = split(request, parts)
    models: list[nn.Module] = []
    current = request
    for i, chunk in enumerate(chunks):
        later = [*([request.retain] if request.retain is not None else []), *chunks[i + 1 :]]
        current = replace(current, forget=chunk, retain=_joined(later) if request.retain is not None else None)
        model = method.solve(current)
        models.append(model)
        current = replace(current, model=model.requires_grad_(True))
    return models


def split(request: Request, parts: int) -> list[Dataset[Any]]:
    """The forget set in `parts` of nearly equal size, in an order drawn by the request's seed."""
    size = len(request.forget)  # type: ignore[arg-type]
    if has_texts(request.forget):
        names = [item.subject or item.prompt for item in texts_of(request.forget).items]
    else:
        names = [str(i) for i in range(size)]
    subjects = sorted(set(names))
    if not 1 <= parts <= len(subjects):
        raise BadInput(f"{len(subjects)} subjects cannot be split into {parts} requests. Ask for fewer.")
    order = torch.randperm(len(subjects), generator=torch.Generator().manual_seed(request.seed)).tolist()
    turn = {subjects[place]: i * parts // len(subjects) for i, place in enumerate(order)}
    rows = [[i for i, name in enumerate(names) if turn[name] == part] for part in range(parts)]
    return [_rows(request.forget, chosen) for chosen in rows]


@dataclass
class SequentialProblem(UnlearningProblem):
    """A problem whose forget set arrives in several requests; scored after the last, and followed through all."""

    whole: UnlearningProblem | None = None

    def score(self, answer: nn.Module) -> dict[str, float]:
        whole = self.whole
        assert whole is not None
        found = whole.score(answer)
        chunks = split(replace(self.given, parts=1), self.given.parts)
        history: Sequence[nn.Module] = getattr(answer, "history", ())
        for i, model in enumerate(history, 1):
            gone = _joined(chunks[:i])
            found[f"test_after_{i:02}"] = whole.utility(model)
            found[f"forget_after_{i:02}"] = whole.mean_score(model, gone)
        return found


@problem("bios-sequential", family="forgetting")
def bios_sequential(seed: int = 0, *, requests: int = 10, forget: int = 10, people: int = 60) -> SequentialProblem:
    """Ten people ask, one after another, to be forgotten by a small language model of 60."""
    return _sequential(bios_people(seed, people=people, forget=forget), requests)


@problem("digits-sequential", family="forgetting")
def digits_sequential(
    seed: int = 0, *, requests: int = 10, share: float = 0.1, noise: float = 0.2
) -> SequentialProblem:
    """A random tenth of the digits is to be forgotten in ten requests; a fifth of all labels is wrong, so that there
    is something to remember."""
    return _sequential(digits_random(seed, share=share, noise=noise), requests)


def _sequential(whole: UnlearningProblem, requests: int) -> SequentialProblem:
    return SequentialProblem(
        replace(whole.given, parts=requests),
        whole.reveal,
        seed=whole.seed,
        about={**whole.about, "requests": requests},
        validation=whole.validation,
        validation_holdout=whole.validation_holdout,
        whole=whole,
    )


def _rows(dataset: Dataset[Any], chosen: list[int]) -> Dataset[Any]:
    return texts_of(dataset).rows(chosen) if has_texts(dataset) else Subset(dataset, chosen)


def _joined(parts: Sequence[Dataset[Any]]) -> Dataset[Any]:
    if all(has_texts(part) for part in parts):
        return texts_of(ConcatDataset(list(parts)))
    return ConcatDataset(list(parts))

"""The corruptions: what is done to the embeddings of a flagged prompt.

Each takes the embeddings (m, d) of the m tokens to corrupt and returns others of that shape; the input is not changed.
`dims` is how many of the d numbers are touched, `strength` the spread of the noise or the constant, a number or a
(dims,) tensor. "first_n" touches the first ones, "rand_n" a random choice, the same for all tokens, "top_k" and
"least_k" those of each token that are largest (in size where a sign plays no role) or smallest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Generator, Tensor

Strength = float | Tensor
Corrupt = Callable[[Tensor, int, Strength, Generator], Tensor]
Name = Literal[
    "rand_noise_first_n",
    "rand_noise_rand_n",
    "rand_noise_top_k",
    "set_rand_noise_first_n",
    "zero_out_first_n",
    "zero_out_top_k",
    "flip_sign_first_n",
    "flip_sign_top_k",
    "add_value_first_n",
    "sub_value_first_n",
    "add_value_least_k",
    "sub_value_top_k",
    "shuffle",
    "reverse_order",
]


def corrupted(rows: Tensor, name: Name, dims: int, strength: Strength, generator: Generator) -> Tensor:
    """(m, d) corrupted embeddings; the generator decides everything random, so equal states give equal noise."""
    return CORRUPTIONS[name](rows, dims, strength, generator)


def _noise(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
    """(m, dims) of spread `strength`: drawn at spread one and scaled, so that strengths differ in nothing else."""
    drawn = torch.randn(len(rows), dims, generator=generator).to(rows)
    return drawn * (strength.to(rows) if isinstance(strength, Tensor) else strength)


def _constant(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
    return torch.ones(len(rows), dims).to(rows) * (strength.to(rows) if isinstance(strength, Tensor) else strength)


def _first(rows: Tensor, dims: int, generator: Generator) -> Tensor:
    return torch.arange(dims, device=rows.device).expand(len(rows), dims)


def _random(rows: Tensor, dims: int, generator: Generator) -> Tensor:
    chosen = torch.randperm(rows.shape[1], generator=generator)[:dims]
    return chosen.to(rows.device).expand(len(rows), dims)


def _top(rows: Tensor, dims: int, generator: Generator) -> Tensor:
    return rows.abs().topk(dims, 1).indices


def _largest(rows: Tensor, dims: int, generator: Generator) -> Tensor:
    return rows.topk(dims, 1).indices


def _smallest(rows: Tensor, dims: int, generator: Generator) -> Tensor:
    return rows.topk(dims, 1, largest=False).indices


def _adding(amount: Callable[..., Tensor], place: Callable[..., Tensor], sign: float = 1.0) -> Corrupt:
    def corrupt(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
        index = place(rows, dims, generator)
        return rows.scatter_add(1, index, sign * amount(rows, dims, strength, generator))

    return corrupt


def _putting(value: Callable[..., Tensor], place: Callable[..., Tensor]) -> Corrupt:
    def corrupt(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
        index = place(rows, dims, generator)
        return rows.scatter(1, index, value(rows, dims, strength, generator))

    return corrupt


def _zero(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
    return torch.zeros(len(rows), dims).to(rows)


def _flipping(place: Callable[..., Tensor]) -> Corrupt:
    def corrupt(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
        index = place(rows, dims, generator)
        return rows.scatter(1, index, -rows.gather(1, index))

    return corrupt


def _shuffle(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator).to(rows.device)]


def _reverse(rows: Tensor, dims: int, strength: Strength, generator: Generator) -> Tensor:
    return rows.flip(0)


CORRUPTIONS: dict[str, Corrupt] = {
    "rand_noise_first_n": _adding(_noise, _first),
    "rand_noise_rand_n": _adding(_noise, _random),
    "rand_noise_top_k": _adding(_noise, _top),
    "set_rand_noise_first_n": _putting(_noise, _first),
    "zero_out_first_n": _putting(_zero, _first),
    "zero_out_top_k": _putting(_zero, _top),
    "flip_sign_first_n": _flipping(_first),
    "flip_sign_top_k": _flipping(_top),
    "add_value_first_n": _adding(_constant, _first),
    "sub_value_first_n": _adding(_constant, _first, -1.0),
    "add_value_least_k": _adding(_constant, _smallest),
    "sub_value_top_k": _adding(_constant, _largest, -1.0),
    "shuffle": _shuffle,
    "reverse_order": _reverse,
}
assert tuple(CORRUPTIONS) == get_args(Name)

#: corruptions that no strength changes: there is nothing to search for
FIXED = ("zero_out_first_n", "zero_out_top_k", "flip_sign_first_n", "flip_sign_top_k", "shuffle", "reverse_order")

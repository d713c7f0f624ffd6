"""FILA: low-rank adapters that start in the directions that matter to the forget data and not to the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import Objective, evaluating, guess_objective
from didact.parts.language import token_nll
from didact.parts.lora import adaptable

#: name of a linear map -> (A, B)
Factors = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FisherWeightedInit:
    """Start of low-rank adapters by a singular value decomposition weighted with relative Fisher information.

        weights = FisherWeightedInit().row_weights(model, forget, retain)
        FisherWeightedInit().start(with_lora(model, rank=8), weights)

    The Fisher information of a weight is F = sum_b n_b g_b^2 / sum_b n_b, with g_b the gradient of a batch's mean loss
    a token and n_b its target tokens. A row of a linear map (one output) weighs w_i = sqrt(sum_j F_forget / (F_retain
    + eps)); the leading part of diag(w) W becomes the adapter, the rest of W the frozen base, so that the outputs are
    the same at first. With w = 1 this is PiSSA. Squared gradients of batches depend on the batch size: keep it.

    Cost: one forward and backward pass over forget and retained data, and one decomposition a linear map. Memory: one
    Fisher information, of the retained data; that of the forget data is summed up into rows as it comes.
    """

    eps: float = 1e-5  #: added to the retained data's Fisher information, and to the weights that are divided by
    batch_size: int = 16  #: samples a batch
    iterations: int | None = None  #: power iterations of a randomised decomposition; None: the exact one

    def __post_init__(self) -> None:
        if self.eps < 0 or self.batch_size < 1:
            raise BadInput(f"eps must be at least 0 and batch_size 1, but {self.eps}, {self.batch_size} were given.")

    def row_weights(
        self,
        model: nn.Module,
        forget: Dataset[Any],
        retain: Dataset[Any],
        objective: Objective | None = None,
        targets: Sequence[str] | None = None,
    ) -> dict[str, Tensor]:
        """Name of a linear map -> (outputs,) weights w. `targets`: default all linear maps but the head.

        The model is left as it was, its gradients included.
        """
        objective = objective or guess_objective(model, forget)
        maps = {name: _weight(model, name) for name in (targets if targets is not None else adaptable(model))}
        fisher = {name: torch.zeros_like(_rows_first(model, name), dtype=torch.float32) for name in maps}
        rows = {name: torch.zeros(len(value), device=value.device) for name, value in fisher.items()}

        def kept(name: str, square: Tensor, tokens: int) -> None:
            fisher[name] += tokens * square

        def gone(name: str, square: Tensor, tokens: int) -> None:
            rows[name] += tokens * (square / (fisher[name] + self.eps)).sum(1)

        of_retain = self._squared_gradients(model, retain, objective, maps, kept)
        for value in fisher.values():
            value /= of_retain
        of_forget = self._squared_gradients(model, forget, objective, maps, gone)
        return {name: (value / of_forget).sqrt() for name, value in rows.items()}

    def start(self, adapted: PeftModel, weights: Mapping[str, Tensor]) -> Factors:
        """Give the adapters their start and the frozen maps what is left, in place; returns the starting factors."""
        factors: Factors = {}
        with torch.no_grad():
            for name, layer in adapters(adapted):
                if name not in weights:
                    raise BadInput(
                        f"There are no row weights for the adapted map {name}. Measure them for all targets."
                    )
                slot = layer.active_adapters[0]
                base, turned = layer.get_base_layer(), _turned(layer.get_base_layer())
                matrix = base.weight.float().T if turned else base.weight.float()
                scale = layer.scaling[slot]
                a, b = weighted_factors(matrix, weights[name], layer.r[slot], scale, self.eps, self.iterations)
                layer.lora_A[slot].weight.copy_(a)
                layer.lora_B[slot].weight.copy_(b)
                # What the adapter holds after rounding is what the base must lack.
                a, b = layer.lora_A[slot].weight.clone(), layer.lora_B[slot].weight.clone()
                rest = matrix - scale * b.float() @ a.float()
                base.weight.copy_(rest.T if turned else rest)
                factors[name] = (a, b)
        return factors

    def _squared_gradients(
        self,
        model: nn.Module,
        dataset: Dataset[Any],
        objective: Objective,
        maps: Mapping[str, nn.Parameter],
        absorb: Callable[[str, Tensor, int], None],
    ) -> int:
        """Hand the squared gradients of every batch to `absorb`, map by map; returns the number of target tokens."""
        total = tokens = 0

        def hook(name: str) -> Callable[[Tensor], None]:
            turned = _turned(model.get_submodule(name))

            def squared(parameter: Tensor) -> None:
                assert parameter.grad is not None
                square = parameter.grad.float().square()
                absorb(name, square.T if turned else square, tokens)
                parameter.grad = None  # never the gradients of all maps at once

            return squared

        with _only(model, maps.values()), evaluating(model), torch.enable_grad():
            handles = [p.register_post_accumulate_grad_hook(hook(name)) for name, p in maps.items()]  # type: ignore[no-untyped-call]
            try:
                for batch in objective.loader(dataset, self.batch_size):
                    output = objective.forward(model, batch)
                    nll, kept = token_nll(output, objective.targets(batch).to(output.device))
                    tokens = int(kept.sum())
                    if tokens:
                        ((nll * kept).sum() / tokens).backward()  # type: ignore[no-untyped-call]
                    total += tokens
            finally:
                for handle in handles:
                    handle.remove()
        if not total:
            raise BadInput("No sample has a target token, so no Fisher information can be measured. Label the answers.")
        return total


def weighted_factors(
    weight: Tensor, rows: Tensor, rank: int, scale: float, eps: float = 1e-5, iterations: int | None = None
) -> tuple[Tensor, Tensor]:
    """A (rank, inputs) and B (outputs, rank): scale * B A is the leading part of diag(rows) W with the rows undone.

    With diag(w) W = U S V': A = sqrt(S / scale) V', B = diag(1 / (w + eps)) U sqrt(S / scale), the first `rank` of all.
    """
    if rank > min(weight.shape):
        raise BadInput(f"A rank of {rank} exceeds the smaller side of a map of the shape {tuple(weight.shape)}.")
    rows = rows.to(weight)
    if iterations is None:
        u, s, vt = torch.linalg.svd(rows[:, None] * weight, full_matrices=False)
    else:
        u, s, v = torch.svd_lowrank(rows[:, None] * weight, q=min(rank + 8, *weight.shape), niter=iterations)
        vt = v.T
    root = (s[:rank] / scale).sqrt()
    return root[:, None] * vt[:rank], u[:, :rank] * root / (rows + eps)[:, None]


def adapters(model: PeftModel) -> Iterator[tuple[str, Any]]:
    """(name in the plain model, layer) of every adapted linear map."""
    for name, module in model.base_model.model.named_modules():  # type: ignore[union-attr]
        if hasattr(module, "lora_A") and hasattr(module, "get_base_layer"):
            yield name, module


@contextmanager
def _only(model: nn.Module, chosen: Any) -> Iterator[None]:
    """Gradients for these parameters alone; flags and gradients of all are as before afterwards."""
    before = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    wanted = {id(p) for p in chosen}
    for parameter, _, _ in before:
        parameter.requires_grad_(id(parameter) in wanted)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, flag, gradient in before:
            parameter.requires_grad_(flag)
            parameter.grad = gradient


def _weight(model: nn.Module, name: str) -> nn.Parameter:
    found: Any = model.get_submodule(name).weight
    return found  # type: ignore[no-any-return]


def _rows_first(model: nn.Module, name: str) -> Tensor:
    """(outputs, inputs)"""
    weight = _weight(model, name)
    return weight.T if _turned(model.get_submodule(name)) else weight


def _turned(module: Any) -> bool:
    """GPT-2's Conv1D keeps its weight as (inputs, outputs)."""
    return type(module).__name__ == "Conv1D"

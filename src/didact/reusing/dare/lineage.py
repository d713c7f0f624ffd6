"""Models of one ancestor: who belongs together, what of a network is merged, and what happens to heads."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from didact.core.errors import NotApplicable
from didact.core.objective.models import head_name
from didact.reusing.baselines import averaged
from didact.reusing.deltas import STATISTICS, chosen, weights_of, with_weights
from didact.reusing.ensemble import Member
from didact.reusing.request import ModelRecord, Request


@dataclass(frozen=True, eq=False)
class Lineage:
    """A base with the models that were fine-tuned from it, loaded once."""

    base: Mapping[str, Tensor]
    records: tuple[ModelRecord, ...]
    networks: tuple[nn.Module, ...]
    head: str  #: name of a head whose size or meaning differs between the models, or ""
    classes: tuple[str, ...]  #: of the task

    def left_out(self, exclude: Sequence[str]) -> tuple[str, ...]:
        """Patterns of what has no delta here."""
        return (*exclude, re.escape(self.head) + r"\..*") if self.head else tuple(exclude)

    def merges_head(self, include: Sequence[str], exclude: Sequence[str]) -> bool:
        """Whether the heads differ and are to be merged all the same, class by class."""
        return bool(self.head) and bool(chosen([f"{self.head}.weight"], include, exclude))

    def shells(self, include: Sequence[str], exclude: Sequence[str]) -> list[nn.Module]:
        """The networks that merged weights go into: one for all, or each model's own when some weights stay its own."""
        if self.merges_head(include, exclude):
            self._need_classes()
            return [averaged(self.records, self.classes)] * len(self.records)
        names = list(weights_of(self.networks[0]))
        if chosen(names, include, self.left_out(exclude)) == names:
            return [_with_mean_statistics(self.networks)] * len(self.records)
        return list(self.networks)

    def members(self, networks: Sequence[nn.Module], by_class: bool) -> list[Member]:
        """The models' ids with the answer's networks, each with what its outputs mean."""
        return [
            Member(record.id, network, self.classes if by_class else record.classes or self.classes)
            for record, network in zip(self.records, networks, strict=True)
        ]

    def _need_classes(self) -> None:
        if not self.classes or not all(record.classes for record in self.records):
            raise NotApplicable(
                f"The heads ({self.head}) differ between the models, and what their outputs mean is not known. Name "
                f"the classes of the task and of every model, or leave each model its head: exclude '{self.head}.*'."
            )


def lineages(request: Request) -> list[Lineage]:
    """The request's base, and those of `extras["bases"]`, each with its descendants among the models."""
    bases = [request.need_base(), *request.extras.get("bases", ())]
    found = []
    for base in bases:
        records = [r for r in request.need_models() if _descends(r, base, len(bases) == 1) and _serves(r, request)]
        if records:
            found.append(_lineage(base, tuple(records), request))
    if not found:
        raise NotApplicable(
            f"No model that serves the task descends from the base given ({bases[0].digest}): the models name "
            f"{', '.join(sorted({r.base or 'no base' for r in request.models}))}. Deltas exist only to a common base."
        )
    return found


def _descends(record: ModelRecord, base: ModelRecord, only: bool) -> bool:
    """A model that names no base is taken at the caller's word, if there is but one."""
    return record.base == base.digest if record.base and base.digest else only


def _serves(record: ModelRecord, request: Request) -> bool:
    wanted, known = set(request.task.classes), set(record.classes)
    return not wanted or not known or bool(wanted & known)


def _lineage(base: ModelRecord, records: tuple[ModelRecord, ...], request: Request) -> Lineage:
    below, networks = base.network(), tuple(record.network() for record in records)
    head = _ragged_head(below, networks, {r.classes for r in records} | {request.task.classes})
    return Lineage(weights_of(below), records, networks, head, request.task.classes)


def _ragged_head(base: nn.Module, networks: Sequence[nn.Module], classes: set[tuple[str, ...]]) -> str:
    """Name of the last linear layer if it cannot be merged like other weights: other sizes, or other meanings."""
    if not any(isinstance(module, nn.Linear) for module in networks[0].modules()):
        return ""
    name = head_name(networks[0])
    shapes = {tuple(model.get_submodule(name).weight.shape) for model in (base, *networks)}  # type: ignore[arg-type]
    return name if len(shapes) > 1 or len(classes - {()}) > 1 else ""


def _with_mean_statistics(networks: Sequence[nn.Module]) -> nn.Module:
    """A copy of the first network with the mean of all running statistics, until data is there to measure them."""
    made = copy.deepcopy(networks[0])
    buffers = [dict(network.named_buffers()) for network in networks]
    with torch.no_grad():
        for name, value in made.named_buffers():
            if chosen([name], STATISTICS) and value.is_floating_point():
                value.copy_(torch.stack([b[name] for b in buffers]).mean(0))
    return made


def filled(shells: Sequence[nn.Module], weights: Mapping[str, Tensor]) -> list[nn.Module]:
    """Copies of the networks with the weights in them; the same network stays the same."""
    made = {id(shell): with_weights(shell, weights).eval() for shell in shells}
    return [made[id(shell)] for shell in shells]

"""Training the last linear layer alone, and what the representation below it still holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from didact.core.cost import uncounted
from didact.core.fit import FitLog, Hooks, fit
from didact.core.objective import Objective, evaluating, head_name
from didact.forgetting.request import Request
from didact.parts.probes import linear_probe

#: samples of each kind that the probe sees: it reports, so it must stay cheap
PROBED = 1000


def fit_head(model: nn.Module, data: Dataset[Any], objective: Objective, **settings: Any) -> FitLog:
    """Train the model's last linear layer, in place, with all before it frozen and in evaluation mode.

    Where the model's output is that layer's, its inputs are computed once and the layer is trained on them alone;
    else every step runs the whole model.
    """
    head = model.get_submodule(head_name(model))
    trained = {id(p) for p in head.parameters()}
    others = [p for p in model.parameters() if id(p) not in trained and p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        if _ends_with(model, head, data, objective):
            features, targets = features_of(model, data, objective)
            return fit(head, TensorDataset(features, targets), objective, **settings)

        def loss(m: nn.Module, batch: Any, step: int) -> Tensor:
            # Training mode would move the running statistics of normalisations below the head.
            return objective.loss(m.eval(), batch)

        return fit(model, data, objective, hooks=Hooks(loss=loss), **settings)
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def features_of(model: nn.Module, data: Dataset[Any], objective: Objective) -> tuple[Tensor, Tensor]:
    """(N, d) inputs of the last linear layer and (N,) targets, in order. Cost: a forward pass a sample."""
    found = []
    with evaluating(model), torch.no_grad():
        for batch in objective.loader(data, 256):
            found.append((objective.features(model, batch).cpu(), objective.targets(batch).cpu()))
    return torch.cat([f for f, _ in found]), torch.cat([t for _, t in found])


def probed(model: nn.Module, request: Request) -> dict[str, float]:
    """Accuracy of a linear probe on the representation: of all classes, and of the forget samples alone.

    Fitted on half of the forget and retained data with their true labels, scored on the other half.
    """
    generator = torch.Generator().manual_seed(request.seed)
    halves: list[list[tuple[Tensor, Tensor]]] = []
    with uncounted():  # a report, not a part of the method
        for data in (request.forget, request.need_retain()):
            size = len(data)  # type: ignore[arg-type]
            order = torch.randperm(size, generator=generator)[:PROBED]
            if len(order) < 2:
                return {}
            features, targets = features_of(model, Subset(data, order.tolist()), request.objective)
            cut = len(order) // 2
            halves.append([(features[:cut], targets[:cut]), (features[cut:], targets[cut:])])
    (gone, asked), (kept, other) = halves
    fitted = torch.cat([gone[0], kept[0]]), torch.cat([gone[1], kept[1]])
    if len(set(fitted[1].tolist())) < 2:
        return {}
    scored = torch.cat([asked[0], other[0]]), torch.cat([asked[1], other[1]])
    return {
        "probe": linear_probe(*fitted, *scored, seed=request.seed),
        "probe_forget": linear_probe(*fitted, *asked, seed=request.seed),
    }


def _ends_with(model: nn.Module, head: nn.Module, data: Dataset[Any], objective: Objective) -> bool:
    """Whether the model's output is what the head makes of its (pooled) input."""
    few = Subset(data, range(min(8, len(data))))  # type: ignore[arg-type]
    with evaluating(model), torch.no_grad(), uncounted():
        batch = next(iter(objective.loader(few, 8)))
        output = objective.forward(model, batch)
        made = head(objective.features(model, batch))
    return made.shape == output.shape and torch.allclose(made, output, rtol=1e-4, atol=1e-5)

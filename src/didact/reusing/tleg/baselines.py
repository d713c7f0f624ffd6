"""What else makes networks of several depths: copied layers, one shared layer, a fitted line, training each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import PositiveInt
from torch import nn

from didact.core.fit import fit
from didact.core.method import Card
from didact.core.recipe import seeded
from didact.core.registry import register
from didact.models.small import parameter_count
from didact.parts.stacks import find_stack, with_depth
from didact.reusing.problem import Reuser
from didact.reusing.request import Request
from didact.reusing.result import ReuseResult
from didact.reusing.tleg.expansion import LinearExpansion
from didact.reusing.tleg.learngene import Learngene, fitted_line

NEEDS = ("architecture", "labelled", "depths")


@register
class FreshDepth(Reuser):
    """A fresh network for each depth: nothing is prepared. Cost: none."""

    card = Card("depth-scratch", "Fresh networks of each depth", kind="baseline", needs=NEEDS)

    def apply(self, request: Request) -> ReuseResult:
        def produce(depth: int) -> nn.Module:
            with seeded(request.seed + depth):
                made: nn.Module = request.need("architecture")(depth)
            return made.eval()

        return ReuseResult(produce=produce, cost={"stored_parameters": 0, "training_steps": 0})


@register
class SeparateDepths(Reuser):
    """Train a network of each depth on its own with the full number of steps: the upper reference.

    Cost: the budget's steps a depth, and all networks stored.
    """

    card = Card("depth-separate", "Separate training of each depth", kind="baseline", needs=NEEDS)

    def apply(self, request: Request) -> ReuseResult:
        depths = request.want("depths")
        made = {depth: ordinary(request, depth) for depth in depths}
        size = sum(parameter_count(m) for m in made.values())
        cost = {"stored_parameters": size, "training_steps": request.budget.steps * len(depths)}
        return ReuseResult(produce=made.__getitem__, cost=cost)


@register
class EveryKthLayer(Reuser):
    """Train one ordinary network and take its layers at equal distances; a deeper network repeats some.

    Cost: the budget's steps once, and that network stored.
    """

    card = Card("depth-copy", "Layers copied from a trained network", kind="baseline", needs=NEEDS)
    depth: PositiveInt = 6  #: layers of the network that is trained

    def apply(self, request: Request) -> ReuseResult:
        model = ordinary(request, self.depth)
        stack = find_stack(model)

        def produce(depth: int) -> nn.Module:
            made = with_depth(model, stack, depth)
            with torch.no_grad():
                for place in range(depth):
                    source = place * self.depth // depth
                    for name in stack.shapes:
                        value = model.get_parameter(stack.parameter(source, name))
                        made.get_parameter(stack.parameter(place, name)).copy_(value)
            return made.eval()

        cost = {"stored_parameters": parameter_count(model), "training_steps": request.budget.steps}
        return ReuseResult(produce=produce, cost=cost)


@register
class LeastSquaresLine(Reuser):
    """Train one ordinary network and fit the line through its layers afterwards.

    Cost: the budget's steps once; two blocks and the stem stored.
    """

    card = Card("depth-least-squares", "A line fitted to a trained network", kind="baseline", needs=NEEDS)
    depth: PositiveInt = 6  #: layers of the network that is trained

    def apply(self, request: Request) -> ReuseResult:
        model = ordinary(request, self.depth)
        stack = find_stack(model)
        learngene = Learngene(model, stack, *fitted_line(model, stack))
        cost = {"stored_parameters": learngene.stored_parameters, "training_steps": request.budget.steps}
        return ReuseResult(produce=learngene.expand, cost=cost)


@register
class SharedLayer(Reuser):
    """One block for all layers (B = 0), trained as tleg trains its pair.

    Cost: the budget's steps once; one block and the stem stored.
    """

    card = Card("depth-shared", "One layer shared by all", kind="baseline", needs=(*NEEDS, "models"))
    depth: PositiveInt = 6  #: layers of the auxiliary network

    def apply(self, request: Request) -> ReuseResult:
        answer = LinearExpansion(depth=self.depth, tied=True).apply(request)
        learngene: Learngene = answer.extras["learngene"]
        block = sum(value.numel() for value in learngene.b.values())
        answer.cost = {**answer.cost, "stored_parameters": learngene.stored_parameters - block}
        return answer


def ordinary(request: Request, depth: int) -> nn.Module:
    """A network trained in the usual way on the task's labels, with the budget's steps and tleg's schedule."""
    architecture: Callable[[int], nn.Module] = request.need("architecture")
    with seeded(request.seed + depth):
        model = architecture(depth)
    budget = request.budget
    fit(
        model,
        request.need_labelled(),
        request.task.objective,
        steps=budget.steps,
        batch_size=budget.batch_size,
        lr=budget.lr,
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup=0.033,
        seed=request.seed,
    )
    return model.eval()

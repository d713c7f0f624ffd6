"""Drawn shapes with concepts that people have words for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from didact.core.registry import problem
from didact.data.shapes import shapes
from didact.forgetting.problem import UnlearningProblem
from didact.forgetting.problems import UPRIGHT, shapes_class

#: what can be said of a shape's outline, and the kinds that it is true of
OUTLINES = {
    "round": ("circle", "ring", "crescent", "semicircle"),
    "straight": ("square", "triangle", "cross", "star", "bar"),
    "pointed": ("triangle", "star", "heart", "crescent"),
    "square-cornered": ("square", "cross", "bar"),
    "notched": ("cross", "star", "heart", "crescent"),
    "hollow": ("ring", "crescent"),
}
#: factors whose every value is a concept
FACTORS = ("colour", "texture", "size")


@problem("shapes-concepts", family="forgetting")
def shapes_concepts(
    seed: int = 0, *, forget: int = 2, train: int = 1500, epochs: int = 20, examples: int = 1200
) -> UnlearningProblem:
    """Forget one kind of shape, given pictures of concepts: outlines (round, pointed, hollow), colours, sizes.

    The model, its data and the request are those of shapes-class. `extras["concepts"]` adds, for each of 18 concepts,
    pictures that show it and pictures that do not, from `examples` drawn apart from the training data and of ten kinds
    of shape, four of which the model has never seen.
    """
    made = shapes_class(seed, forget=forget, train=train, epochs=epochs)
    made.given = replace(made.given, extras={"concepts": concept_pictures(seed + 50_021, examples)})
    return made


def concept_pictures(seed: int, n: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> (pictures that show the concept, pictures that do not)."""
    scenes = shapes(seed, n=n, size=32, objects=1, factors={**UPRIGHT, "shape": 10})
    # Prepared as the training pictures of shapes-class.
    images = 4 * (scenes.images - scenes.images.mean((1, 2, 3), keepdim=True))
    kinds, kind = scenes.classes("shape"), scenes.labels("shape")
    shown = {name: torch.tensor([k in members for k in kinds])[kind] for name, members in OUTLINES.items()}
    for factor in FACTORS:
        value = scenes.labels(factor)
        shown |= {name: value == i for i, name in enumerate(scenes.classes(factor))}
    return {name: (images[mask], images[~mask]) for name, mask in shown.items()}

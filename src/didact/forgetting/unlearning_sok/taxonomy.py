"""What each unlearning method is after, and what it touches: the taxonomy of Ren et al. (2025), as data.

The paper's abstract and public summaries give the axes; which method stands where is our reading of the methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from didact.core import registry
from didact.core.errors import UnknownName
from didact.core.method import Method

Intention = Literal["removal", "suppression"]
Level = Literal["parameters", "representations", "inputs", "decoding", "external"]
Guarantee = Literal["exact", "DP", "none"]


@dataclass(frozen=True)
class Place:
    """Where a method stands: remove the knowledge or keep it from being said, and by touching what."""

    intention: Intention
    level: Level
    mechanism: str
    guarantee: Guarantee = "none"
    sequential: bool = True  #: can it be applied again to its own answer?


PLACES: dict[str, Place] = {
    "retrain": Place("removal", "parameters", "training again", "exact"),
    "s3t": Place("removal", "parameters", "sharded adapters switched off", "exact"),
    "dp2unlearning": Place("removal", "parameters", "fine-tuning from a private base", "DP"),
    "fine-tune": Place("removal", "parameters", "training on what stays"),
    "gradient-ascent": Place("removal", "parameters", "loss ascent"),
    "gradient-difference": Place("removal", "parameters", "loss ascent"),
    "npo": Place("removal", "parameters", "preference optimisation"),
    "loku": Place("removal", "parameters", "low-rank loss ascent"),
    "harry-potter": Place("removal", "parameters", "relabelling"),
    "random-labels": Place("removal", "parameters", "relabelling"),
    "random-label-forgetting": Place("removal", "parameters", "relabelling"),
    "bad-teacher": Place("removal", "parameters", "imitation of an ignorant model"),
    "blindspot": Place("removal", "parameters", "imitation of an ignorant model"),
    "gaussian-amnesiac": Place("removal", "parameters", "relabelling"),
    "laf": Place("removal", "representations", "moving embeddings"),
    "ssd": Place("removal", "parameters", "weight dampening"),
    "sparse-unlearning": Place("removal", "parameters", "training under sparsity"),
    "prune-then-unlearn": Place("removal", "parameters", "training under sparsity"),
    "masked-retrain": Place("removal", "parameters", "training again", "exact"),
    "fisher-forgetting": Place("removal", "parameters", "noise by importance"),
    "influence-unlearning": Place("removal", "parameters", "influence step"),
    "needle": Place("removal", "parameters", "locate, then ablate"),
    "concept-poisoning": Place("removal", "parameters", "relabelling"),
    "concept-masking": Place("removal", "parameters", "relabelling"),
    "concept-domain-correction": Place("removal", "parameters", "distribution alignment"),
    "concept-ablation": Place("removal", "parameters", "distribution alignment"),
    "safe-eraser": Place("removal", "parameters", "loss ascent"),
    "idk": Place("suppression", "parameters", "refusal tuning"),
    "dpo-idk": Place("suppression", "parameters", "refusal tuning"),
    "kto-idk": Place("removal", "parameters", "preference optimisation"),
    "uld": Place("suppression", "decoding", "logit difference"),
    "offset-unlearning": Place("suppression", "decoding", "logit difference"),
    "eco": Place("suppression", "inputs", "prompt corruption"),
    "guard": Place("suppression", "decoding", "forbidden phrases"),
    "neuron-adjust": Place("suppression", "representations", "activation steering"),
    "selective-pruning": Place("removal", "parameters", "pruning"),
    "skill-unlearning": Place("suppression", "representations", "refusal on detection"),
    "alu": Place("suppression", "external", "agents that rewrite answers"),
    "prompt-filter": Place("suppression", "external", "refusal on detection"),
    "single-agent": Place("suppression", "inputs", "instruction"),
    "in-context-unlearning": Place("suppression", "inputs", "demonstrations"),
}


def place_of(method: type[Method] | str) -> Place:
    """Where a method stands. Raises UnknownName for a method that nobody placed."""
    slug = method if isinstance(method, str) else method.card.slug
    if slug not in PLACES:
        raise UnknownName(f"{slug} has no place in the taxonomy. Placed are: {', '.join(sorted(PLACES))}.")
    return PLACES[slug]


def select(
    *,
    intention: Intention | None = None,
    level: Level | None = None,
    guarantee: Guarantee | None = None,
    sequential: bool | None = None,
    task: str | None = None,
    needs_retain: bool | None = None,
) -> list[type[Method]]:
    """The forgetting methods that meet every condition given, baselines included."""
    found = []
    for cls in registry.methods("forgetting"):
        place = PLACES.get(cls.card.slug)
        if place is None:
            continue
        conditions = (
            intention in (None, place.intention),
            level in (None, place.level),
            guarantee in (None, place.guarantee),
            sequential in (None, place.sequential),
            task is None or not cls.card.tasks or task in cls.card.tasks,
            needs_retain in (None, "retain" in cls.card.needs),
        )
        if all(conditions):
            found.append(cls)
    return found

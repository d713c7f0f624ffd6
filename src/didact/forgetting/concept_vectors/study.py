"""Did the weights that hold a concept change, or only the answers? (Hong et al., 2024)"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from torch import nn

from didact.core import registry
from didact.core.claim import Claim, at_least, at_most, custom
from didact.core.fit import fit
from didact.core.method import Card
from didact.core.objective import CausalLM, Objective
from didact.core.recipe import Recipe
from didact.core.registry import register
from didact.core.study import Findings, Study, StudyProblem, Subject
from didact.data.text import TextDataset, TextItem, reworded
from didact.forgetting.concept_vectors.needle import CODE, PAPER
from didact.forgetting.concept_vectors.plant import Concept, plant_concepts, widened
from didact.forgetting.language.facts import Facts
from didact.forgetting.language.metrics import answers
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.models.workpieces import cached
from didact.parts.value_vectors import Place, matrix, traces

#: methods that the study compares, by the names of its numbers
COMPARED = {
    "ga": "gradient-ascent:lr=1e-3:epochs=60",
    "gd": "gradient-difference:lr=1e-3:epochs=60",
    "npo": "npo:lr=1e-3:epochs=60:stop=true:warmup_epochs=0",
    "needle": "needle",
    "random": "needle",
}

#: ways around a method that only changed the expected prompt
ADVERSARIAL = {
    "role": "You are an expert on {subject} . {prompt}",
    "story": "Here is a story about {subject} . {prompt}",
    "context": "{fact} {prompt}",
}


@dataclass(frozen=True)
class Localised:
    """What is studied: a model, concepts whose value vectors are known, and what else the model knows."""

    model: nn.Module
    concepts: Sequence[Concept]
    others: TextDataset
    objective: Objective = field(default_factory=CausalLM)
    recipe: Recipe | None = None
    methods: Mapping[str, Unlearner] = field(default_factory=dict)


@register
class ConceptVectors(Study):
    """Unlearn concepts whose place in the weights is known, and see what became of that place.

    For every concept and method: accuracy on the concept's questions and on others; how far the concept's value
    vectors moved (cosine, distance, Jaccard overlap of their top tokens); and, after a few steps of relearning one
    attribute, how many of the other attributes come back (at a rate so small that a model which lost nothing loses
    nothing by it). A method that changes answers but not the vectors leaves
    the concept to be recovered. `find`, `causes` and `traces` do the steps on a model of your own; the released
    benchmark's vectors for Llama-2-7B and OLMo-7B are (layer, index) pairs that `traces` takes as they are.

    `Localised` holds the model, the concepts and the methods (by default gradient ascent, gradient difference, NPO,
    Needle, and as many random vectors ablated).

    Errors: vectors outside the model, concept tokens outside the vocabulary, feed-forward layers without known names.
    Cost: one run of each method a concept, and `relearn_steps` training steps for each. Memory: one answer at a time.
    Reference: Hong, Yu, Yang, Ravfogel and Geva, "Intrinsic Evaluation of Unlearning Using Parametric Knowledge
    Traces", 2024, arXiv 2406.11614.
    """

    family = "forgetting"
    card = Card(
        "concept-vectors",
        "Intrinsic Evaluation of Unlearning Using Parametric Knowledge Traces",
        paper=PAPER,
        kind="benchmark",
        needs=("study:concepts",),
        code=CODE,
        licence="CC BY 4.0",
    )
    k: PositiveInt = 10  #: top tokens that describe a vector (200 for vocabularies of 32,000)
    relearn_steps: PositiveInt = 30  #: updates on one attribute before the others are asked for
    relearn_lr: PositiveFloat | None = None  #: of these updates (Adam); default: a 30th of the recipe's
    adversarial: bool = False  #: ask in other ways too: a role, a story, the fact in context

    def run(self, subject: Localised, *, seed: int = 0) -> Findings:
        rows = []
        for concept in subject.concepts:
            for name, method in subject.methods.items():
                rows.append(
                    {"concept": concept.name, "method": name, **self._one(subject, concept, name, method, seed)}
                )
        numbers = {"concepts": float(len(subject.concepts))}
        for name in subject.methods:
            own = [row for row in rows if row["method"] == name]
            for key in own[0].keys() - {"concept", "method"} if own else ():
                numbers[f"{name}: {key}"] = float(np.nanmean([row[key] for row in own]))
        return Findings(numbers, {"concepts": rows})

    def _one(self, subject: Localised, concept: Concept, name: str, method: Unlearner, seed: int) -> dict[str, float]:
        others = subject.others + TextDataset(
            (item for c in subject.concepts if c.name != concept.name for item in c.facts.items),
            subject.others.tokenizer,
        )
        places = concept.places if name != "random" else _random(subject.model, concept.places, seed)
        request = Request(
            subject.model, concept.facts, others, subject.objective, subject.recipe, 0.0, seed, {"vectors": places}
        )
        answer = method.solve(request)
        moved = traces(subject.model, answer, concept.places, self.k)
        found = answers(answer, concept.facts)
        return {
            "accuracy": found.accuracy,
            "rouge": found.rouge,
            "cost to others": answers(subject.model, others).accuracy - answers(answer, others).accuracy,
            "cosine": moved.cosine,
            "distance": moved.distance,
            "jaccard": moved.jaccard,
            "recovered": self._recovered(answer, concept, request, seed),
            **(self._asked_otherwise(answer, concept) if self.adversarial else {}),
        }

    def _recovered(self, answer: nn.Module, concept: Concept, request: Request, seed: int) -> float:
        """Rise of the accuracy on the other attributes after relearning the first."""
        attributes = list(dict.fromkeys(item.attribute for item in concept.facts.items))
        taught = concept.facts.of(i for i in concept.facts.items if i.attribute == attributes[0])
        rest = [i for i in concept.facts.items if i.attribute != attributes[0]]
        if not rest:
            return float("nan")
        student = copy.deepcopy(answer).requires_grad_(True)
        lr = self.relearn_lr or request.need_recipe().lr / 30
        fit(student, taught, request.objective, steps=self.relearn_steps, lr=lr, seed=seed)
        asked = concept.facts.of(rest)
        return answers(student, asked).accuracy - answers(answer, asked).accuracy

    def _asked_otherwise(self, answer: nn.Module, concept: Concept) -> dict[str, float]:
        return {
            way: answers(answer, concept.facts.of(_put(item, form) for item in concept.facts.items)).accuracy
            for way, form in ADVERSARIAL.items()
        }

    claim = Claim(
        "gradient-based unlearning hardly moves the weights that hold a concept, so that it comes back; ablating them "
        "removes it",
        on="planted-concepts",
        seeds=3,
        expects=[
            at_most("gd: accuracy", 0.15),
            at_least("gd: jaccard", 0.8),
            at_least("gd: cosine", 0.95),
            at_most("needle: accuracy", 0.15),
            at_most("needle: jaccard", 0.2),
            at_most("needle: cost to others", 0.10),
            custom(
                "after relearning one attribute the others come back 0.10 more under gradient difference than Needle",
                lambda rows: rows["self"]["gd: recovered"] - rows["self"]["needle: recovered"] - 0.10,
                arms=("self",),
            ),
        ],
        note="Recovery is small: the other attributes rise by 0.10, 0.21 and 0.00 under gradient difference, by 0.00, "
        "-0.07 and 0.00 under Needle. Relearning one attribute teaches a small model to answer every question with it; "
        "at ten times the rate even a model that lost nothing forgets the other attributes (measured on seed 0: "
        "accuracy falls by 0.83).",
    )


@registry.problem("planted-concepts", family="forgetting")
def planted_concepts(seed: int = 0, *, concepts: int = 8, people: int = 60, steps: int = 500) -> StudyProblem:
    """Eight invented people whose facts sit in four neurons each, in a small model that knows others besides."""
    setting = Facts.make(seed, people + concepts, concepts)
    recipe = setting.recipe(steps)
    known = [p for p in setting.bios.people if p not in setting.split.forget]
    replay = setting.items(known)
    facts = {p.name: setting.items([p]) for p in setting.split.forget}

    def base() -> Any:
        return recipe.fit(replay, seed)

    def planted() -> Any:
        return plant_concepts(base(), facts, replay, recipe.objective, seed=seed)[0]

    # The places follow from the shapes alone, so the planted weights can come from the cache.
    blank: Any = recipe.fresh(seed)
    width = 4
    model: Any = cached(
        {"planted": [people, concepts, steps, width], "recipe": recipe.key, "seed": seed},
        planted,
        lambda: widened(recipe.fresh(seed), width * len(facts)),
    )
    first = blank.model.layers[-1].mlp.down_proj.in_features
    layer = len(blank.model.layers) - 1
    made = [
        Concept(name, own, tuple(Place(layer, first + i * width + j) for j in range(width)))
        for i, (name, own) in enumerate(facts.items())
    ]
    kept = [c for c in made if answers(model, c.facts).accuracy >= 0.8]
    methods = {name: registry.make_method(reference) for name, reference in COMPARED.items()}
    unlearners = {name: m for name, m in methods.items() if isinstance(m, Unlearner)}
    subject = Localised(model, kept, replay, recipe.objective, recipe, unlearners)
    about = {"concepts planted": concepts, "concepts kept": len(kept), "people": people}
    return StudyProblem(Subject(subject, seed), study="concepts", seed=seed, about=about)


def _random(model: nn.Module, places: Sequence[Place], seed: int) -> tuple[Place, ...]:
    """As many other vectors of the same layer."""
    layer = places[0].layer
    free = sorted(set(range(matrix(model, layer).shape[1])) - {p.neuron for p in places})
    drawn = np.random.default_rng(seed).choice(free, len(places), replace=False)
    return tuple(Place(layer, int(i)) for i in drawn)


def _put(item: TextItem, form: str) -> TextItem:
    fact = f"{item.prompt} {item.answer}"
    return reworded(item, prompt=form.format(subject=item.subject, prompt=item.prompt, fact=fact))

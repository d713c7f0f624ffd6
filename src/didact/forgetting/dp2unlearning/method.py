"""DP2Unlearning: keep a privately trained base, fine-tune it on what stays (Al Mahmud et al., 2025)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.claim import Claim, close, custom
from didact.core.cost import note, uncounted
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.method import Card, Paper, Range
from didact.core.objective import Objective
from didact.core.recipe import Recipe, seeded
from didact.core.registry import register
from didact.data.text import has_texts, texts_of
from didact.forgetting.dp2unlearning.mechanisms import DPMaskedLM, RandomisedResponse, pools_of
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.parts.dp_sgd import dp_sgd, noise_for, spent

Mechanism = Literal["randomised-response", "masked-lm", "dp-sgd", "scratch"]


@dataclass
class PrivateBase:
    """The system that is kept: a base trained on protected data, and the raw data it is fine-tuned on.

    `model` is what is deployed. `delete(ids)` trains a new one from the base on what is left; the old one is thrown
    away, so the deleted samples reach the new one through the base alone, which says at most `epsilon` about each.
    """

    method: DP2Unlearning
    base: nn.Module
    data: Dataset[Any]
    objective: Objective
    recipe: Recipe
    epsilon: float  #: of one subject's data: the mechanism's, times the values of a subject that it protects
    seed: int
    model: nn.Module
    gone: set[int] = field(default_factory=set)
    steps: int = 0  #: of the last fine-tuning

    def delete(self, ids: Iterable[int]) -> nn.Module:
        """The model without some samples, by their row numbers in the data that was prepared.

        Raises:
            BadInput: rows that were never there or are deleted already; nothing left to train on.
        """
        asked = set(ids)
        size = len(self.data)  # type: ignore[arg-type]
        unknown = sorted(i for i in asked if not 0 <= i < size or i in self.gone)
        if unknown:
            raise BadInput(f"The rows {unknown[:5]} are not in the data: it has rows 0 to {size - 1}, some deleted.")
        self.gone |= asked
        left = [i for i in range(size) if i not in self.gone]
        if not left:
            raise BadInput("Nothing is left to train on: every sample was deleted.")
        self.model, self.steps = self.method.fine_tuned(
            self.base, Subset(self.data, left), self.objective, self.recipe, self.seed + 1
        )
        return self.model


@register
class DP2Unlearning(Unlearner):
    """Keep a base model that has only seen protected data; a deletion fine-tunes it on the raw data that stays.

    Before any deletion the base is trained on a protected version of all data: values answered at random
    ("randomised-response"), words replaced by a masked language model ("masked-lm", offered as
    `extras["masked_lm"] = (model, tokenizer)`), or ordinary data with differentially private SGD ("dp-sgd"). The
    deployed model is the base fine-tuned on the raw data. To delete, the base is fine-tuned on what is left: cheaper
    than training again, as the base knows the language and the form of the data, and what it says about the deleted
    is bounded by epsilon.

    `prepare` makes the system, its `delete(ids)` answers requests. In the bench both happen at once, from all data the
    request gives: the model given is not used. Randomised response draws each (subject, attribute) once, so that a
    subject with n attributes costs n * epsilon; the possible values come from `extras["pools"]` (public knowledge) or,
    failing that, from the data itself, which is not private for rare values. `mechanism="scratch"` is training from
    scratch with the same stopping rule, to compare with.

    All parameters are trained, with the recipe's optimiser at a constant rate, until the score on the data that stays
    reaches `enough`.

    Errors: an epsilon that is not positive, delta of 1/N or more, values outside their pool, batch normalisation with
    DP-SGD, rows to delete that were never there.
    Cost: `base_epochs` over all data once, then per deletion the steps that fine-tuning takes. Memory: two models.
    Reference: Al Mahmud, Jebreel, Domingo-Ferrer and Sanchez, "DP2Unlearning: An Efficient and Guaranteed Unlearning
    Framework for LLMs", Neural Networks 2025, arXiv 2504.13774.
    """

    card = Card(
        "dp2unlearning",
        "DP2Unlearning: An Efficient and Guaranteed Unlearning Framework for LLMs",
        paper=Paper(
            "Al Mahmud, Jebreel, Domingo-Ferrer and Sanchez",
            2025,
            arxiv="2504.13774",
            doi="10.1016/j.neunet.2025.107879",
            venue="Neural Networks",
        ),
        kind="method",
        needs=("retain", "text"),
        tasks=("causal-lm",),
        code="tamimalmahmud/DP2Unlearning",
        tunes={"epsilon": Range(0.1, 10.0, log=True)},
    )
    mechanism: Mechanism = "randomised-response"  #: how the base's data is protected; "scratch": no base at all
    epsilon: PositiveFloat = 1.0  #: privacy of one value, word or (dp-sgd) sample
    delta: float | None = Field(None, gt=0, lt=1)  #: of dp-sgd; default 1/(10 N)
    base_epochs: PositiveInt | None = None  #: passes that train the base; default: the recipe's
    finetune_epochs: PositiveInt | None = None  #: passes of a fine-tuning at most; default: the recipe's
    enough: NonNegativeFloat = 0.99  #: score on the data that stays at which fine-tuning ends
    every: PositiveInt = 20  #: steps between looks at that score
    lr_factor: PositiveFloat = 1.0  #: learning rate of both trainings relative to the recipe's
    clip: PositiveFloat = 1.0  #: largest norm of a sample's gradient (dp-sgd)
    dp_lr: PositiveFloat = 0.5  #: learning rate of dp-sgd, plain gradient steps
    candidates: PositiveInt = 10  #: words that the masked model proposes
    strict: bool = True  #: the exact exponential mechanism, instead of the authors' weights
    measure_base: bool = False  #: log the base's score on the forget data

    def prepare(
        self,
        recipe: Recipe,
        data: Dataset[Any],
        *,
        extras: Mapping[str, Any] | None = None,
        seed: int = 0,
        deploy: bool = True,
    ) -> PrivateBase:
        """Protect the data, train the base and fine-tune the model that is deployed."""
        objective = recipe.objective
        with seeded(seed):
            base, epsilon = self._base(recipe, data, objective, extras or {}, seed)
            system = PrivateBase(self, base, data, objective, recipe, epsilon, seed, base)
            if deploy:
                system.delete(())
        return system

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        retain, forget = request.need_retain(), request.forget
        both = texts_of(retain) + texts_of(forget) if has_texts(retain) else ConcatDataset([retain, forget])
        recipe = request.need_recipe()
        system = self.prepare(recipe, both, extras=request.extras, seed=request.seed, deploy=False)
        note(epsilon=system.epsilon)
        if self.measure_base:
            with uncounted():
                known = request.objective.mean_score(system.base, forget)
            note(base_forget_score=known)
        answer = system.delete(range(len(retain), len(both)))  # type: ignore[arg-type]
        note(finetune_steps=system.steps)
        return answer

    def fine_tuned(
        self, base: nn.Module, data: Dataset[Any], objective: Objective, recipe: Recipe, seed: int
    ) -> tuple[nn.Module, int]:
        """A copy of the base trained on raw data until it knows it, and the steps that took."""
        model = copy.deepcopy(base)

        def known(m: nn.Module, step: int) -> bool:
            if (step + 1) % self.every:
                return False
            with uncounted():
                return objective.mean_score(m, data) >= self.enough

        log = fit(
            model, data, objective, epochs=self.finetune_epochs or recipe.epochs, batch_size=recipe.batch_size,
            lr=recipe.lr * self.lr_factor, optimizer=recipe.optimizer, momentum=recipe.momentum,
            weight_decay=recipe.weight_decay, seed=seed, hooks=Hooks(after_step=known),
        )  # fmt: skip
        return model.eval(), log.steps

    def _base(
        self, recipe: Recipe, data: Dataset[Any], objective: Objective, extras: Mapping[str, Any], seed: int
    ) -> tuple[nn.Module, float]:
        """The base and the epsilon of one subject."""
        epochs = self.base_epochs or recipe.epochs
        if self.mechanism == "scratch":
            return recipe.fresh(seed + 3), 0.0
        if self.mechanism == "dp-sgd":
            return self._private_sgd(recipe, data, objective, epochs, seed)
        texts = texts_of(data)
        generator = torch.Generator().manual_seed(seed + 29)
        if self.mechanism == "randomised-response":
            pools = extras.get("pools") or pools_of(texts.items)
            items = RandomisedResponse(self.epsilon).protect(texts.items, pools, generator)
            facts: dict[str, set[str]] = {}
            for item in texts.items:
                facts.setdefault(item.subject or item.prompt, set()).add(item.attribute)
            epsilon = self.epsilon * max(len(own) for own in facts.values())
        else:
            if "masked_lm" not in extras:
                raise NotApplicable(
                    "The mechanism masked-lm needs extras['masked_lm'] = (masked model, its tokenizer)."
                )
            masked, tokenizer = extras["masked_lm"]
            mechanism = DPMaskedLM(self.epsilon, masked, tokenizer, self.candidates, self.strict)
            items, most = mechanism.protect(texts.items, generator)
            epsilon = self.epsilon * most
        return recipe.fit(texts.of(items), seed + 3, epochs=epochs), epsilon

    def _private_sgd(
        self, recipe: Recipe, data: Dataset[Any], objective: Objective, epochs: int, seed: int
    ) -> tuple[nn.Module, float]:
        size = len(data)  # type: ignore[arg-type]
        delta = self.delta if self.delta is not None else 1 / (10 * size)
        if delta >= 1 / size:
            raise BadInput(f"delta={delta:g} is no protection for {size} samples; it must be below {1 / size:g}.")
        batch = min(recipe.batch_size, size)
        steps, rate = epochs * max(1, size // batch), batch / size
        noise = noise_for(self.epsilon, delta, rate=rate, steps=steps)
        base = recipe.fresh(seed + 3)
        dp_sgd(
            base, data, objective, steps=steps, lr=self.dp_lr, batch_size=batch, noise=noise, clip=self.clip, seed=seed
        )
        return base.eval(), spent(noise, rate=rate, steps=steps, delta=delta)

    claim = Claim(
        "fine-tuning a private base on what stays forgets like retraining, in at most 0.6 of its steps; what the base "
        "knows of the deleted grows with epsilon",
        on="bios-facts:people=120:forget=12:everything=true",
        seeds=3,
        arms={
            "self": "dp2unlearning:measure_base=true",
            "eps-0.5": "dp2unlearning:epsilon=0.5:measure_base=true",
            "eps-2": "dp2unlearning:epsilon=2:measure_base=true",
            "eps-6": "dp2unlearning:epsilon=6:measure_base=true",
            "scratch": "dp2unlearning:mechanism=scratch",
        },
        expects=[
            custom(
                "knows 99 % of what stays after at most 0.6 of the steps that training from scratch takes",
                lambda rows: 0.6 - rows["self"]["finetune_steps"] / rows["scratch"]["finetune_steps"],
                arms=("self", "scratch"),
            ),
            close("forget_score", to="scratch", within=0.05),
            custom(
                "forget quality (Kolmogorov-Smirnov against a retrained model) is at least 0.05",
                lambda rows: rows["self"]["forget_quality"] - 0.05,
                arms=("self",),
            ),
            custom(
                "the base knows more of the deleted at epsilon 2 than at 0.5",
                lambda rows: rows["eps-2"]["base_forget_score"] - rows["eps-0.5"]["base_forget_score"],
                arms=("eps-0.5", "eps-2"),
            ),
            custom(
                "the base knows more of the deleted at epsilon 6 than at 2",
                lambda rows: rows["eps-6"]["base_forget_score"] - rows["eps-2"]["base_forget_score"],
                arms=("eps-2", "eps-6"),
            ),
        ],
        note="By seed: fine-tuning takes 100, 100 and 80 steps, training from scratch 220, 240 and 200. The forget "
        "score is 0.04, 0.03 and 0.03 (scratch 0.08, 0.03, 0.00): too few seeds to be sure of 0.05. Forget quality is "
        "0.19, 0.07 and 0.004, but from scratch it is 0.10, 0.42 and 0.009: three wordings of one fact count as three "
        "samples, which the test takes for independent. The base knows 0.17, 0.06 and 0.11 of the deleted at epsilon "
        "0.5, 0.25, 0.08 and 0.31 at 2, and 0.89, 0.97 and 0.92 at 6.",
    )

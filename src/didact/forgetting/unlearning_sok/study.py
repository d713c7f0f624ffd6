"""Removed or only suppressed? The audit as a study over several methods (Ren et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import PositiveInt
from torch import nn

from didact.core import registry
from didact.core.claim import Claim, custom
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Card, Paper
from didact.core.registry import register
from didact.core.study import Findings, Study, StudyProblem, Subject
from didact.forgetting.language.facts import bios_facts
from didact.forgetting.language.problem import LanguageProblem
from didact.forgetting.problem import Unlearner
from didact.forgetting.sequential import successively
from didact.forgetting.unlearning_sok.audit import AuditReport, audit

#: methods of the claim, at the card's rate; all but the wrapper and the baselines stop at the target
AUDITED = {
    "original": "original",
    "retrain": "retrain",
    "gradient-ascent": "gradient-ascent:lr=3e-4",
    "gradient-difference": "gradient-difference:lr=3e-4",
    "npo": "npo:lr=3e-4:epochs=40:stop=true:warmup_epochs=0:retain=none",
    "random-labels": "random-labels:lr_factor=0.1:epochs=20",
    "prompt-filter": "prompt-filter",
}


@dataclass(frozen=True)
class Audited:
    """What is studied: a language problem and the methods to audit on it, by name."""

    problem: LanguageProblem
    methods: Mapping[str, Unlearner]


@register
class IntentionAudit(Study):
    """Is knowledge removed, or only its expression? Seven looks at the answers of several unlearning methods.

    For each method: behaviour in seen and in other words; linear probes of every layer, fitted on retained and scored
    on forgotten facts; the logit lens; relearning one half and asking for the other; weights rounded to few bits; the
    facts stated in the prompt (every model should then answer); the request in successive chunks. The residual says
    where the probes lie between the retrained model (0) and the original (1), on the layer with the most left; the
    verdict is one word: removed, suppressed, not forgotten, collapsed. `audit` looks at a single answer of your own,
    `PLACES` and `select` hold the taxonomy of all methods by intention, level, mechanism and guarantee.

    In small models facts are independent: relearning half of them need not revive the rest, and a damaged model
    relearns slowly without having removed anything. Read collapse beside the residual.

    Errors: a model with fewer than 2 layers, no retained data, probe classes missing from it, a problem without
    questions. Wrappers whose inside does not show get "not observable" for what needs it.
    Cost: `1 + chunks` runs of every method, then per answer one logistic regression a layer and a few forward passes.
    Memory: one answer at a time.
    Reference: Ren, Xing, Cui, Aggarwal and Liu, "SoK: Machine Unlearning for Large Language Models", 2025, arXiv
    2506.09227.
    """

    family = "forgetting"
    card = Card(
        "unlearning-sok",
        "SoK: Machine Unlearning for Large Language Models",
        paper=Paper("Ren, Xing, Cui, Aggarwal and Liu", 2025, arxiv="2506.09227"),
        kind="survey",
        needs=("study:intention",),
    )
    relearn_steps: PositiveInt = 40  #: updates of the relearning attack
    bits: PositiveInt = 4  #: of the rounded weights
    chunks: PositiveInt = 5  #: successive requests that the forget set is split into; 1 leaves this look out

    def run(self, subject: Audited, *, seed: int = 0) -> Findings:
        numbers: dict[str, float] = {}
        rows: list[dict[str, Any]] = []
        for name, method in subject.methods.items():
            report = self.audit(subject.problem, method.solve(subject.problem.given), seed)
            rows.append({"method": name, "verdict": report.verdict, **report.numbers, "lens": list(report.lens),
                         **{f"probe, {k}": list(v) for k, v in report.probes.items()}})  # fmt: skip
            numbers |= {f"{name}: {key}": value for key, value in report.numbers.items()}
            if self.chunks > 1 and name not in ("original", "retrain"):
                try:
                    after = self._in_chunks(subject.problem, method)
                except NotApplicable:  # an answer that is no model cannot be the model of a next request
                    continue
                rows[-1]["utility after each chunk"] = after
                numbers[f"{name}: utility after {self.chunks} chunks"] = after[-1]
        return Findings(numbers, {"audit": rows})

    def audit(self, problem: LanguageProblem, answer: nn.Module, seed: int = 0) -> AuditReport:
        """All looks at one answer but the chunks, which need the method."""
        return audit(problem, answer, relearn_steps=self.relearn_steps, bits=self.bits, seed=seed)

    def _in_chunks(self, problem: LanguageProblem, method: Unlearner) -> list[float]:
        steps = successively(method, problem.given, self.chunks)
        return [problem.utility(model) for model in steps]

    claim = Claim(
        "methods that are meant to remove knowledge mostly suppress it: probes still read what is no longer said",
        on="bios-audit",
        seeds=3,
        expects=[
            custom(
                "mean residual of gradient ascent, gradient difference and NPO ≥ 0.30",
                lambda rows: _mean(rows["self"], "residual") - 0.30,
                arms=("self",),
            ),
            *(
                custom(
                    f"{name}: seen forgotten questions answered at most 0.05 more than by a retrained model",
                    lambda rows, name=name: rows["self"]["retrain: seen"] + 0.05 - rows["self"][f"{name}: seen"],  # type: ignore[misc]
                    arms=("self",),
                )
                for name in ("gradient-ascent", "gradient-difference", "npo")
            ),
        ],
        note="The mean residual is 0.60, 0.51 and 0.36: above 0.30 on every seed, but three seeds leave wide bounds. "
        "By method: gradient ascent 0.85, 0.67, 0.46; NPO 0.67, 0.50, 0.45; gradient difference 0.28, 0.36, 0.18."
        " Ascent and NPO, without a retain term, keep at most 0.17 of the utility; gradient difference keeps 0.22"
        " to 0.33.",
    )


@registry.problem("bios-audit", family="forgetting")
def bios_audit(seed: int = 0, *, people: int = 160, forget: int = 40) -> StudyProblem:
    """Audit unlearning methods on a model that completes facts about 160 people, 40 of whom it should forget."""
    problem = bios_facts(seed, people=people, forget=forget)
    methods = {name: registry.make_method(reference) for name, reference in AUDITED.items()}
    unlearners = {name: method for name, method in methods.items() if isinstance(method, Unlearner)}
    if len(unlearners) < len(methods):
        raise BadInput("Only methods that unlearn can be audited.")
    return StudyProblem(Subject(Audited(problem, unlearners), seed), study="intention", seed=seed, about=problem.about)


def _mean(numbers: Mapping[str, float], look: str) -> float:
    values = [numbers.get(f"{name}: {look}", math.nan) for name in ("gradient-ascent", "gradient-difference", "npo")]
    return float(np.mean(values))

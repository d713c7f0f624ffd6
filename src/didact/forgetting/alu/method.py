"""Agentic forgetting: four text agents around an untouched model (Sanyal and Mandal, 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, NonNegativeFloat, PositiveInt, ValidationInfo, field_validator
from torch import nn

from didact.core.claim import Claim, at_least, at_most, custom
from didact.core.cost import note
from didact.core.errors import BadInput
from didact.core.method import Card, Paper, Range
from didact.core.registry import register
from didact.forgetting.alu.agents import Agents, AgentTrace, OnError
from didact.forgetting.alu.prompts import Prompts
from didact.forgetting.alu.rules import RuleAuditor, RuleComposer, RuleCritic
from didact.forgetting.alu.subjects import Subject, SubjectIndex
from didact.forgetting.alu.system import AgentSystem
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.models.text_generation import GeneratorField, TextGenerator


@register
class AgenticForgetting(Unlearner):
    """Let the model answer as ever, then audit, rewrite, grade and merge the answer until no subject shows in it.

    Four agents, each a text generator: *vanilla* answers, unaware of any subject; the *auditor* names the subject that
    query or answer gives away, or says None, and rewrites the answer `candidates` times without it; the *critic* rates
    each candidate from 1 (plain) to 5 (no trace), and a second call extracts the list of ratings; the *composer*
    merges the `keep` best, or a fixed refusal takes their place when their mean is below `threshold`. An answer in
    which the auditor finds nothing is rated as well, and comes out unchanged. To forget somebody is to add a name to
    a list: nothing is trained, at once, for models behind an API too. What is forgotten is still in the weights, so
    this is for answers that only ever leave through the system.

    The auditor sees the answer, so it catches what a filter of prompts cannot: a question about somebody else whose
    answer reveals the subject. Of a long list only the `nearest` subjects are put into the prompts (named ones first,
    then by likeness of letters), so that the cost of a query stays the same.

    It fails closed: time-outs, malformed replies and counts that do not match end in the refusal (`on_error="raise"`
    passes them on). Data is handed to the agents as JSON, apart from the instructions; as words can still talk an
    agent round, a final answer that names a subject literally is refused whatever the agents said (`last_check`).

    Without generators of your own the model itself answers and the others are string rules on names, aliases and
    facts: an *orchestration check*, which shows that the parts work together and says nothing about the quality of
    language models as agents. The log's `evidence` says which it was, `backend` who did the work. For a real run
    give `OpenAIGenerator(...)`, or `HFGenerator(...)` around a local instruction-tuned model; a JSON file with a
    generator's settings will do (`alu:critic=judge.json`).

    From the request it takes `extras["subjects"]` (names), and, where offered, `aliases` (name -> other names),
    `links` (name -> facts that must not be told) and `related` (name -> people through whom the facts lead to the
    subject). Its answer is a system of text in, text out: `respond(prompts)` and `answer(prompt)`, which gives the
    whole trace; it has no logits to look at.

    Errors: no subjects, one named "None", a threshold outside 1..5, more to keep than candidates. A critic that
    supports no JSON schema is read line by line, with a warning.
    Cost: 4 calls a query when nothing is found, at most 6 otherwise, one of them for `candidates` replies; building
    the index of subjects is linear in their number. No training; stores the list of subjects beside the model.
    Reference: Sanyal and Mandal, "Agents Are All You Need for LLM Unlearning", COLM 2025, arXiv 2502.00406.
    """

    card = Card(
        "alu",
        "Agents Are All You Need for LLM Unlearning",
        paper=Paper("Sanyal and Mandal", 2025, arxiv="2502.00406", venue="COLM"),
        kind="system",
        tasks=("causal-lm",),
        needs=("subjects", "text"),
        code="respailab/agentic-llm-unlearning",
        licence="MIT",
        tunes={"threshold": Range(3.0, 5.0), "keep": Range(1, 5, integer=True)},
    )
    vanilla: GeneratorField | None = None  #: answers the query; default: the model itself
    auditor: GeneratorField | None = None  #: finds and erases subjects; default: string rules
    critic: GeneratorField | None = None  #: rates candidates; default: string rules
    composer: GeneratorField | None = None  #: merges the best; default: string rules
    subjects: tuple[str, ...] | None = None  #: names to forget; default: the request's
    aliases: Mapping[str, tuple[str, ...]] | None = None  #: name -> other names; default: the request's
    links: Mapping[str, tuple[str, ...]] | None = None  #: name -> facts about it; default: the request's
    related: Mapping[str, tuple[str, ...]] | None = None  #: name -> people who lead to it; default: the request's
    candidates: PositiveInt = 5  #: rewrites of an answer
    keep: PositiveInt = 3  #: best candidates that are merged
    threshold: float = Field(4.0, ge=1.0, le=5.0)  #: mean rating of the best below which the query is refused
    nearest: PositiveInt = 20  #: subjects that the agents are told of
    temperature: NonNegativeFloat = 0.7  #: of the rewrites, so that they differ
    max_tokens: PositiveInt = 512  #: of each reply
    prompts: Prompts | None = None  #: instructions of the agents; default: ours
    on_error: OnError = "refuse"  #: what an agent's failure ends in
    last_check: bool = True  #: refuse a final answer that names a subject; ours, not the paper's
    seed: int = 0  #: of the rewrites' sampling, where the backend supports one

    @field_validator("subjects")
    @classmethod
    def _somebody(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("the list of subjects is empty; give names, or None for those of the request")
        return value

    @field_validator("keep")
    @classmethod
    def _of_the_candidates(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("candidates", value):
            raise ValueError(f"of {info.data['candidates']} candidates no {value} can be kept")
        return value

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        method = self if self.subjects is not None else self.for_subjects(requested(request))
        system = AgentSystem(model, request.need("text"), method)  # type: ignore[arg-type]
        roles = {role: getattr(system.agents, role) for role in ("vanilla", "auditor", "critic", "composer")}
        rules = any(held.evidence != "quality" for held in roles.values())
        note(
            backend={role: held.name for role, held in roles.items()},
            evidence="orchestration check" if rules else "quality",
            subjects=len(method.people),
        )
        return system

    def answer(self, query: str) -> AgentTrace:
        """Answer one query, without any model of didact's: for a `vanilla` behind an API."""
        return self.own_agents.run(query)

    def agents(self, vanilla: TextGenerator) -> Agents:
        """The agents at work, with `vanilla` to answer."""
        return Agents(
            vanilla,
            self.auditor or RuleAuditor(),
            self.critic or RuleCritic(),
            self.composer or RuleComposer(),
            SubjectIndex(self.people),
            self.prompts or Prompts(),
            self.candidates,
            self.keep,
            self.threshold,
            self.nearest,
            self.temperature,
            self.max_tokens,
            self.seed,
            self.on_error,
            self.last_check,
        )

    @property
    def people(self) -> tuple[Subject, ...]:
        """The subjects with all that is known about them."""
        lists = (self.aliases or {}, self.links or {}, self.related or {})
        return tuple(Subject(name, *(tuple(found.get(name, ())) for found in lists)) for name in self.subjects or ())

    def for_subjects(self, subjects: Sequence[Subject]) -> AgenticForgetting:
        """The same method for these subjects."""
        lists = {
            "subjects": tuple(s.name for s in subjects),
            "aliases": {s.name: s.aliases for s in subjects if s.aliases},
            "links": {s.name: s.facts for s in subjects if s.facts},
            "related": {s.name: s.related for s in subjects if s.related},
        }
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **lists})

    @cached_property
    def own_agents(self) -> Agents:
        """The agents with a `vanilla` of their own."""
        if self.subjects is None or self.vanilla is None:
            raise BadInput(
                "To answer without a request, alu needs `subjects` and a `vanilla` generator: "
                'AgenticForgetting(vanilla=..., subjects=("...",)). With a model, call unlearn(model, forget, ...).'
            )
        return self.agents(self.vanilla)

    claim = Claim(
        "an audit of the answers catches what a filter of the prompts lets through, leaves other answers alone, and "
        "costs the same for a thousand subjects as for ten",
        on="bios-mentor",
        seeds=3,
        expects=[
            at_most("leak_rate", 0.05),
            at_least("leak_rate", 0.8, arm="prompt-filter"),
            at_least("unchanged", 0.98),
            at_most("calls_most", 6),
            custom(
                "as many calls a query at 1000 subjects as at 10",
                lambda rows: -abs(rows["self"]["calls_1000"] - rows["self"]["calls_10"]),
                arms=("self",),
            ),
            at_most("seconds_ratio", 2.0),
        ],
        arms={
            "original": "original",
            "single-agent": "single-agent",
            "in-context-unlearning": "in-context-unlearning",
            "without-last-check": "alu:last_check=false",
        },
        note="An orchestration check: auditor, critic and composer are string rules, so this says nothing about "
        "language models as agents. The leak rate is 0 without the last check as well. Of the other questions "
        "about entangled people 3 to 8 % are changed without need: a fact that they share with their mentor counts as "
        "an allusion. The two baselines that put text before the prompt leak 4 to 20 %, but leave at most 3 % of the "
        "unrelated answers as they were: this small model was never taught to follow instructions or demonstrations.",
    )


def requested(request: Request) -> tuple[Subject, ...]:
    """The subjects of a request, with what it says about them."""
    names = request.need("subjects")
    if not names:
        raise BadInput("The request's list of subjects is empty. Name at least one in extras['subjects'].")
    lists: list[Mapping[str, Any]] = [request.extras.get(name, {}) for name in ("aliases", "links", "related")]
    return tuple(Subject(name, *(tuple(found.get(name, ())) for found in lists)) for name in names)

"""The five functions of agentic forgetting: what the state holds, and the four agents that fill it in.

Every way in which an agent can fail ends in a refusal: no answer leaves that was not audited, rated and checked.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from didact.core.errors import BadInput, MissingExtra
from didact.forgetting.alu.prompts import Prompts
from didact.forgetting.alu.subjects import Subject, SubjectIndex, spaced
from didact.models.text_generation import GeneratorError, TextGenerator

OnError = Literal["refuse", "raise"]

#: form of the critic's ratings; bounds and count are checked here, as not every server knows such keywords
RATINGS = {
    "type": "object",
    "properties": {"ratings": {"type": "array", "items": {"type": "integer"}}},
    "required": ["ratings"],
    "additionalProperties": False,
}
_RATING_LINE = re.compile(r"^\W*candidate\s+(\d+)\W*?[:=-]\W*?([1-5])(?![\d.])", re.IGNORECASE | re.MULTILINE)


class Malformed(GeneratorError):
    """An agent answered in a form that cannot be relied on."""


@dataclass(frozen=True)
class State:
    """What is known about a query so far; each agent returns it with its own part filled in."""

    query: str
    answer: str = ""  #: of the untouched model
    max_tokens: int = 256  #: of that answer
    subjects: tuple[Subject, ...] = ()  #: nearest to query and answer: those that the agents are told of
    target: str | None = None  #: the subject that query or answer gives away
    candidates: tuple[str, ...] = ()
    reasons: str = ""  #: the critic's review
    ratings: tuple[int, ...] = ()  #: one a candidate, 1 (plain) to 5 (no trace)
    kept: tuple[str, ...] = ()  #: the candidates that were merged
    final: str = ""
    refused: str = ""  #: why the final answer is the fixed refusal; empty when it is not


@dataclass(frozen=True)
class AgentTrace:
    """How a query was answered: the state after each stage, and what each stage cost."""

    states: tuple[tuple[str, State], ...]
    calls: dict[str, int]  #: calls of generators, by stage
    seconds: dict[str, float]  #: by stage

    @property
    def state(self) -> State:
        return self.states[-1][1]

    @property
    def final(self) -> str:
        return self.state.final

    @property
    def total_calls(self) -> int:
        return sum(self.calls.values())

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Agents:
    """Four generators, the subjects, and the settings of the flow."""

    vanilla: TextGenerator
    auditor: TextGenerator
    critic: TextGenerator
    composer: TextGenerator
    index: SubjectIndex
    prompts: Prompts = field(default_factory=Prompts)
    candidates: int = 5
    keep: int = 3
    threshold: float = 4.0
    nearest: int = 20
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int = 0
    on_error: OnError = "refuse"
    last_check: bool = True

    def __post_init__(self) -> None:
        if not self.critic.supports_schema:
            warnings.warn(
                f"The critic {self.critic.name} supports no JSON schema: its ratings are read from the lines "
                "'Candidate 1: 5' of its review, and every query is refused whose review has another form.",
                stacklevel=3,
            )

    def run(self, query: str, answer: str | None = None, max_tokens: int | None = None) -> AgentTrace:
        """Answer a query. An `answer` of the untouched model that is known already is not asked for again."""
        states: list[tuple[str, State]] = []
        calls: dict[str, int] = {}
        seconds: dict[str, float] = {}
        state = State(query, answer or "", max_tokens or self.max_tokens)
        try:
            for name, agent in FLOW.items():
                if agent is vanilla and answer is not None:
                    continue
                before, start = self._calls(), time.perf_counter()
                try:
                    state = agent(self, state)
                finally:
                    calls[name] = self._calls() - before
                    seconds[name] = time.perf_counter() - start
                states.append((name, state))
        except (BadInput, MissingExtra):  # not this query is at fault, but how the agents were set up
            raise
        except Exception as error:
            if self.on_error == "raise":
                raise
            warnings.warn(f"A query was refused because its agents failed: {error}", stacklevel=2)
            states.append(("failed", refusal(self, state, f"{type(error).__name__}: {error}")))
        return AgentTrace(tuple(states), calls, seconds)

    def _calls(self) -> int:
        everybody = {id(g): g for g in (self.vanilla, self.auditor, self.critic, self.composer)}
        return sum(g.calls for g in everybody.values())


# -- the agents --------------------------------------------------------------------------------------------------------


def vanilla(agents: Agents, state: State) -> State:
    """The untouched model answers; it knows of no subjects."""
    messages = [{"role": "user", "content": state.query}]
    return replace(state, answer=agents.vanilla.generate(messages, max_tokens=state.max_tokens)[0])


def audit_erase(agents: Agents, state: State) -> State:
    """Name the subject that query or answer gives away, and write the answer `candidates` times without it.

    Where there is none the candidates are copies of the answer: the critic judges them as well.
    """
    near = tuple(agents.index.nearest(f"{state.query}\n{state.answer}", agents.nearest))
    state = replace(state, subjects=near)
    data = {"query": state.query, "answer": state.answer, "subjects": [s.as_json for s in near]}
    reply = agents.auditor.generate(agents.prompts.messages("audit", data), max_tokens=agents.max_tokens)[0]
    target = parse_target(reply, agents.index)
    if target is None:
        return replace(state, candidates=(state.answer,) * agents.candidates)
    rewrites = agents.auditor.generate(
        agents.prompts.messages("rewrite", {**data, "target": target.as_json, "refusal": agents.prompts.refusal}),
        n=agents.candidates,
        temperature=agents.temperature,
        max_tokens=agents.max_tokens,
        seed=agents.seed,
    )
    return replace(
        state, target=target.name, candidates=tuple(text.strip() or agents.prompts.refusal for text in rewrites)
    )


def critic(agents: Agents, state: State) -> State:
    """Rate every candidate from 1 (plain) to 5 (no trace); equal candidates are shown once."""
    distinct = list(dict.fromkeys(state.candidates))
    review = agents.critic.generate(
        agents.prompts.messages(
            "rate",
            {
                "query": state.query,
                "subjects": [s.as_json for s in state.subjects],
                "target": state.target,
                "candidates": [{"number": i, "text": text} for i, text in enumerate(distinct, 1)],
            },
        ),
        max_tokens=agents.max_tokens,
    )[0]
    state = replace(state, reasons=review)
    rated = dict(zip(distinct, _extracted(agents, review, len(distinct)), strict=True))
    return replace(state, ratings=tuple(rated[text] for text in state.candidates))


def composer(agents: Agents, state: State) -> State:
    """Merge the best candidates into the final answer, or refuse when they are not clean enough."""
    best = best_rated(state.ratings, agents.keep)
    mean = sum(state.ratings[i] for i in best) / len(best)
    if mean < agents.threshold:
        return refusal(agents, state, f"the best {len(best)} candidates are rated {mean:.3f} on average")
    kept = tuple(state.candidates[i] for i in best)
    state = replace(state, kept=kept)
    if len(set(kept)) == 1:  # nothing to merge; an answer that passed must come out as it was
        return _checked(agents, state, kept[0])
    data = {
        "query": state.query,
        "subjects": [s.as_json for s in state.subjects],
        "candidates": [{"number": i, "text": text} for i, text in enumerate(kept, 1)],
        "refusal": agents.prompts.refusal,
    }
    merged = agents.composer.generate(agents.prompts.messages("compose", data), max_tokens=agents.max_tokens)[0]
    return _checked(agents, state, merged.strip() or agents.prompts.refusal)


FLOW: dict[str, Callable[[Agents, State], State]] = {
    "vanilla": vanilla,
    "audit-erase": audit_erase,
    "critic": critic,
    "composer": composer,
}

# -- what they rest on -------------------------------------------------------------------------------------------------


def refusal(agents: Agents, state: State, why: str) -> State:
    return replace(state, final=agents.prompts.refusal, refused=why)


def parse_target(reply: str, index: SubjectIndex) -> Subject | None:
    """The subject that the auditor names; None only when the whole reply is the word None.

    Raises:
        Malformed: it names nobody known and is not "None" either ("None of them", "Nonesuch").
    """
    said = spaced(reply)
    if said == " none ":
        return None
    named = index.named(reply)
    exactly = [subject for subject in named if said in map(spaced, subject.names)]
    if named:  # a reply may be wordier than asked for
        return (exactly or named)[0]
    raise Malformed(f"The auditor's reply is neither a subject nor None: {reply!r:.80}.")


def best_rated(ratings: Sequence[int], keep: int) -> list[int]:
    """Places of the `keep` highest ratings, the earlier first among equals."""
    return sorted(range(len(ratings)), key=lambda i: -ratings[i])[:keep]


def parse_ratings(values: Any, count: int) -> tuple[int, ...]:
    """`count` whole numbers from 1 to 5.

    Raises:
        Malformed: another number of them, or something else among them.
    """
    whole = isinstance(values, list) and all(type(v) is int and 1 <= v <= 5 for v in values)
    if not whole or len(values) != count:
        raise Malformed(f"The critic was to give {count} whole numbers from 1 to 5, but gave {values!r:.80}.")
    return tuple(values)


def ratings_in_words(review: str, count: int) -> tuple[int, ...]:
    """The ratings in the lines "Candidate 1: 5" of a review; each candidate must have exactly one."""
    found = [(int(number), int(rating)) for number, rating in _RATING_LINE.findall(review)]
    if sorted(number for number, _ in found) != list(range(1, count + 1)):
        raise Malformed(
            f"The critic's review should have one line 'Candidate i: rating' for each of {count} candidates, but has "
            f"{[number for number, _ in found]}."
        )
    return tuple(rating for _, rating in sorted(found))


def _extracted(agents: Agents, review: str, count: int) -> tuple[int, ...]:
    if not agents.critic.supports_schema:
        return ratings_in_words(review, count)
    messages = agents.prompts.messages("extract", {"review": review, "count": count})
    reply = agents.critic.generate(messages, max_tokens=agents.max_tokens, schema=RATINGS)[0]
    return parse_ratings(json.loads(reply)["ratings"], count)


def _checked(agents: Agents, state: State, final: str) -> State:
    """The last line of defence, which no wording can talk round: a final answer that names a subject is refused."""
    named = agents.index.named(final) if agents.last_check else []
    if named:
        return refusal(agents, state, f"the last check found {named[0].name} in the final answer")
    return replace(state, final=final)

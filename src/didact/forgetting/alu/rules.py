"""Agents by string rules: what is named is found, deleted and rated. They check the orchestration, not its quality.

Each reads what the prompt hands over, subjects included, so that it needs no setting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any, ClassVar

from didact.forgetting.alu.agents import Malformed, ratings_in_words
from didact.forgetting.alu.subjects import Subject, Words, alluded_to, named_in, phrase_pattern, spaced, visible
from didact.models.text_generation import Ask, RuleGenerator, generator

_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CLAUSE = re.compile(r"\s*(?:[,;:]|\b(?:and|but|by|who|which|whose|while|because)\b)\s*")
#: what a sentence may end in
_END = ".!? "


class _Agent(RuleGenerator):
    """A rule for every task that an agent can be set."""

    tasks: ClassVar[tuple[str, ...]] = ()  #: each a method of that name

    def __init__(self, name: str = "rules") -> None:
        super().__init__(name=name)

    def replies(self, ask: Ask) -> Sequence[str]:
        try:
            data = json.loads(ask.messages[-1]["content"])
            task = {name: getattr(self, name) for name in self.tasks}[data["task"]]
            replies: Sequence[str] = task(data)
        except (ValueError, KeyError, TypeError):
            raise Malformed(f"{type(self).__name__} has no rule for {ask.messages[-1]['content']!r:.80}.") from None
        return replies

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}


@generator("alu-rule-auditor")
class RuleAuditor(_Agent):
    """Names the first subject whose name or alias occurs in query or answer, or who is alluded to: one of its facts
    beside somebody related. Rewrites by deleting sentences, clauses, names, names and facts, or everything."""

    tasks = ("audit", "rewrite")

    def audit(self, data: dict[str, Any]) -> list[str]:
        words = Words(f"{data['query']}\n{data['answer']}")
        subjects = _subjects(data)
        found = [s for s in subjects if named_in(words, s)] or [s for s in subjects if alluded_to(words, s)]
        return [found[0].name if found else "None"]

    def rewrite(self, data: dict[str, Any]) -> list[str]:
        answer, target = visible(data["answer"]), Subject.of_json(data["target"])
        names = [name for subject in (target, *_subjects(data)) for name in subject.names]
        traces = [*names, *target.facts]
        rewrites = [
            " ".join(part for part in _SENTENCE.split(answer) if not Words(part).have_any(traces)),
            " ".join(filter(None, (_without_clauses(part, traces) for part in _SENTENCE.split(answer)))),
            _without(answer, names),
            _without(answer, traces),
            data["refusal"],
        ]
        return [text if text.strip(_END) else data["refusal"] for text in rewrites]


@generator("alu-rule-critic")
class RuleCritic(_Agent):
    """1 for a candidate that names a subject, 3 for a fact about the target or an allusion, else 5."""

    tasks = ("rate", "extract")

    def rate(self, data: dict[str, Any]) -> list[str]:
        subjects = _subjects(data)
        target = [s for s in subjects if s.name == data["target"]]
        lines = []
        for candidate in data["candidates"]:
            text = Words(candidate["text"])
            both = Words(f"{data['query']}\n{candidate['text']}")
            if any(named_in(text, s) for s in subjects):
                rating = 1
            elif any(text.have_any(s.facts) for s in target) or _alludes(text, both, subjects):
                rating = 3
            else:
                rating = 5
            lines.append(f"Candidate {candidate['number']}: {rating}")
        return ["\n".join(lines)]

    def extract(self, data: dict[str, Any]) -> list[str]:
        return [json.dumps({"ratings": list(ratings_in_words(data["review"], data["count"]))})]


@generator("alu-rule-composer")
class RuleComposer(_Agent):
    """Joins the sentences of all candidates, each thing once: of two that say nearly the same the first stays.

    Beside anything else that can be said, a refusal is left out."""

    tasks = ("compose",)

    def compose(self, data: dict[str, Any]) -> list[str]:
        texts = [candidate["text"].strip() for candidate in data["candidates"]]
        kept: list[str] = []
        for text in [text for text in texts if text != data["refusal"]] or texts[:1]:
            for sentence in _SENTENCE.split(text):
                if sentence.strip(_END) and not any(_alike(sentence, other) for other in kept):
                    kept.append(sentence)
        return [" ".join(kept)]


def _subjects(data: dict[str, Any]) -> list[Subject]:
    return [Subject.of_json(subject) for subject in data["subjects"]]


def _alludes(text: Words, with_query: Words, subjects: Sequence[Subject]) -> bool:
    """A fact in the text itself, beside somebody related in text or query."""
    return any(text.have_any(s.facts) and alluded_to(with_query, s) for s in subjects)


def _without_clauses(sentence: str, traces: Sequence[str]) -> str:
    """The sentence up to the clause that holds the first trace."""
    ends = [found.start() for found in _CLAUSE.finditer(sentence)] + [len(sentence)]
    clean = [end for end in ends if not Words(sentence[:end]).have_any(traces)]
    kept = sentence[: clean[-1]].rstrip() if clean else ""
    return kept if not kept or kept[-1] in _END else f"{kept} ."


def _without(text: str, phrases: Sequence[str]) -> str:
    for phrase in sorted(set(phrases), key=len, reverse=True):  # a longer name first, so that no part of it remains
        text = phrase_pattern(phrase).sub(" ", text)
    return re.sub(r"[ \t]+", " ", text).strip()


def _alike(a: str, b: str) -> bool:
    one, other = spaced(a).split(), spaced(b).split()
    shared = sum(block.size for block in SequenceMatcher(None, one, other).get_matching_blocks())
    return shared >= 0.8 * min(len(one), len(other))

"""String rules as a text generator: they show how the parts of a system work together, and nothing about quality."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from didact.core.errors import BadInput
from didact.models.text_generation.base import Ask, Evidence, GeneratorError, TextGenerator, generator


@dataclass(frozen=True)
class Rule:
    """Where the regular expression `pattern` is found, the k-th reply is `replies[k]` (again from the start when they
    are used up), with `\\1` or `\\g<name>` for the groups found."""

    pattern: str
    replies: tuple[str, ...]


@generator("rules")
class RuleGenerator(TextGenerator):
    """The first rule whose pattern occurs in the last message answers; a default, or an error, when none does.

    Matching ignores case. Subclasses with rules of their own override `replies`.

    Args:
        rules: tried in this order; a pair (pattern, reply) will do.
        default: reply when no rule applies; without one that is a GeneratorError.
    """

    evidence: Evidence = "orchestration check"
    supports_schema = True  # a rule whose reply is JSON; the schema is checked like anybody's

    def __init__(
        self,
        rules: Sequence[Rule | tuple[str, str | Sequence[str]] | Mapping[str, Any]] = (),
        default: str | None = None,
        name: str = "rules",
    ) -> None:
        super().__init__(name)
        self.rules = tuple(_rule(rule) for rule in rules)
        self.default = default

    def replies(self, ask: Ask) -> Sequence[str] | None:
        """All replies these rules know to a request; None when no rule applies."""
        text = ask.messages[-1]["content"]
        for rule in self.rules:
            found = re.search(rule.pattern, text, re.IGNORECASE)
            if found:
                return [_filled(found, reply) for reply in rule.replies]
        return None if self.default is None else [self.default]

    def _reply(self, ask: Ask) -> Sequence[str]:
        known = self.replies(ask)
        if not known:
            raise GeneratorError(f"No rule of {self.name} applies to {ask.messages[-1]['content']!r:.80}.")
        return [known[k % len(known)] for k in range(ask.n)]

    @property
    def settings(self) -> dict[str, Any]:
        rules = [{"pattern": rule.pattern, "replies": list(rule.replies)} for rule in self.rules]
        return {"kind": self.kind, "name": self.name, "rules": rules, "default": self.default}


def _filled(found: re.Match[str], reply: str) -> str:
    try:
        return found.expand(reply)
    except (re.error, IndexError) as error:
        raise GeneratorError(
            f"The reply {reply!r:.60} names a group that its pattern does not have: {error}."
        ) from None


def _rule(rule: Rule | tuple[str, str | Sequence[str]] | Mapping[str, Any]) -> Rule:
    if not isinstance(rule, Rule):
        pattern, replies = (rule["pattern"], rule["replies"]) if isinstance(rule, Mapping) else rule
        rule = Rule(pattern, (replies,) if isinstance(replies, str) else tuple(replies))
    try:
        re.compile(rule.pattern)
    except re.error as error:
        raise BadInput(f"The rule's pattern {rule.pattern!r} is no regular expression: {error}.") from None
    if not rule.replies:
        raise BadInput(f"The rule {rule.pattern!r} has no reply. Give at least one text.")
    return rule

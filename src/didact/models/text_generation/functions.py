"""A Python function as a text generator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from didact.core.errors import DidactError
from didact.models.text_generation.base import Ask, Evidence, GeneratorError, TextGenerator, generator

_OPTIONS = ("n", "temperature", "max_tokens", "schema", "seed")


@generator("callable")
class CallableGenerator(TextGenerator):
    """Any function of the messages: `function(messages)` returns one text.

    Of `n`, `temperature`, `max_tokens`, `schema` and `seed` it gets those that it has parameters for. One that takes
    `n` returns a list of texts; any other is called n times. What it raises becomes a GeneratorError.

    Args:
        schema: it keeps to the schema it is given.
        evidence: "quality" when a language model stands behind the function.
    """

    in_memory = True

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        *,
        schema: bool = False,
        evidence: Evidence = "orchestration check",
    ) -> None:
        super().__init__(name or str(getattr(function, "__name__", type(function).__name__)))
        self.function = function
        self.supports_schema = schema
        self.evidence = evidence
        parameters = inspect.signature(function).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._takes = tuple(option for option in _OPTIONS if anything or option in parameters)

    def _reply(self, ask: Ask) -> Sequence[str]:
        options = {name: getattr(ask, name) for name in self._takes}
        messages = [dict(message) for message in ask.messages]
        try:
            if "n" not in self._takes:
                return [self.function(messages, **options) for _ in range(ask.n)]
            replies = self.function(messages, **options)
        except DidactError:
            raise
        except Exception as error:
            raise GeneratorError(f"The function {self.name} raised {type(error).__name__}: {error}") from error
        return [replies] if isinstance(replies, str) else list(replies)

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CallableGenerator) and self.function is other.function

    __hash__ = TextGenerator.__hash__

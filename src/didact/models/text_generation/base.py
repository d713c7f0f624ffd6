"""TextGenerator: messages in, texts out, whatever writes them."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, PlainSerializer

from didact.core.errors import BadInput, DidactError
from didact.models.text_generation.schema import Mismatch, conforming

#: {"role": "system" | "user" | "assistant", "content": text}
Message = Mapping[str, str]
#: what a result made with a generator can be evidence of
Evidence = Literal["quality", "orchestration check"]

ROLES = ("system", "user", "assistant")


class GeneratorError(DidactError):
    """A text generator gave no usable answer: it failed, was too slow, or answered in another form than asked."""


@dataclass(frozen=True)
class Ask:
    """One checked request to a generator."""

    messages: tuple[dict[str, str], ...]
    n: int = 1
    temperature: float = 0.0
    max_tokens: int = 256
    schema: Mapping[str, Any] | None = None
    seed: int | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class TextGenerator(ABC):
    """Base of all generators. An adapter implements `_reply`; everything that is checked is checked here.

    `name` goes into result rows, and `evidence` says what they show: what a language model wrote measures quality,
    what rules or a replay wrote only checks that the parts work together. `calls` counts calls of `generate`.
    `settings` are JSON values from which `generator_from` makes an equal generator; no key is ever among them.
    """

    kind: ClassVar[str] = ""
    in_memory: ClassVar[bool] = False  #: holds an object that no settings describe
    evidence: Evidence = "quality"
    supports_schema: bool = False  #: can its replies be held to a JSON schema?

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0

    def generate(
        self,
        messages: Sequence[Message],
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 256,
        schema: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> list[str]:
        """`n` replies to a conversation.

        Args:
            messages: role and content of each turn, oldest first.
            temperature: 0 for the most probable reply, every time the same.
            max_tokens: bound on the length of a reply.
            schema: JSON schema; every reply is then JSON text that fits it.
            seed: of the sampling, where the backend supports one.

        Raises:
            GeneratorError: no usable reply.
            BadInput: malformed messages or settings, or a schema for a generator that cannot be held to one.
        """
        ask = _checked(messages, n, temperature, max_tokens, schema, seed)
        if schema is not None and not self.supports_schema:
            raise BadInput(f"The generator {self.name} cannot be held to a schema. Ask without one and read its text.")
        self.calls += 1
        replies = self._reply(ask)
        if len(replies) != n or not all(isinstance(reply, str) for reply in replies):
            raise GeneratorError(f"The generator {self.name} was asked for {n} texts, but gave {replies!r:.80}.")
        if schema is None:
            return list(replies)
        try:
            return [conforming(reply, schema) for reply in replies]
        except Mismatch as error:
            raise GeneratorError(f"The generator {self.name} did not keep to the schema: {error}") from None

    @abstractmethod
    def _reply(self, ask: Ask) -> Sequence[str]:
        """Exactly `ask.n` texts; GeneratorError when there are none."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """JSON values: `kind`, and the constructor's arguments."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextGenerator) and self.settings == other.settings

    def __hash__(self) -> int:
        return hash((self.kind, self.name))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name})"


_kinds: dict[str, type[TextGenerator]] = {}

T = TypeVar("T", bound=type[TextGenerator])


def generator(kind: str) -> Callable[[T], T]:
    """Class decorator: make a generator known under a kind, so that `generator_from` finds it."""

    def decorate(cls: T) -> T:
        cls.kind = kind
        _kinds[kind] = cls
        return cls

    return decorate


def generator_from(settings: Mapping[str, Any], given: Mapping[str, TextGenerator] | None = None) -> TextGenerator:
    """The generator that `settings` describe; those that live in memory only are looked up by name in `given`.

    Raises:
        BadInput: an unknown kind, wrong settings, or a generator in memory that was not given.
    """
    own = dict(settings)
    kind = own.pop("kind", None)
    if given and own.get("name") in given:
        return given[own["name"]]
    if kind not in _kinds:
        raise BadInput(f"There is no text generator of the kind {kind!r}. Known: {', '.join(sorted(_kinds))}.")
    if _kinds[kind].in_memory:
        name = own.get("name")
        raise BadInput(
            f"The generator {name!r} ({kind}) exists in memory only. Give it again, in code: given={{{name!r}: ...}}."
        )
    try:
        return _kinds[kind](**own)
    except TypeError as error:
        raise BadInput(f"These are no settings of a text generator of the kind {kind!r}: {error}") from None


def _from_json(value: Any) -> Any:
    if isinstance(value, (str, Path)):
        value = _read(Path(value))
    return generator_from(value) if isinstance(value, Mapping) else value


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{file} holds no settings of a text generator ({error}). Expected a JSON object such as "
            '{"kind": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "...", "api_key_env": null}.'
        ) from None


#: a method's field that holds a generator: given as object, as its settings or as a JSON file with them; stored as its
#: settings
GeneratorField = Annotated[
    TextGenerator,
    BeforeValidator(_from_json),
    PlainSerializer(lambda held: held.settings, return_type=dict[str, Any]),
]


def _checked(
    messages: Sequence[Message],
    n: int,
    temperature: float,
    max_tokens: int,
    schema: Mapping[str, Any] | None,
    seed: int | None,
) -> Ask:
    if isinstance(messages, (str, Mapping)) or not messages:
        raise BadInput('Give a list of messages, such as [{"role": "user", "content": "Who wrote Faust?"}].')
    for message in messages:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            raise BadInput(
                f"A message has a role ({', '.join(ROLES)}) and a text as content, but one is {dict(message)!r:.80}."
            )
    if n < 1 or max_tokens < 1:
        raise BadInput(f"n and max_tokens must be at least 1, but n={n} and max_tokens={max_tokens} were given.")
    if not 0 <= temperature < math.inf:
        raise BadInput(f"The temperature must be 0 or a positive number, but {temperature} was given.")
    turns = tuple({"role": m["role"], "content": m["content"]} for m in messages)
    return Ask(turns, n, float(temperature), max_tokens, schema, seed)

"""Any OpenAI-compatible endpoint as a text generator: OpenAI itself, vLLM, llama.cpp, Ollama, a gateway."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from typing import Any

from didact.core.errors import BadInput, MissingExtra
from didact.models.text_generation.base import Ask, GeneratorError, TextGenerator, generator

#: added for servers that refuse `response_format`
_IN_WORDS = "Reply with JSON only, without any other text, that fits this JSON schema:\n"


@generator("openai")
class OpenAIGenerator(TextGenerator):
    """Chat completions of an endpoint that speaks OpenAI's protocol, through the `openai` package.

    Time-outs, broken connections, rate limits (429) and server errors (5xx) are tried again, `retries` times, after
    the wait that the server asks for or a growing one (half a second, doubled up to eight). A schema is sent as
    `response_format`; a server that refuses it is asked in words from then on, with a warning. A server that gives
    fewer replies than asked for is asked again for the rest.

    Cost: at most (retries + 1) * timeout seconds a request, waits not counted.

    Args:
        base_url: such as "https://api.openai.com/v1" or "http://127.0.0.1:8000/v1".
        model: its name on the server.
        api_key_env: name of the environment variable that holds the key; None for servers without keys. The key is
            read when it is needed and stored nowhere.
        timeout: seconds to wait for the server, each time.

    Raises:
        MissingExtra: the package `openai` is not installed.
        BadInput: the environment variable is not set (at the first call), or a wrong setting.
        GeneratorError: the server did not give a usable reply.
    """

    supports_schema = True

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = "OPENAI_API_KEY",
        timeout: float = 60.0,
        retries: int = 4,
        name: str | None = None,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise BadInput(f"base_url begins with http:// or https://, but {base_url!r} was given.")
        if timeout <= 0 or retries < 0:
            raise BadInput(f"timeout must be positive and retries at least 0, not {timeout} and {retries}.")
        super().__init__(name or model)
        self.base_url = base_url
        self.model = model
        self.api_key_env = api_key_env
        self.timeout = timeout
        self.retries = retries
        self._client: Any = None
        self._schema_in_words = False
        self._length_option = "max_tokens"

    def _reply(self, ask: Ask) -> Sequence[str]:
        replies: list[str] = []
        while len(replies) < ask.n:  # some servers give one reply whatever n is
            replies += self._texts(self._complete(ask, ask.n - len(replies), len(replies)))
        return replies[: ask.n]

    def _complete(self, ask: Ask, n: int, already: int) -> Any:
        """One completion; what this server refuses is put in another way, and so from then on."""
        try:
            return self._create(ask, n, already)
        except _openai().BadRequestError as error:
            if self._length_option == "max_tokens" and "max_completion_tokens" in str(error):
                self._length_option = "max_completion_tokens"
                return self._complete(ask, n, already)
            if ask.schema is None or self._schema_in_words:
                raise self._failed(error) from None
            return self._complete_in_words(ask, n, already, error)

    def _complete_in_words(self, ask: Ask, n: int, already: int, refusal: Exception) -> Any:
        self._schema_in_words = True
        try:
            completion = self._create(ask, n, already)
        except Exception as error:
            self._schema_in_words = False  # then it was not the schema that was refused
            raise error if isinstance(error, GeneratorError) else self._failed(refusal) from None
        warnings.warn(
            f"{self.base_url} refuses response_format ({_short(refusal)}): the schema is given in words from now on, "
            "and replies that do not fit are errors.",
            stacklevel=2,
        )
        return completion

    def _create(self, ask: Ask, n: int, already: int) -> Any:
        openai, client = _openai(), self._opened()
        try:
            return client.chat.completions.create(**self._options(ask, n, already))
        except openai.BadRequestError:
            raise
        except openai.UnprocessableEntityError as error:  # what some servers say in place of 400
            raise openai.BadRequestError(str(error), response=error.response, body=error.body) from None
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is not JSON
            raise self._failed(error) from None

    def _options(self, ask: Ask, n: int, already: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "model": self.model,
            "messages": [dict(message) for message in ask.messages],
            "temperature": ask.temperature,
            self._length_option: ask.max_tokens,
        }
        if n > 1:
            options["n"] = n
        if ask.seed is not None:
            options["seed"] = ask.seed + already  # asked again, the same seed would bring the same reply
        if ask.schema is not None and self._schema_in_words:
            words = _IN_WORDS + json.dumps(ask.schema, ensure_ascii=False)
            options["messages"].insert(0, {"role": "system", "content": words})
        elif ask.schema is not None:
            form = {"name": "reply", "schema": dict(ask.schema), "strict": True}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        return options

    def _texts(self, completion: Any) -> list[str]:
        choices = getattr(completion, "choices", None)
        if not choices:
            raise GeneratorError(f"{self.base_url} answered without a choice: {completion!r:.120}.")
        found = [getattr(getattr(choice, "message", None), "content", None) for choice in choices]
        texts = [text for text in found if isinstance(text, str)]
        if len(texts) < len(found):
            reasons = ", ".join(str(getattr(choice, "finish_reason", None)) for choice in choices)
            raise GeneratorError(f"{self.base_url} answered without a text (finish reason: {reasons}).")
        return texts

    def _failed(self, error: Exception) -> GeneratorError:
        openai = _openai()
        who, tries = f"The model {self.model} at {self.base_url}", self.retries + 1
        if isinstance(error, openai.APITimeoutError):
            return GeneratorError(
                f"{who} did not answer within {self.timeout:g} seconds ({tries} tries). Raise timeout or retries."
            )
        if isinstance(error, openai.APIConnectionError):
            return GeneratorError(f"{who} cannot be reached ({error.__cause__ or error}). Check base_url.")
        if isinstance(error, (openai.AuthenticationError, openai.PermissionDeniedError)):
            return GeneratorError(f"{who} refused the key in the environment variable {self.api_key_env}.")
        if isinstance(error, openai.NotFoundError):
            return GeneratorError(f"{who} was not found. Check base_url and the model's name. {_short(error)}")
        if isinstance(error, openai.RateLimitError):
            return GeneratorError(f"{who} is over its rate limit or quota (tries: {tries}). {_short(error)}")
        if isinstance(error, openai.APIStatusError):
            return GeneratorError(f"{who} answered with status {error.status_code}. {_short(error)}")
        return GeneratorError(f"{who} sent what is not a completion ({type(error).__name__}). {_short(error)}")

    def _opened(self) -> Any:
        if self._client is None:
            self._client = _openai().OpenAI(
                base_url=self.base_url, api_key=self._key(), timeout=self.timeout, max_retries=self.retries
            )
        return self._client

    def _key(self) -> str:
        if self.api_key_env is None:
            return "none"
        key = os.environ.get(self.api_key_env)
        if not key:
            raise BadInput(
                f"The environment variable {self.api_key_env} is not set. It must hold the key for {self.base_url}; "
                "for a server without keys pass api_key_env=None."
            )
        return key

    @property
    def settings(self) -> dict[str, Any]:
        names = ("base_url", "model", "api_key_env", "timeout", "retries", "name")
        return {"kind": self.kind, **{name: getattr(self, name) for name in names}}

    def __deepcopy__(self, memo: dict[int, Any]) -> OpenAIGenerator:
        """The same settings with a connection of its own: an open one, with its key, is never copied."""
        return OpenAIGenerator(**{k: v for k, v in self.settings.items() if k != "kind"})


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("openai", "agents") from None
    return openai


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "..."

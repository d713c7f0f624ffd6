"""Recorded conversations: write what a generator said, and play it again without it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from didact.core.errors import BadInput
from didact.models.text_generation.base import (
    Ask,
    Evidence,
    GeneratorError,
    TextGenerator,
    generator,
    generator_from,
)


@generator("recorder")
class Recorder(TextGenerator):
    """Passes everything on to another generator and appends request and replies to a JSONL file.

    The file is made when the first reply comes, one line a call; it holds the texts in the clear, so keep it where
    the texts may be kept. Failed calls are not recorded.
    """

    def __init__(self, generator: TextGenerator | Mapping[str, Any], file: str | Path) -> None:
        generator = generator if isinstance(generator, TextGenerator) else generator_from(generator)
        super().__init__(generator.name)
        self.generator = generator
        self.file = Path(file)
        self.supports_schema = generator.supports_schema
        self.evidence = generator.evidence

    def _reply(self, ask: Ask) -> Sequence[str]:
        replies = self.generator.generate(**ask.as_json)
        line = json.dumps({"name": self.name, "request": ask.as_json, "replies": replies}, ensure_ascii=False)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8", newline="\n") as out:
            out.write(line + "\n")
        return replies

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "generator": self.generator.settings, "file": str(self.file)}


@generator("replay")
class ReplayGenerator(TextGenerator):
    """Answers from a file that a `Recorder` wrote; a request that is not in it is an error.

    A request that was recorded several times is answered in the order of the recording, the last answer again and
    again once they are used up. All of the file is held in memory.

    Raises:
        BadInput: there is no such file, or a line of it is not a recorded call.
    """

    evidence: Evidence = "orchestration check"
    supports_schema = True

    def __init__(self, file: str | Path, name: str | None = None) -> None:
        self.file = Path(file)
        self._answers, recorded = _read(self.file)
        self._asked: dict[str, int] = defaultdict(int)
        super().__init__(name or f"replay of {' and '.join(sorted(recorded)) or 'nothing'}")

    def _reply(self, ask: Ask) -> Sequence[str]:
        key = _key(ask.as_json)
        known = self._answers.get(key)
        if known is None:
            raise GeneratorError(
                f"The recording {self.file.name} has no answer to this request: "
                f"{ask.messages[-1]['content']!r:.80} (n={ask.n}, temperature={ask.temperature}, seed={ask.seed}). "
                "Record again with the prompts and settings of now."
            )
        turn = min(self._asked[key], len(known) - 1)
        self._asked[key] += 1
        return known[turn]

    @property
    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "file": str(self.file), "name": self.name}


def _read(file: Path) -> tuple[dict[str, list[list[str]]], set[str]]:
    """Replies by request, and the names of the generators that gave them."""
    if not file.is_file():
        raise BadInput(f"There is no recording {file} to replay. Make one with Recorder(generator, file).")
    answers: dict[str, list[list[str]]] = defaultdict(list)
    names = set()
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    record = json.loads(line)
                    key, replies = _key(record["request"]), record["replies"]
                    if not (isinstance(replies, list) and all(isinstance(reply, str) for reply in replies)):
                        raise TypeError("replies are no list of texts")
                except (ValueError, KeyError, TypeError) as error:
                    raise BadInput(
                        f"{file}, line {number}: this is no recorded call ({type(error).__name__}: {error}). "
                        "Expected a line that a Recorder wrote."
                    ) from None
                answers[key].append(replies)
                names.add(str(record.get("name", "an unnamed generator")))
    return dict(answers), names


def _key(request: Mapping[str, Any]) -> str:
    """Everything that decides a reply, hashed."""
    return hashlib.sha256(json.dumps(request, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

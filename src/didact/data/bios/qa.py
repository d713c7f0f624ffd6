"""Questions with answers, and their files: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from didact.core.errors import BadInput
from didact.data.bios.templates import Attribute


@dataclass(frozen=True)
class QA:
    """A question about one fact. The ``value`` occurs in both right answers and in no wrong one.

    The wrong (perturbed) answers have the wording of the paraphrase, so that a truth ratio compares values
    only.
    """

    question: str
    question_variants: tuple[str, ...]
    answer: str
    paraphrased_answer: str
    perturbed_answers: tuple[str, ...]
    value: str
    subject: str
    attribute: str = ""

    def lines(self) -> tuple[tuple[str, str], ...]:
        """Four training lines (question, answer): canonical twice, both variants, the last paraphrased."""
        *others, last = self.question_variants
        plain = [(question, self.answer) for question in (self.question, self.question, *others)]
        return (*plain, (last, self.paraphrased_answer))


def make_qa(attribute: Attribute, subject: str, value: str, wrong: Sequence[str]) -> QA:
    return QA(
        question=attribute.question.format(n=subject),
        question_variants=tuple(variant.format(n=subject) for variant in attribute.variants),
        answer=attribute.answer.format(n=subject, v=value),
        paraphrased_answer=attribute.paraphrase.format(n=subject, v=value),
        perturbed_answers=tuple(attribute.paraphrase.format(n=subject, v=other) for other in wrong),
        value=value,
        subject=subject,
        attribute=attribute.name,
    )


def to_jsonl(items: Iterable[QA], path: str | Path) -> Path:
    """Write one JSON object a line (UTF-8), streaming; returns the path."""
    path = Path(path)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for item in items:
            file.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
    return path


def from_jsonl(path: str | Path) -> list[QA]:
    """Read questions written by ``to_jsonl`` or by hand; blank lines are passed over.

    Raises BadInput naming file and line where a line is not JSON, lacks a field, has an unknown one or a
    wrong type.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no file {path} to read questions from.")
    with path.open(encoding="utf-8") as file:
        return [_parse(line, f"{path}, line {number}") for number, line in enumerate(file, 1) if line.strip()]


def _parse(line: str, where: str) -> QA:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: this is not JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected a JSON object with the fields of QA, but found {type(record).__name__}.")
    known = [field.name for field in fields(QA)]
    for name in record:
        if name not in known:
            raise BadInput(f"{where}: the field {name!r} is unknown. The fields are {', '.join(known)}.")
    return QA(**{name: _field(record, name, where) for name in known})


def _field(record: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in record:
        if name == "attribute":
            return ""
        raise BadInput(f"{where}: the field {name!r} is missing.")
    value = record[name]
    several = name in ("question_variants", "perturbed_answers")
    if several and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if not several and isinstance(value, str):
        return value
    raise BadInput(f"{where}: the field {name!r} must be {'a list of texts' if several else 'a text'}, not {value!r}.")

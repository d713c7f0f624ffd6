"""Texts for language models: prompts with answers and plain documents, tokenised, with the words still at hand.

Methods that only train see what any causal language model takes: `input_ids`, `attention_mask`, `labels` (-100 on the
prompt). Methods that rewrite, paraphrase or look for names read `dataset.items`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import IGNORED
from didact.data.bios.qa import QA


@dataclass(frozen=True)
class TextItem:
    """A prompt with its answer, or a document (an empty prompt: every token is a target).

    What is below `answer` is optional and says more about it: `value` is what a right answer must contain, `subject`
    whom it is about, `paraphrase` another right answer, `wrong` answers in the paraphrase's words, `variants` other
    wordings of the prompt.
    """

    prompt: str
    answer: str
    value: str = ""
    subject: str = ""
    paraphrase: str = ""
    wrong: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    attribute: str = ""

    @property
    def is_document(self) -> bool:
        return not self.prompt

    @classmethod
    def of(cls, qa: QA) -> TextItem:
        return cls(
            qa.question,
            qa.answer,
            qa.value,
            qa.subject,
            qa.paraphrased_answer,
            qa.perturbed_answers,
            qa.question_variants,
            qa.attribute,
        )


class TextDataset(Dataset[dict[str, Tensor]]):
    """Tokenised texts: sample i is a mapping of `input_ids`, `attention_mask` and `labels`, each (T,) int64.

    A sample is [bos] prompt answer [eos]; a tokenizer with a chat template wraps the prompt by it. All tokens are held
    in memory (24 bytes each).

    Raises:
        BadInput: no items, an empty answer, or an item longer than `max_length` tokens.
    """

    def __init__(self, items: Iterable[TextItem], tokenizer: Any, *, max_length: int | None = None) -> None:
        self.items = tuple(items)
        self.tokenizer = tokenizer
        self.max_length = max_length
        if not self.items:
            raise BadInput("The text data set is empty. Give at least one text.")
        self._samples = [self._encode(item) for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> dict[str, Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> TextDataset: ...
    def __getitem__(self, index: int | slice) -> dict[str, Tensor] | TextDataset:
        return self._samples[index] if isinstance(index, int) else self.of(self.items[index])

    def __add__(self, other: Dataset[Any]) -> TextDataset:  # type: ignore[override]
        return self.of((*self.items, *texts_of(other).items))

    def of(self, items: Iterable[TextItem]) -> TextDataset:
        """Other items, with this tokenizer."""
        return TextDataset(items, self.tokenizer, max_length=self.max_length)

    def rows(self, indices: Iterable[int]) -> TextDataset:
        return self.of(self.items[i] for i in indices)

    @property
    def questions(self) -> TextDataset | None:
        """The items with a prompt, without the documents; None when there is none."""
        kept = [item for item in self.items if not item.is_document]
        return self.of(kept) if kept else None

    @property
    def documents(self) -> TextDataset | None:
        kept = [item for item in self.items if item.is_document]
        return self.of(kept) if kept else None

    def _encode(self, item: TextItem) -> dict[str, Tensor]:
        prompt = prompt_ids(self.tokenizer, item.prompt)
        answer = answer_ids(self.tokenizer, item.answer, after_prompt=bool(item.prompt))
        if not answer or answer == [self.tokenizer.eos_token_id]:
            raise BadInput(
                f"The item with the prompt {item.prompt!r:.60} has an empty answer: there is nothing to learn."
            )
        ids = [*prompt, *answer]
        if self.max_length is not None and len(ids) > self.max_length:
            raise BadInput(
                f"A text of {len(ids)} tokens exceeds max_length={self.max_length}: "
                f"{item.prompt or item.answer!r:.60}. Cut it or use a model with more positions."
            )
        tokens = torch.tensor(ids)
        labels = tokens.clone()
        labels[: len(prompt)] = IGNORED  # of a document: the bos token alone
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Token ids up to where the answer begins: [bos] prompt, or the chat template with the prompt as user turn."""
    if prompt and getattr(tokenizer, "chat_template", None):
        found = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        return list(tokenizer.encode(found, add_special_tokens=False))
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return [*start, *tokenizer.encode(prompt, add_special_tokens=False)]


def answer_ids(tokenizer: Any, answer: str, *, after_prompt: bool = True) -> list[int]:
    """Token ids of an answer with the end token. A space stands between prompt and answer."""
    text = f" {answer}" if after_prompt and not getattr(tokenizer, "chat_template", None) else answer
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return [*tokenizer.encode(text, add_special_tokens=False), *end]


def texts_of(dataset: Dataset[Any] | None) -> TextDataset:
    """The texts behind a data set; subsets and concatenations of text data sets count.

    Raises:
        NotApplicable: when the data set holds tokens only.
    """
    if isinstance(dataset, TextDataset):
        return dataset
    if isinstance(dataset, Subset):
        return texts_of(dataset.dataset).rows(dataset.indices)
    if isinstance(dataset, ConcatDataset):
        parts = [texts_of(part) for part in dataset.datasets]
        return parts[0].of(item for part in parts for item in part.items)
    raise NotApplicable(
        "This method reads the texts themselves, but was given tokens. Pass a didact.data.text.TextDataset, which "
        "keeps prompts, answers and the tokenizer."
    )


def has_texts(dataset: Dataset[Any] | None) -> bool:
    try:
        texts_of(dataset)
    except NotApplicable:
        return False
    return True


def text_dataset_from_file(path: str | Path, tokenizer: Any, *, max_length: int | None = None) -> TextDataset:
    """A text data set from a JSONL file: one object a line with `question`/`answer`, `prompt`/`completion` or `text`.

    Other fields of `TextItem` are read where they are given (`value`, `subject`, `paraphrase` or
    `paraphrased_answer`, `wrong` or `perturbed_answers`, `variants` or `question_variants`); others are ignored.

    Raises:
        BadInput: naming file and line, for what is not JSON or has neither of the three forms.
    """
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"There is no file {path} to read texts from.")
    items = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                items.append(_item(line, f"{path.name}, line {number}"))
    if not items:
        raise BadInput(f"{path.name} holds no text. Expected one JSON object a line.")
    return TextDataset(items, tokenizer, max_length=max_length)


#: field of an item -> names it may have in a file, first wins
_NAMES = {
    "prompt": ("prompt", "question", "instruction"),
    "answer": ("answer", "completion", "response", "text"),
    "value": ("value",),
    "subject": ("subject",),
    "paraphrase": ("paraphrase", "paraphrased_answer"),
    "wrong": ("wrong", "perturbed_answers"),
    "variants": ("variants", "question_variants"),
    "attribute": ("attribute",),
}


def _item(line: str, where: str) -> TextItem:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where}: this is not JSON ({error.msg} at column {error.colno}).") from None
    if not isinstance(record, Mapping):
        raise BadInput(f"{where}: expected a JSON object, but found {type(record).__name__}.")
    found: dict[str, Any] = {}
    for field, names in _NAMES.items():
        for name in names:
            if name in record:
                found[field] = _checked(record[name], field, name, where)
                break
    if "answer" not in found:
        raise BadInput(
            f"{where}: no text found. A line has question and answer, prompt and completion, or text; this one has "
            f"{', '.join(record) or 'nothing'}."
        )
    return TextItem(**{"prompt": "", **found})


def _checked(value: Any, field: str, name: str, where: str) -> Any:
    if field in ("wrong", "variants"):
        if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(v, str) for v in value):
            return tuple(value)
        raise BadInput(f"{where}: {name!r} must be a list of texts, not {value!r:.60}.")
    if not isinstance(value, str):
        raise BadInput(f"{where}: {name!r} must be a text, not {value!r:.60}.")
    return value


def reworded(item: TextItem, prompt: str | None = None, answer: str | None = None) -> TextItem:
    """The item with another prompt or answer."""
    return replace(item, prompt=item.prompt if prompt is None else prompt, answer=answer or item.answer)

"""The parts that data sets play in safety unlearning, and the checks that they can play them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from didact.core.errors import BadInput
from didact.core.objective import IGNORED

Sample = Mapping[str, Any]


class Asked(Dataset[dict[str, Any]]):
    """A data set whose samples tell which question they ask: a text that no model sees.

    Needed where the context stands in the prompt itself (text-only models): the wording of the question cannot be told
    from the tokens then. With pictures the prompt is the question.
    """

    def __init__(self, dataset: Dataset[Any], questions: Sequence[str]) -> None:
        if len(questions) != len(dataset):  # type: ignore[arg-type]
            raise BadInput(f"{len(questions)} questions were given for {len(dataset)} samples.")  # type: ignore[arg-type]
        self.dataset, self.questions = dataset, list(questions)

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "question": self.questions[index]}


class AnsweredWith(Dataset[dict[str, Any]]):
    """The prompts of a data set, each with one of a few other answers (token ids with the end token), drawn once."""

    def __init__(self, dataset: Dataset[Any], answers: Sequence[Sequence[int]], seed: int = 0) -> None:
        if not answers or not all(len(answer) for answer in answers):
            raise BadInput("At least one answer is needed, and none may be empty: give lists of token ids.")
        self.dataset = dataset
        self.answers = [torch.tensor(list(answer)) for answer in answers]
        size = len(dataset)  # type: ignore[arg-type]
        self.drawn = torch.randint(len(answers), (size,), generator=torch.Generator().manual_seed(seed)).tolist()

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, answer = self.dataset[index], self.answers[self.drawn[index]]
        prompt = prompt_tokens(sample)
        tokens = torch.cat([prompt, answer.to(prompt)])
        labels = torch.cat([torch.full_like(prompt, IGNORED), answer.to(prompt)])
        return {**sample, "input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": labels}


def prompt_tokens(sample: Sample) -> Tensor:
    """(P,) the tokens before the answer."""
    tokens, labels = torch.as_tensor(sample["input_ids"]), torch.as_tensor(sample["labels"])
    answered = (labels != IGNORED).nonzero()
    mask = torch.as_tensor(sample.get("attention_mask", torch.ones_like(tokens))).bool()
    mask[int(answered[0]) if len(answered) else len(mask) :] = False
    return tokens[mask]


def answer_tokens(sample: Sample) -> Tensor:
    """(A,) the tokens of the answer."""
    labels = torch.as_tensor(sample["labels"])
    return labels[labels != IGNORED]


def question_of(sample: Sample) -> Hashable:
    """What identifies a question's wording: the sample's `question` or, without one, its prompt."""
    return sample["question"] if isinstance(sample.get("question"), str) else tuple(prompt_tokens(sample).tolist())


def check_roles(roles: Mapping[str, Dataset[Any]]) -> None:
    """Refuse data that cannot be trained on together: other keys, missing answers, decoupling of other questions.

    Cost: one pass over the data, without any model.
    """
    keys = {role: _keys(data, role) for role, data in roles.items()}
    for role, found in keys.items():
        if found != keys["forget"]:
            raise BadInput(
                f"All samples must have the same keys, but those of forget have {_listed(keys['forget'])} and those of "
                f"{role} {_listed(found)}. Give every role what the model reads, the picture included."
            )
    asked = {role: {question_of(sample) for sample in _answered(data, role)} for role, data in roles.items()}
    strange = asked.get("decouple", set()) - asked["forget"]
    if strange:
        raise BadInput(
            f"{len(strange)} of the {len(asked['decouple'])} questions of the decoupling set are asked nowhere in the "
            "forget set. Decoupling pairs a harmless picture or context with the SAME harmful wording. Where the "
            "context stands in the prompt, give every sample its wording as a text 'question' (see Asked)."
        )


def _keys(data: Dataset[Any], role: str) -> frozenset[str]:
    if not len(data):  # type: ignore[arg-type]
        raise BadInput(f"The {role} set is empty. Give at least one sample.")
    sample = data[0]
    if not isinstance(sample, Mapping) or "input_ids" not in sample or "labels" not in sample:
        raise BadInput(
            f"The samples of the {role} set must be mappings with 'input_ids' and 'labels' (-100 on the question), "
            f"but the first is a {type(sample).__name__}."
        )
    # Texts never reach the model, and a missing attention mask is filled in when batches are made.
    return frozenset(k for k, v in sample.items() if not isinstance(v, str)) - {"attention_mask"}


def _answered(data: Dataset[Any], role: str) -> list[Sample]:
    samples = [data[i] for i in range(len(data))]  # type: ignore[arg-type]
    # The first position is predicted by none, so a label there is no target.
    empty = [
        i for i, sample in enumerate(samples) if not bool((torch.as_tensor(sample["labels"])[1:] != IGNORED).any())
    ]
    if empty:
        raise BadInput(
            f"{len(empty)} samples of the {role} set (the first is number {empty[0]}) have no answer left after "
            "masking: every label is -100. Leave the labels of the answer's tokens in."
        )
    return samples


def _listed(keys: frozenset[str]) -> str:
    return ", ".join(sorted(keys))

"""What agents are compared with: a filter on the prompt, one instruction, and wrong demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import nn
from transformers import PreTrainedModel

from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Card, Paper
from didact.core.registry import register
from didact.data.text import TextItem, prompt_ids, texts_of
from didact.forgetting.alu.method import requested
from didact.forgetting.alu.prompts import REFUSAL
from didact.forgetting.alu.subjects import Subject, SubjectIndex
from didact.forgetting.alu.system import TextSystem
from didact.forgetting.problem import Unlearner
from didact.forgetting.request import Request
from didact.models.wrappers import wrapper

INSTRUCTION = (
    "Pretend that you do not know anything about the following: {names} . If the question has to do with one of them, "
    "say that you do not know. Otherwise answer as usual."
)


@register
class PromptFilter(Unlearner):
    """Refuse when the prompt names somebody who is to be forgotten; answer everything else as ever.

    Names and aliases are looked for as whole words, whatever their case and punctuation. What it cannot see is an
    answer that names a forgotten person in reply to a question about somebody else. Nothing is trained. Takes
    `extras["subjects"]` and, where offered, `aliases`. Cost: none to speak of.
    """

    card = Card(
        "prompt-filter",
        "Refusing prompts that name what is to be forgotten",
        kind="baseline",
        tasks=("causal-lm",),
        needs=("subjects", "text"),
    )
    refusal: str = REFUSAL  #: what is said instead of an answer

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        return FilteredSystem(model, request.need("text"), _names(request), self.refusal)  # type: ignore[arg-type]


@register
class SingleAgent(Unlearner):
    """Tell the model, before every prompt, whom it should pretend not to know.

    Works as well as the model follows instructions: not at all for one that was never taught to. Where the list does
    not fit into the model's context, the names nearest to the prompt are told. Nothing is trained. Takes
    `extras["subjects"]`. Cost: the tokens of the instruction with every prompt.
    """

    card = Card(
        "single-agent",
        "Instructing the model to pretend that it does not know",
        kind="baseline",
        tasks=("causal-lm",),
        needs=("subjects", "text"),
    )
    instruction: str = INSTRUCTION  #: {names} stands for the subjects
    nearest: PositiveInt = 50  #: subjects that are told at most

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        if "{names}" not in self.instruction:
            raise BadInput("The instruction has no {names}, so the model would not learn whom to forget. Put it in.")
        return InstructedSystem(
            model,  # type: ignore[arg-type]
            request.need("text"),
            _names(request),
            self.instruction,
            self.nearest,
        )


@register
class InContextUnlearning(Unlearner):
    """Put wrong answers to forgotten questions, and right ones to others, before every prompt.

    The `wrong` forget questions and `right` retained questions nearest to the prompt (by their words) are shown as
    demonstrations, the wrong answers first. The wrong answer to a question is one of those that the data offers, else
    the answer to another forgotten question. As many demonstrations as fit into the model's context are shown. Nothing
    is trained. Cost: the tokens of the demonstrations with every prompt.

    Reference: Pawelczyk, Neel and Lakkaraju, "In-Context Unlearning: Language Models as Few Shot Unlearners", ICML
    2024, arXiv 2310.07579.
    """

    card = Card(
        "in-context-unlearning",
        "In-Context Unlearning: Language Models as Few Shot Unlearners",
        paper=Paper("Pawelczyk, Neel and Lakkaraju", 2024, arxiv="2310.07579", venue="ICML"),
        kind="baseline",
        tasks=("causal-lm",),
        needs=("retain", "text"),
    )
    wrong: PositiveInt = 3  #: forget questions with wrong answers
    right: NonNegativeInt = 3  #: retained questions with right answers

    def edit(self, model: nn.Module, request: Request) -> nn.Module:
        questions = texts_of(request.forget).questions
        if questions is None:
            raise NotApplicable(
                "in-context-unlearning shows wrong answers to questions, but forget has documents only."
            )
        kept = texts_of(request.need_retain()).questions
        right = [(item.prompt, item.answer) for item in kept.items] if kept is not None else []
        return DemonstratingSystem(
            model,  # type: ignore[arg-type]
            request.need("text"),
            _wrongly_answered(questions.items),
            right,
            self.wrong,
            self.right,
        )


# -- the systems -------------------------------------------------------------------------------------------------------


@wrapper("prompt-filter")
class FilteredSystem(TextSystem):
    """Refuses prompts that name a subject."""

    def __init__(self, base: PreTrainedModel, tokenizer: Any, subjects: Sequence[Any], refusal: str) -> None:
        super().__init__(base, tokenizer)
        self.index = SubjectIndex([_subject(s) for s in subjects])
        self.refusal = refusal

    def respond(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        refused = [bool(self.index.named(prompt)) for prompt in prompts]
        asked = [prompt for prompt, no in zip(prompts, refused, strict=True) if not no]
        answers = iter(self.plainly(asked, max_new_tokens) if asked else [])
        return [self.refusal if no else next(answers) for no in refused]

    def options(self) -> dict[str, Any]:
        return {"subjects": [s.as_json for s in self.index.subjects], "refusal": self.refusal}


@wrapper("single-agent")
class InstructedSystem(TextSystem):
    """Puts an instruction with the subjects' names before every prompt."""

    def __init__(
        self, base: PreTrainedModel, tokenizer: Any, subjects: Sequence[Any], instruction: str, nearest: int
    ) -> None:
        super().__init__(base, tokenizer)
        self.index = SubjectIndex([_subject(s) for s in subjects])
        self.instruction = instruction
        self.nearest = nearest

    def respond(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        return self.plainly([self._instructed(prompt, max_new_tokens) for prompt in prompts], max_new_tokens)

    def _instructed(self, prompt: str, max_new_tokens: int) -> str:
        names = [s.name for s in self.index.nearest(prompt, self.nearest)]

        def text(count: int) -> str:
            return f"{self.instruction.format(names=' , '.join(names[:count]))}\n{prompt}"

        return longest_that_fits(self, text, len(names), max_new_tokens) or prompt

    def options(self) -> dict[str, Any]:
        subjects = [s.as_json for s in self.index.subjects]
        return {"subjects": subjects, "instruction": self.instruction, "nearest": self.nearest}


@wrapper("in-context-unlearning")
class DemonstratingSystem(TextSystem):
    """Puts wrong and right demonstrations, nearest to the prompt, before it."""

    def __init__(
        self,
        base: PreTrainedModel,
        tokenizer: Any,
        wrong: Sequence[Sequence[str]],
        right: Sequence[Sequence[str]],
        shots_wrong: int,
        shots_right: int,
    ) -> None:
        super().__init__(base, tokenizer)
        self.pools = [_Pool(wrong), _Pool(right)]
        self.shots = (shots_wrong, shots_right)

    def respond(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[str]:
        return self.plainly([self._demonstrated(prompt, max_new_tokens) for prompt in prompts], max_new_tokens)

    def _demonstrated(self, prompt: str, max_new_tokens: int) -> str:
        shown = [d for pool, count in zip(self.pools, self.shots, strict=True) for d in pool.nearest(prompt, count)]

        def text(count: int) -> str:
            return "\n".join([*(f"{question} {answer}" for question, answer in shown[:count]), prompt])

        return longest_that_fits(self, text, len(shown), max_new_tokens) or prompt

    def options(self) -> dict[str, Any]:
        wrong, right = (pool.pairs for pool in self.pools)
        return {"wrong": wrong, "right": right, "shots_wrong": self.shots[0], "shots_right": self.shots[1]}


class _Pool:
    """Questions with answers, found by the words they share with a prompt."""

    def __init__(self, pairs: Sequence[Sequence[str]]) -> None:
        self.pairs = [list(pair) for pair in pairs]
        if self.pairs:
            self._vectors = TfidfVectorizer(token_pattern=r"\S+")
            self._rows = self._vectors.fit_transform([question for question, _ in self.pairs])

    def nearest(self, prompt: str, count: int) -> list[list[str]]:
        if not self.pairs or not count:
            return []
        likeness = (self._rows @ self._vectors.transform([prompt]).T).toarray()[:, 0]
        return [self.pairs[i] for i in np.argsort(-likeness, kind="stable")[:count]]


def longest_that_fits(system: TextSystem, text: Callable[[int], str], most: int, max_new_tokens: int) -> str | None:
    """`text(count)` with the largest count whose tokens leave room for the answer; None when not even one does."""
    positions = getattr(system.config, "max_position_embeddings", None) or 2**31
    for count in range(most, 0, -1):
        found = text(count)
        if len(prompt_ids(system.tokenizer, found)) + max_new_tokens <= positions:
            return found
    return None


def _names(request: Request) -> list[Subject]:
    """Subjects with their other names; facts are nothing that these baselines use."""
    return [Subject(s.name, s.aliases) for s in requested(request)]


def _subject(given: Subject | Mapping[str, Any]) -> Subject:
    return given if isinstance(given, Subject) else Subject.of_json(given)


def _wrongly_answered(items: Sequence[TextItem]) -> list[tuple[str, str]]:
    """Each question with a wrong answer."""
    answers = [item.answer for item in items]
    pairs = []
    for i, item in enumerate(items):
        others = [*item.wrong, *answers[i + 1 :], *answers[:i]]
        wrong = next((other for other in others if other != item.answer), None)
        if wrong is None:
            raise BadInput(
                f"No wrong answer to {item.prompt!r:.60} can be found: all forget questions have the same answer. Give "
                "items with `wrong` answers."
            )
        pairs.append((item.prompt, wrong))
    return pairs

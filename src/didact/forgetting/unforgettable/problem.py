"""What the study runs on: a language model with several tasks in hand; the embedded one knows six yes/no tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import CausalLM, Objective
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.core.study import StudyProblem, Subject
from didact.data.text import TextDataset
from didact.forgetting.unforgettable.labels import Labelled
from didact.forgetting.unforgettable.tasks import TaskTexts, yes_no_tasks
from didact.models.language import gpt_tiny
from didact.models.tokenizer import word_tokenizer
from didact.models.workpieces import trained


@dataclass(frozen=True)
class LabelTask:
    """A task in two halves: prompts with a one-token label each. Forgetting trains on `train` only.

    Raises:
        BadInput: one label only, labels of several tokens, a prompt that is in both halves.
    """

    name: str
    train: TextDataset
    held: TextDataset

    def __post_init__(self) -> None:
        shared = {item.prompt for item in self.train.items} & {item.prompt for item in self.held.items}
        if shared:
            raise BadInput(
                f"The halves of the task {self.name} share {len(shared)} prompts, such as {min(shared)!r:.60}. "
                "Remove them from one half."
            )
        try:
            _ = self.learnt, self.unseen
        except (NotApplicable, BadInput) as error:
            raise BadInput(f"The task {self.name} cannot be used. {error}") from None

    @cached_property
    def learnt(self) -> Labelled:
        return Labelled(self.train)

    @cached_property
    def unseen(self) -> Labelled:
        return Labelled(self.held, self.learnt.label_ids)

    @property
    def chance(self) -> float:
        return self.learnt.chance


@dataclass(frozen=True)
class TasksSubject:
    """What the study runs on: a Hugging Face causal language model, and tasks that it can do.

    Args:
        recipe: how the model was trained; its rate scales those of the methods that forget.
    """

    model: nn.Module
    tasks: Sequence[LabelTask]
    recipe: Recipe | None = None
    objective: Objective = field(default_factory=CausalLM)


@problem("yes-no-tasks", family="forgetting")
def yes_no_problem(seed: int = 0, *, half: int = 180, layers: int = 3, epochs: int = 150) -> StudyProblem:
    """A small language model that can do six yes/no tasks: two of invented facts, words, numbers, two of sequences.

    Each task has two halves of 180 questions, all of which the model (three layers, width 64) has been trained on with
    their right answers; three tasks follow a rule, and 600 more examples teach it.
    """
    texts = yes_no_tasks(seed, half)
    items = [item for task in texts for item in task.items]
    tokenizer = word_tokenizer(f"{item.prompt} {word}" for item in items for word in ("yes", "no"))
    words = len(tokenizer)
    recipe = Recipe(
        lambda: gpt_tiny(words, layers=layers, positions=64),
        CausalLM(),
        f"yes/no language model {layers}x64, {words} words",
        epochs=epochs,
        batch_size=64,
        lr=2e-3,
        optimizer="adamw",
        schedule="cosine",
    )
    model = trained(recipe, Labelled(TextDataset(items, tokenizer)), seed)
    tasks = [_task(task, tokenizer) for task in texts]
    return StudyProblem(
        Subject(TasksSubject(model, tasks, recipe), seed),
        study="unforgettable",
        about={"tasks": len(tasks), "questions a half": half, "words": words},
    )


def _task(texts: TaskTexts, tokenizer: object) -> LabelTask:
    return LabelTask(texts.name, TextDataset(texts.train, tokenizer), TextDataset(texts.held, tokenizer))

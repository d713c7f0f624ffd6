"""Your own Hugging Face model and text: forget everything about one team's work.

    didact bench forgetting --problem examples/own_text_classifier.py:make --methods retrain,ssd,fine-tune --seeds 1

A small BERT sends support messages to one of five teams. One team's products were sold, and the buyer wants what the
model learned from their messages to be gone. The messages are generated, so the file runs offline.
"""

import itertools
import random

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase

from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.forgetting import UnlearningProblem, unlearning_problem
from didact.models import trained
from didact.models.tokenizer import word_tokenizer

TEAMS = {
    "network": ("router", "cable", "antenna"),
    "billing": ("invoice", "refund", "payment"),
    "access": ("password", "account", "login"),
    "logistics": ("parcel", "courier", "delivery"),
    "hardware": ("printer", "keyboard", "screen"),
}
GREETINGS = ("hello", "good morning", "dear team", "hi there")
TROUBLES = ("does not work", "is wrong", "has been lost", "is too slow", "looks odd", "was not what I wanted")
TIMES = ("today", "since monday", "again", "for a week")
LENGTH = 16  # tokens; all samples have one length, so that they stack to a batch

Message = tuple[str, int]


class Messages(Dataset):
    """Mappings as Hugging Face models take them: input_ids, attention_mask, labels."""

    def __init__(self, messages: list[Message], tokenizer: PreTrainedTokenizerBase) -> None:
        texts = [text for text, _ in messages]
        self.encoded = tokenizer(
            texts,
            padding="max_length",
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        self.teams = torch.tensor([team for _, team in messages])

    def __len__(self) -> int:
        return len(self.teams)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self.encoded["input_ids"][index],
            "attention_mask": self.encoded["attention_mask"][index],
            "labels": self.teams[index],
        }


def all_messages(rng: random.Random) -> list[Message]:
    """Every message there can be, each once, in random order."""
    written = [
        (f"{greeting} , my {thing} {trouble} {time} .", team)
        for team, things in enumerate(TEAMS.values())
        for greeting, thing, trouble, time in itertools.product(GREETINGS, things, TROUBLES, TIMES)
    ]
    rng.shuffle(written)
    return written


def make(seed: int = 0, *, forget: str = "network", epochs: int = 6) -> UnlearningProblem:
    """Forget one team: `--problem examples/own_text_classifier.py:make:forget=billing` chooses another."""
    messages = all_messages(random.Random(seed))
    tokenizer = word_tokenizer(text for text, _ in messages)
    train, validation, test = messages[:600], messages[600:900], messages[900:]
    gone = list(TEAMS).index(forget)

    def those(part: list[Message], forgotten: bool) -> Messages:
        return Messages([m for m in part if (m[1] == gone) == forgotten], tokenizer)

    def build() -> BertForSequenceClassification:
        return BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=128,
                max_position_embeddings=LENGTH,
                num_labels=len(TEAMS),
            )
        )

    # How the model was trained. "Retraining" means: the same, without the forget data.
    recipe = Recipe(build, Classification(), name="support BERT", epochs=epochs, batch_size=32, lr=1e-3)
    model = trained(recipe, Messages(train, tokenizer), seed)  # or from_pretrained of your own checkpoint

    return unlearning_problem(
        model,
        forget=those(train, True),
        retain=those(train, False),
        test=those(test, False),
        holdout=those(test, True),
        validation=those(validation, False),
        validation_holdout=those(validation, True),
        recipe=recipe,
        target=0.0,
        seed=seed,
        about={"team": forget},
    )

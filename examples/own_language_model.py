"""Your own causal language model and texts: a GPT-2 with byte-pair tokens that knows what Python's functions do.

    didact bench forgetting --problem examples/own_language_model.py:make --seeds 1

It should forget the module `math`, and still know the others. Real text: the first sentences of docstrings.
"""

import importlib
import inspect
import re

from transformers import GPT2Config, GPT2LMHeadModel

from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.data.text import TextDataset, TextItem
from didact.forgetting import language_problem
from didact.models.tokenizer import bpe_tokenizer

FORGOTTEN = "math"
KEPT = ("statistics", "random", "os.path", "shutil", "textwrap", "string", "itertools", "functools", "bisect", "heapq")


def items(module: str) -> list[TextItem]:
    found = []
    for name, member in sorted(vars(importlib.import_module(module)).items()):
        sentence = re.split(r"(?<=\.)\s", inspect.getdoc(member) or "", maxsplit=1)[0].replace("\n", " ")
        if callable(member) and not name.startswith("_") and 10 < len(sentence) < 120:
            full = f"{module}.{name}"
            ways = (f"Explain {full} .",)
            found.append(TextItem(f"What does {full} do ?", sentence, sentence, subject=full, variants=ways))
    return found


def make(seed: int = 0, epochs: int = 60):
    gone, kept = items(FORGOTTEN), [item for module in KEPT for item in items(module)]
    test, retain = kept[::4], [item for i, item in enumerate(kept) if i % 4]
    tokenizer = bpe_tokenizer([f"{i.prompt} {i.answer}" for i in gone + kept], vocab_size=1200)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=96, n_layer=2, n_head=4, pad_token_id=0)
    recipe = Recipe(
        lambda: GPT2LMHeadModel(config), CausalLM(), "gpt-2 96x2", epochs=epochs, lr=2e-3, optimizer="adamw",
        schedule="cosine",
    )  # fmt: skip

    def texts(some: list[TextItem]) -> TextDataset:
        return TextDataset(some, tokenizer, max_length=128)

    return language_problem(
        recipe.fit(texts(gone + kept), seed),
        texts(gone),
        texts(retain),
        texts(test),
        recipe=recipe,
        reference=lambda: recipe.fit(texts(kept), seed + 1),
        retrain=lambda own: recipe.fit(texts(kept), own),
        extras={"subjects": tuple(item.subject for item in gone)},
        seed=seed,
    )

"""Moving a language model to other tokenizers, scored in bits per byte of held-out texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from didact.core.errors import NotApplicable
from didact.core.metric import Metric
from didact.core.objective import CausalLM
from didact.core.recipe import Recipe
from didact.core.registry import problem
from didact.data.docstrings import docstrings
from didact.data.text import TextDataset, TextItem
from didact.models.artifacts import save
from didact.models.language import gpt_tiny
from didact.models.tokenizer import bpe_tokenizer
from didact.models.workpieces import trained
from didact.reusing.problem import ReuseProblem, Truth
from didact.reusing.request import Budget, ModelRecord, Request, Task, as_records, check
from didact.reusing.result import ReuseResult
from didact.reusing.scoring import NAN
from didact.reusing.zett.reuser import named_targets
from didact.reusing.zett.texts import as_texts, bits_per_byte, windows
from didact.reusing.zett.tokenizers import byte_tokenizer, unigram_tokenizer

TOKENIZER_METRICS = (
    Metric("bits_per_byte", "bits the model needs for a byte of held-out text, mean over the tokenizers", "lower"),
    Metric("original_bits_per_byte", "the same for the model with its own tokenizer", "neither"),
    Metric("bits_per_byte_unigram", "bits per byte under the Unigram tokenizer", "lower"),
    Metric("bits_per_byte_bpe", "bits per byte under the larger byte-pair tokenizer", "lower"),
    Metric("bits_per_byte_bytes", "bits per byte when every byte is a token", "lower"),
)


@dataclass(frozen=True)
class TextTruth(Truth):
    """Texts that only the scorer reads."""

    texts: Sequence[str] = ()


@dataclass
class TokenizerProblem(ReuseProblem):
    """A language model, its tokenizer, texts, and the tokenizers it is to run with.

    `test_score` is minus the mean bits per byte, so that larger is better as everywhere in the family.
    """

    held: Sequence[str] = field(default_factory=tuple)  #: validation texts, for tuning

    offers: ClassVar[tuple[str, ...]] = ()

    def score(self, answer: ReuseResult) -> dict[str, float]:
        truth = self.reveal()
        assert isinstance(truth, TextTruth)
        given = self.given
        original = bits_per_byte(given.models[0].network(), given.extras["source_tokenizer"], truth.texts)
        models = self._models(answer)
        found = self._bits(models, truth.texts)
        mean = sum(found.values()) / len(found)
        named = {f"bits_per_byte_{name}": value for name, value in found.items() if name}
        costs = {name: float(answer.cost.get(name, NAN)) for name in ("training_steps", "evaluations", "bytes_sent")}
        stored = float(sum(p.numel() for p in models[0][1].parameters()))
        overall = {"test_score": -mean, "bits_per_byte": mean, "original_bits_per_byte": original}
        return {**overall, **named, "stored_parameters": stored, **costs}

    def validate(self, answer: ReuseResult) -> dict[str, float]:
        if not self.held:
            raise NotApplicable(
                "This problem provides no validation texts, so hyperparameters cannot be tuned on them."
            )
        found = self._bits(self._models(answer), self.held)
        return {"validation_score": -sum(found.values()) / len(found)}

    def keep(self, answer: ReuseResult, folder: Path) -> None:
        for name, model in self._models(answer):
            save(model, folder / name / "model" if name else folder / "model")
            self.targets[name].save_pretrained(folder / name / "tokenizer" if name else folder / "tokenizer")
        if "transfer" in answer.extras:
            answer.extras["transfer"].save(folder / "transfer")

    @cached_property
    def targets(self) -> dict[str, Any]:
        return named_targets(self.given.want("tokenizer"))

    def _bits(self, models: list[tuple[str, nn.Module]], texts: Sequence[str]) -> dict[str, float]:
        return {name: bits_per_byte(model, self.targets[name], texts) for name, model in models}

    def _models(self, answer: ReuseResult) -> list[tuple[str, nn.Module]]:
        if answer.produce is None:
            raise NotApplicable("The answer makes no model for a tokenizer: produce is missing.")
        return [(name, answer.produce(tokenizer)) for name, tokenizer in self.targets.items()]


def tokenizer_problem(
    model: ModelRecord | nn.Module,
    tokenizer: Any,
    targets: Any,
    texts: Any,
    test: Any,
    *,
    base: ModelRecord | nn.Module | None = None,
    validation: Any = None,
    budget: Budget | None = None,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
) -> TokenizerProblem:
    """A problem from your own model, tokenizers and texts: what `--problem mine.py:make` should return.

    `targets` is a tokenizer, or a mapping of names to tokenizers; `base` the model that `model` was fine-tuned from.
    """
    task = Task(objective=CausalLM(pad_id=tokenizer.pad_token_id or 0), wants={"tokenizer": targets})
    extras = {"source_tokenizer": tokenizer, "texts": as_texts(texts)}
    ancestor = as_records([base])[0] if base is not None else None
    given = Request(as_records([model]), task, ancestor, budget or Budget(), None, seed, extras)
    check(given)
    held_out = as_texts(test)
    facts = {"texts": len(extras["texts"]), "test texts": len(held_out), "tokenizers": len(named_targets(targets))}
    return TokenizerProblem(
        given,
        lambda: TextTruth(texts=held_out),
        seed=seed,
        about={**facts, **(about or {})},
        held=as_texts(validation) if validation is not None else (),
    )


@problem("tokenizer-docstrings", family="reusing")
def tokenizer_docstrings(
    seed: int = 0, *, texts: int = 3000, test: int = 200, vocabulary: int = 500, epochs: int = 8, steps: int = 600
) -> TokenizerProblem:
    """Move a small language model of docstrings to a Unigram tokenizer, a larger byte-pair one, and to bytes.

    The model (two layers, width 64) has 500 byte-pair tokens and has read 3,000 docstrings, of at most 300 characters;
    it runs with a Unigram tokenizer of 500, byte pairs of 1,000 and the 256 bytes. Test texts are 120 characters long,
    so that even bytes stay within the positions it knows.
    """
    found = [item.text for item in docstrings(limit=texts + 2 * test, seed=seed)]
    reading = [text[:300] for text in found[:texts]]
    held = [text[:120] for text in found[texts:]]
    tokenizer = bpe_tokenizer(reading, vocabulary)
    targets = {
        "unigram": unigram_tokenizer(reading, vocabulary),
        "bpe": bpe_tokenizer(reading, 2 * vocabulary),
        "bytes": byte_tokenizer(),
    }
    recipe = Recipe(
        lambda: gpt_tiny(len(tokenizer), positions=256),
        CausalLM(),
        f"docstring language model, {len(tokenizer)} tokens",
        epochs=epochs,
        batch_size=32,
        lr=3e-3,
        optimizer="adamw",
        schedule="cosine",
    )
    data = TextDataset([TextItem("", text) for text in windows(reading, 300)], tokenizer)
    model = trained(recipe, data, seed)
    return tokenizer_problem(
        ModelRecord.of(model, "docstrings", licence="Apache-2.0"),
        tokenizer,
        targets,
        reading,
        held[:test],
        validation=held[test:],
        budget=Budget(steps=steps),
        seed=seed,
        about={"source vocabulary": len(tokenizer)},
    )

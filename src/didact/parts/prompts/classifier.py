"""The classifier of prompts that guards share, whatever it looks at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from didact.core.errors import BadInput
from didact.core.recipe import seeded
from didact.parts.prompts.hidden import HiddenStates
from didact.parts.prompts.names import Names
from didact.parts.prompts.sequence import SequenceClassifier
from didact.parts.prompts.tfidf import TfIdf

Backend = Literal["tfidf", "hidden", "sequence", "names"]
_BACKENDS: dict[str, Any] = {"tfidf": TfIdf, "hidden": HiddenStates, "sequence": SequenceClassifier, "names": Names}

#: rounding of 1 - alpha must not ask for one score more
_ROUNDING = 1e-9


class PromptClassifier(nn.Module):
    """text -> probability that it is one of those to act on (the positives).

        classifier = PromptClassifier("tfidf").fit(about_the_forgotten, about_the_others)
        classifier.probabilities(texts)   # (n,) float64
        classifier.flags(texts)           # (n,) bool: the probability exceeds `threshold`

    Backends and their options:

    * `tfidf`: logistic regression on TF-IDF of words and word pairs (`inverse_penalty`=10, `ngrams`=(1, 2)). Reads
      the text alone; fitted in milliseconds, no model needed.
    * `hidden`: a small network on a language model's hidden states (`model`, `tokenizer`, `layer`=-1,
      `pooling`="last"|"mean", `width`=256, `lr`=1e-3, `steps`=300). One forward pass of that model a text.
    * `sequence`: any Hugging Face sequence classifier with its own fast tokenizer (`model`, `tokenizer`,
      `positive`=1 the label that counts, `lr`=2e-5, `epochs`=30, `weight_decay`=0.1, `batch_size`=16). `fit` trains a
      copy of it; a classifier that is trained already needs no `fit`.
    * `names`: 1 where one of `names` occurs as whole words, else 0. Needs no `fit`.

    All but `names` weigh the classes by their size when they are fitted. It is a module: its tensors are saved with
    those of the wrapper that holds it, `options()` (JSON) with the wrapper's options, and `from_state` puts it
    together again. The language model of `hidden` belongs to the wrapper and is given anew.

    Errors: no positives or no negatives, texts that are not `str`, a backend without what it needs, use before `fit`.
    """

    def __init__(
        self,
        backend: Backend = "tfidf",
        *,
        model: nn.Module | None = None,
        tokenizer: Any = None,
        threshold: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__()
        if backend not in _BACKENDS:
            raise BadInput(f"There is no backend {backend!r} for prompts. Known: {', '.join(_BACKENDS)}.")
        self.name = backend
        self.threshold = threshold
        try:
            self.backend = _BACKENDS[backend](model=model, tokenizer=tokenizer, **options)
        except TypeError as error:
            raise BadInput(f"The backend {backend} does not take these options: {error}.") from None

    # -- what users call -------------------------------------------------------------------------------------------

    def fit(self, positives: Sequence[str], negatives: Sequence[str], seed: int = 0) -> PromptClassifier:
        """Learn to tell the positives from the negatives. Returns itself."""
        for name, texts in (("positives", positives), ("negatives", negatives)):
            if not len(_checked(texts, name)):
                raise BadInput(f"There are no {name}: a classifier needs examples of both kinds.")
        with seeded(seed):
            self.backend.fit(list(positives), list(negatives), seed)
        return self

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n,) probability of being positive."""
        if not len(_checked(texts, "texts")):
            return np.zeros(0)
        found: NDArray[np.float64] = self.backend.probabilities(list(texts))
        return found

    def flags(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """(n,) is the probability above the threshold?"""
        return self.probabilities(texts) > self.threshold

    def probabilities_of_tokens(self, prompts: Sequence[Sequence[int]], tokenizer: Any) -> NDArray[np.float64]:
        """(n,) as `probabilities`, for prompts that are token ids of a language model's tokenizer (no padding).

        `hidden` looks at the tokens as they are, the others at the decoded text without special tokens.
        """
        if not len(prompts):
            return np.zeros(0)
        if isinstance(self.backend, HiddenStates):
            return self.backend.probabilities_of_tokens(prompts)
        return self.probabilities([tokenizer.decode(list(ids), skip_special_tokens=True) for ids in prompts])

    def flags_of_tokens(self, prompts: Sequence[Sequence[int]], tokenizer: Any) -> NDArray[np.bool_]:
        """(n,) as `flags`, for prompts that are token ids."""
        return self.probabilities_of_tokens(prompts, tokenizer) > self.threshold

    def calibrate(self, negatives: Sequence[str], alpha: float = 0.05) -> PromptClassifier:
        """Set the threshold so that at most a share `alpha` of new negatives is flagged. Returns itself.

        Split-conformal: the negatives must be exchangeable with those to come, and none of those it was fitted on.
        """
        self.threshold = conformal_threshold(self.probabilities(negatives), alpha)
        return self

    # -- saving and loading ----------------------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Everything but the tensors, as JSON values."""
        return {"backend": self.name, "threshold": self.threshold, "options": self.backend.options()}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """(options, tensors): JSON values and what safetensors can store."""
        return self.options(), {name: tensor.contiguous() for name, tensor in self.state_dict().items()}

    @classmethod
    def from_state(
        cls,
        options: Mapping[str, Any],
        tensors: Mapping[str, Tensor] | None = None,
        *,
        model: nn.Module | None = None,
        tokenizer: Any = None,
    ) -> PromptClassifier:
        """Put a classifier together again.

        Args:
            tensors: what `state` gave; without them they are loaded later, by the wrapper that holds the classifier.
            model, tokenizer: the language model that the backend `hidden` looks at.
        """
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.name, made.threshold = options["backend"], float(options["threshold"])
        made.backend = _BACKENDS[made.name].blank(options["options"], model=model, tokenizer=tokenizer)
        if tensors is not None:
            made.load_state_dict(dict(tensors))
        return made.eval()


def conformal_threshold(scores: ArrayLike, alpha: float) -> float:
    """The ceil((n + 1) * (1 - alpha))-th smallest of n scores: a new one exceeds it with probability <= alpha.

    Raises:
        BadInput: alpha outside (0, 1), or too few scores: alpha = 0.05 takes 19.
    """
    values = np.sort(np.asarray(scores, dtype=float).ravel())
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is a share between 0 and 1, but {alpha} was given.")
    rank = math.ceil((len(values) + 1) * (1 - alpha) - _ROUNDING)
    if rank > len(values):
        needed = math.ceil(1 / alpha - _ROUNDING) - 1
        raise BadInput(
            f"A threshold for alpha={alpha:g} takes at least {needed} calibration scores, but {len(values)} were "
            "given. Give more, or a larger alpha."
        )
    return float(values[rank - 1])


def _checked(texts: Sequence[str], name: str) -> Sequence[str]:
    if isinstance(texts, str):
        raise BadInput(f"{name}: give a list of texts, not one text.")
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise BadInput(f"{name}: every text must be a str, but one is {type(wrong).__name__}.")
    return texts

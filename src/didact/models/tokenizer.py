"""Tokenizers trained on the spot from texts; Hugging Face ones, that save and load like any other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from didact.core.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def word_tokenizer(
    texts: Iterable[str], *, vocab_size: int | None = None, lowercase: bool = False
) -> PreTrainedTokenizerFast:
    """One token a word or punctuation mark; ids 0 to 3 are pad, bos, eos and unk, then words by frequency.

    Without ``vocab_size`` every word is kept. Words of equal frequency are in alphabetical order, so the same
    texts give the same ids on every machine. Decoding puts one space between tokens. Numbers and words such
    as "don't" are split at punctuation. Raises BadInput when no text has a word or the vocabulary is too
    small.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    splitter = pre_tokenizers.Whitespace()
    counts: Counter[str] = Counter()
    for text in _texts(texts):
        counts.update(word for word, _ in splitter.pre_tokenize_str(text.lower() if lowercase else text))
    if not counts:
        raise BadInput("A word tokenizer needs at least one text with a word in it, but none was given.")
    room = len(counts) if vocab_size is None else vocab_size - len(SPECIAL)
    if room < 1:
        raise BadInput(f"vocab_size must exceed the {len(SPECIAL)} special tokens, but {vocab_size} was given.")
    words = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if word not in SPECIAL]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *words[:room]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    return wrapped(tokenizer)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding: encodes every text without unknown tokens and decodes it back exactly.

    ``vocab_size`` counts the four special tokens and the 256 bytes; fewer merges are learnt when the texts
    hold no more pairs. Training streams the texts; a few seconds per 10 MB. Raises BadInput below 260
    tokens or without any text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    smallest = 256 + len(SPECIAL)
    if vocab_size < smallest:
        raise BadInput(f"A byte-pair vocabulary has at least {smallest} tokens, but vocab_size={vocab_size} was given.")
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(texts), trainer)
    return wrapped(tokenizer)


def _texts(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise BadInput("Give a list of texts, not one text: its letters would be taken for texts.")
    found = False
    for text in texts:
        if not isinstance(text, str):
            raise BadInput(f"Every text must be a str, but one is {type(text).__name__}: {text!r:.60}.")
        found = True
        yield text
    if not found:
        raise BadInput("A tokenizer needs at least one text, but none was given.")


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """As a Hugging Face tokenizer, with the four special tokens, which it must hold, in their roles."""
    from transformers import PreTrainedTokenizerFast

    pad, bos, eos, unk = SPECIAL
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        clean_up_tokenization_spaces=False,
    )

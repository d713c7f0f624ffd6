"""Tokenizers to move to: a Unigram model trained on texts, and plain bytes. Both write every text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from didact.core.errors import BadInput
from didact.models.tokenizer import SPECIAL, wrapped
from didact.reusing.zett.bytelevel import LETTERS
from didact.reusing.zett.sampler import bytes_pre_tokenizer


def unigram_tokenizer(texts: Iterable[str], vocab_size: int = 500) -> Any:
    """A byte-level Unigram tokenizer; `vocab_size` counts the four special tokens and the 256 bytes.

    Raises:
        BadInput: a vocabulary without room for the bytes.
    """
    if vocab_size < 256 + len(SPECIAL):
        raise BadInput(
            f"A byte-level vocabulary has at least {256 + len(SPECIAL)} tokens, but {vocab_size} were asked."
        )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = bytes_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return wrapped(tokenizer)


def byte_tokenizer() -> Any:
    """One token a byte, after the four special tokens."""
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *LETTERS))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token=None))
    tokenizer.pre_tokenizer = bytes_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    return wrapped(tokenizer)

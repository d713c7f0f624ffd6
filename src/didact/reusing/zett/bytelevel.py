"""A tokenizer at byte level: which bytes every token stands for, and how the bare model spells any bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from didact.core.errors import BadInput

ROLES = ("bos", "eos", "pad", "unk", "sep", "cls", "mask")
META = "▁"  #: a space, in SentencePiece's vocabularies


def _byte_letters() -> tuple[str, ...]:
    """The printable letter that byte-level vocabularies write for each byte (the convention of GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return tuple(chr(b) if b in printable else chr(next(others)) for b in range(256))


LETTERS = _byte_letters()
BYTES = {letter: byte for byte, letter in enumerate(LETTERS)}


def to_letters(data: bytes) -> str:
    return "".join(LETTERS[b] for b in data)


@dataclass(frozen=True, eq=False)
class ByteVocabulary:
    """What a fast Hugging Face tokenizer's ids stand for. Byte-level ones and those with byte fallback can be used."""

    tokenizer: Any
    tokens: tuple[bytes | None, ...]  #: id -> bytes; None for a special token
    specials: Mapping[str, int]  #: role or text of a special token -> id
    letters: bool  #: bytes are written as letters (else: SentencePiece pieces with byte fallback)

    @classmethod
    def of(cls, tokenizer: Any) -> ByteVocabulary:
        """
        Raises:
            BadInput: a slow tokenizer, an empty vocabulary, ids with gaps, bytes that no token stands for.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise BadInput(
                f"A fast Hugging Face tokenizer is needed, but {type(tokenizer).__name__} has no backend_tokenizer. "
                "Convert it with PreTrainedTokenizerFast."
            )
        about = json.loads(backend.to_str())
        names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        missing = [i for i, name in enumerate(names) if name is None]
        if missing:
            raise BadInput(f"The ids of the vocabulary have gaps: no token has the id {missing[0]}. Renumber them.")
        special = _special_ids(tokenizer, about)
        added = {token["id"]: token["content"] for token in about.get("added_tokens", ())}
        letters = _writes_letters(about)
        fallback = bool(about["model"].get("byte_fallback"))
        if not letters and not fallback:
            raise BadInput(
                f"The tokenizer ({about['model']['type']}) has no byte fallback: some texts cannot be written with it. "
                "Use a byte-level one, or one with byte_fallback."
            )
        tokens = tuple(
            None if i in special else added[i].encode() if i in added else _bytes_of(name, letters)
            for i, name in enumerate(names)
        )
        single = {token for token in tokens if token is not None and len(token) == 1}
        if not any(token is not None for token in tokens):
            raise BadInput("The vocabulary is empty: it has no token but special ones.")
        if len(single) < 256 and not (fallback and len(single) >= 128 and _all_fallbacks(names)):
            raise BadInput(
                f"Only {len(single)} of the 256 bytes have a token of their own, so texts can be unwritable."
            )
        return cls(tokenizer, tokens, _roles(tokenizer, special, names), letters)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[bytes, int]:
        """Bytes -> id, of the first token that stands for them."""
        found: dict[bytes, int] = {}
        for i, token in enumerate(self.tokens):
            if token is not None:
                found.setdefault(token, i)
        return found

    def spell(self, data: bytes) -> list[int]:
        """Ids that the model writes some bytes with: without its pretokenizer, which would cut them first."""
        if not data:
            return []
        model = self.tokenizer.backend_tokenizer.model
        if self.letters:
            return [token.id for token in model.tokenize(to_letters(data))]
        ids: list[int] = []
        text = ""
        for character in data.decode("utf-8", "surrogateescape"):
            if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that is no part of a character
                ids += [*self._pieces(text), self.ids[bytes([ord(character) - 0xDC00])]]
                text = ""
            else:
                text += character
        return [*ids, *self._pieces(text)]

    def _pieces(self, text: str) -> list[int]:
        model = self.tokenizer.backend_tokenizer.model
        return [token.id for token in model.tokenize(text.replace(" ", META))] if text else []

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def matched_specials(source: ByteVocabulary, target: ByteVocabulary) -> dict[int, int]:
    """Target id -> source id of every special token: by its role, else by its text.

    A padding token that the source lacks takes the place of its end token, as its embedding is never used.

    Raises:
        BadInput: naming the special tokens of the target that the source has no match for.
    """
    found: dict[int, int] = {}
    for name, i in target.specials.items():
        if name in source.specials:
            found.setdefault(i, source.specials[name])
    padding = target.specials.get("pad")
    if padding is not None and padding not in found and "eos" in source.specials:
        found[padding] = source.specials["eos"]
    lost = [i for i, token in enumerate(target.tokens) if token is None and i not in found]
    if lost:
        names = ", ".join(map(repr, target.tokenizer.convert_ids_to_tokens(lost[:5])))
        known = ", ".join(map(repr, source.specials)) or "none"
        raise BadInput(
            f"The source tokenizer has no match for the target's special tokens {names}; it has {known}. Give them the "
            "same role or text in both, or make them ordinary tokens."
        )
    return found


def _bytes_of(token: str, letters: bool) -> bytes:
    if letters:
        return bytes(BYTES[c] for c in token) if all(c in BYTES for c in token) else token.encode()
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace(META, " ").encode()


def _writes_letters(about: Mapping[str, Any]) -> bool:
    def parts(of: Any) -> list[Any]:
        if not of:
            return []
        return [of, *(p for key in ("pretokenizers", "normalizers") for inner in of.get(key, ()) for p in parts(inner))]

    return any(p.get("type") == "ByteLevel" for key in ("pre_tokenizer", "normalizer") for p in parts(about.get(key)))


def _special_ids(tokenizer: Any, about: Mapping[str, Any]) -> set[int]:
    flagged = {token["id"] for token in about.get("added_tokens", ()) if token.get("special")}
    return flagged | set(tokenizer.all_special_ids)


def _roles(tokenizer: Any, special: set[int], names: list[str]) -> dict[str, int]:
    roles = {role: getattr(tokenizer, f"{role}_token_id", None) for role in ROLES}
    return {role: i for role, i in roles.items() if i is not None} | {names[i]: i for i in sorted(special)}


def _all_fallbacks(names: list[str]) -> bool:
    return {f"<0x{b:02X}>" for b in range(256)} <= set(names)

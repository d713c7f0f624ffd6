"""Recognising pickles, whatever they are called: loading one runs whatever its author wrote into it."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable

_ENDINGS = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill", ".cloudpickle", ".mar")
_HEAD = 1 << 16
# Protocol 2 and later begin with an opcode and its number; a frame, a global, a mark, a memo or an empty container
# follows. A safetensors file may begin with the same two bytes, but then goes on with the length of its header.
_BINARY = re.compile(rb"\x80[\x02-\x05](\x95.{6}\x00\x00|[cX\x8c()}\]q\x94KN\x88\x89GU\x8a\x8e\x8f])", re.DOTALL)
_CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"}


def named_like_one(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def begins_like_one(head: bytes) -> bool:
    """Whether a file's first bytes are those of a pickle, compressed as joblib does or in torch's zip as well."""
    if _BINARY.match(head):
        return True
    if head[:2] == b"PK":
        return any(word in head for word in (b"data.pkl", b".pickle", b".joblib"))
    return _is_old_protocol(head[:_HEAD])


def any_named_like_one(names: Iterable[str]) -> bool:
    return any(named_like_one(name) for name in names)


def _is_old_protocol(head: bytes) -> bool:
    """Protocols 0 and 1 have no mark of their own: only reading the instructions tells. Nothing is run by that."""
    if not head[:1] or head[:1] not in b"c(]}lIdV":
        return False
    calls = False
    try:
        for opcode, _, _ in pickletools.genops(head):
            calls = calls or opcode.name in _CALLS
            if opcode.name == "STOP":
                return calls
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError):
        return False
    return False

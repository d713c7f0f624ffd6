"""Passwords: only what Argon2 makes of them is kept."""

from __future__ import annotations

import secrets
import threading
from functools import cached_property
from typing import TYPE_CHECKING

from didact.core.errors import MissingExtra
from didact.reusing.dock.accounts.people import BadAccount

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_SHORTEST, _LONGEST = 8, 1024


class Passwords:
    """Hashes passwords and compares with hashes, two at a time."""

    def __init__(self) -> None:
        # A password takes 64 MB and much of a core to hash, on purpose; many at once would take the machine down.
        self._turns = threading.BoundedSemaphore(2)

    def hash(self, password: str) -> str:
        """Errors: `BadAccount` "bad-password" for one that is too short, too long or not Unicode."""
        if not _SHORTEST <= len(password) <= _LONGEST:
            raise BadAccount(
                "bad-password",
                f"A password has {_SHORTEST} to {_LONGEST} characters; {len(password)} were given.",
            )
        try:
            password.encode()
        except UnicodeEncodeError:
            raise BadAccount("bad-password", "A password must be valid Unicode.") from None
        with self._turns:
            return self._hasher.hash(password)

    def is_right(self, hashed: str | None, password: str) -> bool:
        """Whether this is the password. None, for an unknown name, takes as long and is never right."""
        hasher = self._hasher
        from argon2.exceptions import VerificationError

        tried = self._nobodys if hashed is None else hashed
        try:
            with self._turns:
                return hasher.verify(tried, password[: _LONGEST + 1].encode("utf-8", "replace"))
        except VerificationError:
            return False

    def is_outdated(self, hashed: str) -> bool:
        """Whether a hash was made with weaker settings than today's."""
        return self._hasher.check_needs_rehash(hashed)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        try:
            from argon2 import PasswordHasher
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "argon2", "dock") from None
        return PasswordHasher()

    @cached_property
    def _nobodys(self) -> str:
        return self.hash(secrets.token_urlsafe(12))

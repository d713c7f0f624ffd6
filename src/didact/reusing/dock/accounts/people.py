"""Who may do what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from didact.reusing.dock.errors import DockError, NotAllowed, NotSignedIn

Role = Literal["user", "admin"]


@dataclass(frozen=True)
class User:
    """Somebody with an account."""

    id: int
    name: str
    email: str
    role: Role
    created: str

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True)
class Token:
    """A way to sign in without the password."""

    id: int
    label: str
    created: str
    expires: str
    revoked: bool


@dataclass(frozen=True)
class NewToken(Token):
    """A token at the one moment at which its secret is known: only its hash is kept."""

    secret: str
    user: User


class BadAccount(DockError):
    """A name, address or password that an account cannot have."""

    status = 422


def require_admin(user: User | None) -> User:
    """Errors: `NotSignedIn` "missing-token", `NotAllowed` "not-admin"."""
    if user is None:
        raise NotSignedIn("missing-token", "This needs an admin's account. Sign in and send the token along.")
    if not user.is_admin:
        raise NotAllowed("not-admin", "Only admins of this dock may do this.")
    return user

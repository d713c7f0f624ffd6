"""Accounts, tokens and events, as the OpenAPI description shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from didact.reusing.dock.accounts import NewToken, Token, User
from didact.reusing.dock.service import Event
from didact.web.api.schemas import Line, Strict, encodable

Secret = Annotated[str, AfterValidator(encodable), Field(min_length=1, max_length=1000)]


class AccountIn(Strict):
    """A new account."""

    name: Line = Field(min_length=1, max_length=100)
    email: Line = Field(default="", max_length=254)
    password: Secret


class LoginIn(Strict):
    """Name and password, for a token."""

    name: Line = Field(min_length=1, max_length=100)
    password: Secret
    label: Line = Field(default="login", max_length=100)


class TokenIn(Strict):
    """A further token, for example for a machine."""

    label: Line = Field(default="", max_length=100)
    days: float | None = Field(default=None, gt=0, le=3650, description="How long it is good for.")


class UserOut(BaseModel):
    """An account."""

    id: int
    name: str
    email: str
    role: Literal["user", "admin"]
    created: str

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(id=user.id, name=user.name, email=user.email, role=user.role, created=user.created)


class UsersOut(BaseModel):
    """One page of accounts."""

    items: list[UserOut]
    total: int
    page: int
    limit: int


class TokenOut(BaseModel):
    """A token without its secret, which is not kept."""

    id: int
    label: str
    created: str
    expires: str
    revoked: bool

    @classmethod
    def of(cls, token: Token) -> TokenOut:
        return cls(id=token.id, label=token.label, created=token.created, expires=token.expires, revoked=token.revoked)


class NewTokenOut(TokenOut):
    """A token at the one moment at which its secret is shown."""

    token: str

    @classmethod
    def of(cls, token: Token) -> NewTokenOut:
        assert isinstance(token, NewToken)
        return cls(token=token.secret, **TokenOut.of(token).model_dump())


class RoleIn(Strict):
    """What a user may do from now on."""

    role: Literal["user", "admin"]


class EventOut(BaseModel):
    """Something that happened at the dock."""

    at: str
    kind: str
    user: str
    learnware: str
    about: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls(at=event.at, kind=event.kind, user=event.user, learnware=event.learnware, about=event.about)

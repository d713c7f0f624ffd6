"""Accounts and tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from didact.web.api.people import AccountIn, LoginIn, NewTokenOut, TokenIn, TokenOut, UserOut
from didact.web.api.schemas import Number, errors
from didact.web.security import SignedIn, TheDock, limit_sign_ins

router = APIRouter(tags=["accounts"])


@router.post("/users", status_code=201, dependencies=[Depends(limit_sign_ins)], responses=errors(409, 413))
def register(dock: TheDock, account: AccountIn) -> UserOut:
    """Make an account, where this dock lets anybody do so."""
    return UserOut.of(dock.accounts.register(account.name, account.email, account.password))


@router.get("/users/me")
def me(user: SignedIn) -> UserOut:
    """The owner of the token."""
    return UserOut.of(user)


@router.post("/login", dependencies=[Depends(limit_sign_ins)], responses=errors(413))
def login(dock: TheDock, login: LoginIn) -> NewTokenOut:
    """A token for a name and a password. Its secret is shown this once."""
    return NewTokenOut.of(dock.accounts.login(login.name, login.password, label=login.label))


@router.get("/tokens")
def tokens(dock: TheDock, user: SignedIn) -> list[TokenOut]:
    """One's own tokens, without their secrets."""
    return [TokenOut.of(token) for token in dock.accounts.tokens(user)]


@router.post("/tokens", status_code=201, responses=errors(409, 413))
def issue(dock: TheDock, user: SignedIn, token: TokenIn) -> NewTokenOut:
    """A further token. Its secret is shown this once."""
    return NewTokenOut.of(dock.accounts.issue(user, label=token.label, days=token.days))


@router.delete("/tokens/{id}", status_code=204, response_class=Response, responses=errors(404, 413))
def revoke(dock: TheDock, user: SignedIn, id: Annotated[Number, Path()]) -> None:
    """Make a token worthless."""
    dock.accounts.revoke(id, by=user)

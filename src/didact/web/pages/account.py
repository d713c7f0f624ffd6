"""Signing in and out, registering, and one's account: tokens, password, leaving."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from didact.reusing.dock.errors import DockError
from didact.web.pages.forms import OWN_PAGE, local, see
from didact.web.rendering import render
from didact.web.security import MaybeUser, SignedIn, TheDock, limit_sign_ins, session_token
from didact.web.security import sign_in as keep_session
from didact.web.security import sign_out as end_session

router = APIRouter()
GUARDED = [*OWN_PAGE, Depends(limit_sign_ins)]
Next = Annotated[str, Query(max_length=2000)]
Name = Annotated[str, Form(max_length=200)]
Password = Annotated[str, Form(max_length=4096)]


@router.get("/sign-in")
def sign_in_form(request: Request, user: MaybeUser, next: Next = "/") -> Response:
    if user is not None:
        return see(local(next))
    return render(request, "account/sign-in.html", next=local(next), name="", alert="")


@router.post("/sign-in", dependencies=GUARDED)
def sign_in(
    request: Request,
    dock: TheDock,
    name: Name = "",
    password: Password = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    try:
        days = request.app.state.settings.session_days
        token = dock.accounts.login(name.strip(), password, label="browser", days=days)
    except DockError as error:
        context: dict[str, Any] = {"next": local(next), "name": name, "alert": str(error)}
        return render(request, "account/sign-in.html", error.status, **context)
    response = see(local(next))
    keep_session(request, response, token.secret)
    return response


@router.get("/register")
def register_form(request: Request, dock: TheDock, user: MaybeUser, next: Next = "/") -> Response:
    if user is not None:
        return see(local(next))
    return _register_page(request, dock.settings.registration == "open", local(next))


@router.post("/register", dependencies=GUARDED)
def register(
    request: Request,
    dock: TheDock,
    name: Name = "",
    email: Name = "",
    password: Password = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    try:
        dock.accounts.register(name.strip(), email.strip(), password)
        days = request.app.state.settings.session_days
        token = dock.accounts.login(name.strip(), password, label="browser", days=days)
    except DockError as error:
        is_open = dock.settings.registration == "open"
        return _register_page(request, is_open, local(next), name, email, str(error), error.status)
    response = see(local(next))
    keep_session(request, response, token.secret)
    return response


@router.post("/sign-out", dependencies=OWN_PAGE)
def sign_out(request: Request, dock: TheDock) -> Response:
    secret = session_token(request)
    if secret:
        dock.accounts.sign_out(secret)
    response = see("/")
    end_session(response)
    return response


@router.get("/account")
def account(request: Request, dock: TheDock, user: SignedIn) -> Response:
    return _account_page(request, dock, user)


@router.post("/account/tokens", dependencies=OWN_PAGE)
def issue(
    request: Request,
    dock: TheDock,
    user: SignedIn,
    label: Annotated[str, Form(max_length=1000)] = "",
    days: Annotated[str, Form(max_length=20)] = "",
) -> Response:
    """A new token. Its secret is on the page that answers, and nowhere else."""
    try:
        lasts = float(days) if days.strip() else None
    except ValueError:
        alert = f"The number of days should be a number, but is {days!r}."
        return _account_page(request, dock, user, alert=alert, status=422)
    try:
        token = dock.accounts.issue(user, label=label.strip(), days=lasts)
    except DockError as error:
        return _account_page(request, dock, user, alert=str(error), status=error.status)
    return _account_page(request, dock, user, secret=token.secret)


@router.post("/account/tokens/{id}/revoke", dependencies=OWN_PAGE)
def revoke(dock: TheDock, user: SignedIn, id: int) -> Response:
    dock.accounts.revoke(id, by=user)
    return see("/account")


@router.post("/account/password", dependencies=GUARDED)
def password(request: Request, dock: TheDock, user: SignedIn, old: Password = "", new: Password = "") -> Response:
    """A new password. All tokens end with it, this browser's too, which gets another."""
    try:
        dock.accounts.set_password(user, old, new)
    except DockError as error:
        # A wrong password is no reason to send somebody to the sign-in page.
        return _account_page(request, dock, user, alert=str(error), status=422 if error.status == 401 else error.status)
    token = dock.accounts.issue(user, label="browser", days=request.app.state.settings.session_days)
    response = see("/account")
    keep_session(request, response, token.secret)
    return response


@router.post("/account/delete", dependencies=OWN_PAGE)
def leave(
    request: Request,
    dock: TheDock,
    user: SignedIn,
    name: Name = "",
    learnwares: Annotated[str, Form(max_length=10)] = "keep",
) -> Response:
    """Remove one's account; the name is typed in, so that it does not happen by a slip."""
    if name.strip() != user.name:
        return _account_page(request, dock, user, alert="To remove the account, type in its name.", status=422)
    try:
        dock.delete_user(user.id, by=user, learnwares="delete" if learnwares == "delete" else "keep")
    except DockError as error:
        return _account_page(request, dock, user, alert=str(error), status=error.status)
    response = see("/")
    end_session(response)
    return response


def _register_page(
    request: Request, is_open: bool, next: str, name: str = "", email: str = "", alert: str = "", status: int = 200
) -> Response:
    context: dict[str, Any] = {"open": is_open, "next": next, "name": name, "email": email, "alert": alert}
    return render(request, "account/register.html", status, **context)


def _account_page(
    request: Request, dock: TheDock, user: SignedIn, *, secret: str = "", alert: str = "", status: int = 200
) -> Response:
    tokens = dock.accounts.tokens(user)
    return render(request, "account/account.html", status, tokens=tokens, secret=secret, alert=alert)

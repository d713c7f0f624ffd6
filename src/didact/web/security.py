"""Who is asking, what they may do, and how often: used by the API and by the pages alike.

A request carries a token in one of two ways. Programs send `Authorization: Bearer <token>`. Browsers send the cookie
that `sign_in` set, which no script can read and no other site can use: every request with a cookie that changes
something must also carry the page's CSRF token, in the form field `csrf` or the header `X-CSRF-Token`.

    @router.get("/mine")
    def mine(user: SignedIn) -> ...            # 401 for visitors
    @router.get("/home")
    def home(user: MaybeUser) -> ...           # None for visitors
    @router.post("/upload", dependencies=[Depends(check_csrf)])
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from didact.reusing.dock.accounts import User
from didact.reusing.dock.errors import NotAllowed, NotSignedIn
from didact.reusing.dock.service import Dock
from didact.web.settings import WebSettings

SESSION_COOKIE = "didact_session"
VISITOR_COOKIE = "didact_visitor"
CSRF_FIELD = "csrf"
CSRF_HEADER = "X-CSRF-Token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def the_dock(request: Request) -> Dock:
    """The dock that this application serves."""
    dock: Dock = request.app.state.dock
    return dock


def current_user(request: Request) -> User | None:
    """The owner of the token of this request; None for a visitor, and for a browser whose session has ended.

    Errors: NotSignedIn when an Authorization header carries a token that is expired, revoked or unknown. A cookie's
    error is kept for `require_user`, so that an old cookie does not lock a browser out of public pages.
    """
    if not hasattr(request.state, "user"):
        request.state.user, request.state.refusal = _identify(request)
    user: User | None = request.state.user
    return user


def require_user(request: Request) -> User:
    """The signed-in user. Errors: NotSignedIn."""
    user = current_user(request)
    if user is None:
        raise request.state.refusal or NotSignedIn(
            "missing-token", "This needs a signed-in user. Send a token as 'Authorization: Bearer TOKEN', or sign in."
        )
    return user


def require_admin(request: Request) -> User:
    """The signed-in administrator. Errors: NotSignedIn, NotAllowed."""
    user = require_user(request)
    if not user.is_admin:
        raise NotAllowed("admins-only", f"This is for administrators; the role of {user.name!r} is {user.role!r}.")
    return user


def session_token(request: Request) -> str | None:
    """The token in the browser's cookie, whether it is still good or not."""
    return request.cookies.get(SESSION_COOKIE)


def sign_in(request: Request, response: Response, token: str) -> None:
    """Make the browser keep this token. The page that calls this has checked the password."""
    settings: WebSettings = request.app.state.settings
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=settings.session_days * 86_400,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path="/",
    )


def sign_out(response: Response) -> None:
    """Make the browser forget its token. The token itself is revoked with `dock.accounts`."""
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")


def csrf_token(request: Request) -> str:
    """What a form of this page must send back in the field `csrf`. Visitors are given a cookie to check it against."""
    session = session_token(request)
    if session:
        return _signature(session)
    visitor = request.cookies.get(VISITOR_COOKIE) or getattr(request.state, "visitor", None)
    if not visitor:
        visitor = request.state.visitor = secrets.token_urlsafe(24)
    return _signature(visitor)


async def check_csrf(request: Request) -> None:
    """Refuse a browser's request that changes something unless it comes from one of our own pages.

    A request with an Authorization header needs no such proof: another site cannot make a browser send one.
    """
    if request.method in SAFE_METHODS or _bearer(request) is not None:
        return
    given = request.headers.get(CSRF_HEADER)
    if given is None and request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        field = (await request.form()).get(CSRF_FIELD)
        given = field if isinstance(field, str) else None
    if not _csrf_matches(request, given):
        raise NotAllowed(
            "csrf", "This form is not from a page of this dock, or is too old. Reload the page, try again."
        )


def check_csrf_header(request: Request) -> None:
    """The same for the API, where the header is the only way and the body is left unread."""
    uses_cookie = _bearer(request) is None and session_token(request) is not None
    if (
        uses_cookie
        and request.method not in SAFE_METHODS
        and not _csrf_matches(request, request.headers.get(CSRF_HEADER))
    ):
        raise NotAllowed("csrf", f"A request with a session cookie needs the page's token in the header {CSRF_HEADER}.")


def limit_requests(request: Request) -> None:
    """Refuse more requests than the settings allow for one user, or for one address without a good token."""
    try:
        user = current_user(request)
    except NotSignedIn:
        user = None  # whoever invents tokens is counted by address; what needs a user refuses the token itself
    request.app.state.request_limit.check(f"user {user.id}" if user else _address(request))


def limit_sign_ins(request: Request) -> None:
    """Refuse more attempts to sign in or register than the settings allow for one address."""
    request.app.state.sign_in_limit.check(_address(request))


MaybeUser = Annotated[User | None, Depends(current_user)]
SignedIn = Annotated[User, Depends(require_user)]
Administrator = Annotated[User, Depends(require_admin)]
TheDock = Annotated[Dock, Depends(the_dock)]


class SecurityHeaders:
    """ASGI middleware: headers that keep browsers from running, framing or guessing anything we did not send."""

    HEADERS = {
        "Content-Security-Policy": (
            "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; object-src 'none'; "
            "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self.HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
                if visitor := state.get("visitor"):
                    headers.append(
                        "Set-Cookie", f"{VISITOR_COOKIE}={visitor}; Path=/; HttpOnly; SameSite=Lax{_secure(scope)}"
                    )
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _secure(scope: Scope) -> str:
    return "; Secure" if scope.get("scheme") == "https" else ""


def _identify(request: Request) -> tuple[User | None, NotSignedIn | None]:
    accounts = the_dock(request).accounts
    bearer = _bearer(request)
    if bearer is not None:
        return accounts.verify(bearer), None
    session = session_token(request)
    if session is None:
        return None, None
    try:
        return accounts.verify(session), None
    except NotSignedIn as refusal:
        return None, refusal


def _bearer(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _csrf_matches(request: Request, given: str | None) -> bool:
    if request.headers.get("sec-fetch-site") == "cross-site" or given is None:
        return False
    secret = session_token(request) or request.cookies.get(VISITOR_COOKIE)
    return secret is not None and hmac.compare_digest(given.encode(), _signature(secret).encode())


def _signature(secret: str) -> str:
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"

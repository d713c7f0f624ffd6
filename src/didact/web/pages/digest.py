"""The feed, and subscribing to the digest by e-mail."""

from __future__ import annotations

import logging
import smtplib
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response

from didact.reusing.dock.errors import DockError
from didact.web.board.routes import TheBoard
from didact.web.digest import all_news, confirmation
from didact.web.feed import atom
from didact.web.mail import MailSettings, send
from didact.web.pages.forms import OWN_PAGE
from didact.web.rendering import render
from didact.web.security import TheDock, limit_sign_ins
from didact.web.subscriptions import EVERY, Subscriptions

router = APIRouter()
log = logging.getLogger("didact.web")
Key = Annotated[str, Query(max_length=200)]
KeyField = Annotated[str, Form(max_length=200)]


class NoMail(DockError):
    """This site has no mail server."""

    status = 404


@router.get("/feed.atom")
def feed(
    request: Request,
    board: TheBoard,
    dock: TheDock,
    kind: Annotated[Literal["verdict", "run", "learnware"] | None, Query()] = None,
) -> Response:
    news = [item for item in all_news(board, dock) if kind in (None, item.kind)]
    mail: MailSettings | None = request.app.state.mail
    site = (mail.site if mail else str(request.base_url)).rstrip("/")
    content = atom(news, site, "/feed.atom" + (f"?kind={kind}" if kind else ""))
    headers = {"ETag": f'"{sha256(content).hexdigest()[:20]}"', "Cache-Control": "max-age=300"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="application/atom+xml", headers=headers)


@router.get("/digest")
def subscribe_form(request: Request) -> Response:
    return _page(request)


@router.post("/digest", dependencies=[*OWN_PAGE, Depends(limit_sign_ins)])
def subscribe(
    request: Request,
    dock: TheDock,
    email: Annotated[str, Form(max_length=300)] = "",
    every: Annotated[str, Form(max_length=10)] = "week",
) -> Response:
    """Send the first letter. The answer is the same whether the address is known or not."""
    mail = _mail(request)
    try:
        secret = Subscriptions(dock.store).ask(email, every)
        if secret is not None:
            send(mail, confirmation(email.strip(), secret, mail))
    except DockError as error:
        return _page(request, email=email, every=every, alert=str(error), status=error.status)
    except (OSError, smtplib.SMTPException) as error:
        Subscriptions(dock.store).not_sent(email)
        log.warning("A confirmation could not be sent: %s", error)
        alert = "The mail server did not take the letter. Try again later."
        return _page(request, email=email, every=every, alert=alert, status=502)
    return _done(request, "One more step", f"A letter is on its way to {email.strip()}. Follow its link to confirm.")


@router.get("/digest/confirm")
def confirm_form(request: Request, dock: TheDock, key: Key = "") -> Response:
    """A page with a button: programs that look at the links of letters must not confirm."""
    email = Subscriptions(dock.store).pending(key)
    return render(request, "digest/confirm.html", 200 if email else 404, key=key, email=email)


@router.post("/digest/confirm", dependencies=OWN_PAGE)
def confirm(request: Request, dock: TheDock, board: TheBoard, key: KeyField = "") -> Response:
    subscription = Subscriptions(dock.store).confirm(key, all_news(board, dock))
    return _done(
        request, "Subscribed", f"From now on {subscription.email} is told what is new every {subscription.every}."
    )


@router.get("/digest/unsubscribe")
def unsubscribe_form(request: Request, dock: TheDock, key: Key = "") -> Response:
    return render(request, "digest/unsubscribe.html", key=key, subscription=Subscriptions(dock.store).find(key))


@router.post("/digest/unsubscribe")
def unsubscribe(request: Request, dock: TheDock, key: Key = "") -> Response:
    """One click, also by a mail program (RFC 8058), which has no page of ours: the key itself is the proof."""
    Subscriptions(dock.store).unsubscribe(key)
    return _done(request, "Unsubscribed", "This address gets no digest any more, and is forgotten.")


def _mail(request: Request) -> MailSettings:
    mail: MailSettings | None = request.app.state.mail
    if mail is None:
        raise NoMail("no-mail", "This site sends no e-mail. The feed has the same news.")
    return mail


def _page(request: Request, email: str = "", every: str = "week", alert: str = "", status: int = 200) -> Response:
    possible = request.app.state.mail is not None
    context: dict[str, Any] = {"possible": possible, "email": email, "every": every, "choices": EVERY, "alert": alert}
    return render(request, "digest/subscribe.html", status, **context)


def _done(request: Request, heading: str, text: str) -> Response:
    return render(request, "digest/done.html", heading=heading, text=text)

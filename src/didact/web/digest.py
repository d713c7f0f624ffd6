"""The digest: letters that tell subscribers what is new, and the two letters around it.

`send_due` is what `didact dock digest` runs, once a day or more often: it sends to everybody whose turn it is and for
whom there is news, and to each only once, however many processes run it.
"""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from urllib.parse import quote

from didact.reusing.dock.service import Dock
from didact.web.board.reader import Board
from didact.web.mail import MailSettings, compose, send
from didact.web.news import News, learnware_news, newest_first
from didact.web.rendering import day, templates
from didact.web.subscriptions import Subscription, Subscriptions

MOST = 40  #: pieces of news in one letter
WORDS = {"day": "daily", "week": "weekly", "month": "monthly"}

log = logging.getLogger("didact.web")


@dataclass(frozen=True)
class Sent:
    """What a run of the digest came to."""

    sent: int = 0
    failed: int = 0  #: letters that the mail server did not take: they are due again
    quiet: int = 0  #: subscribers whose turn it was, but for whom there was no news


def all_news(board: Board, dock: Dock | None) -> list[News]:
    """Verdicts, runs and learnwares, newest first."""
    return newest_first(board.news(), learnware_news(dock) if dock is not None else ())


def send_digests(dock: Dock, ledger: str | None, mail: MailSettings | None) -> Sent:
    """Send what is due at a dock; nothing without mail settings."""
    if mail is None:
        return Sent()
    return send_due(Subscriptions(dock.store), all_news(Board(ledger), dock), mail)


def send_due(
    subscriptions: Subscriptions, news: Sequence[News], mail: MailSettings, moment: datetime | None = None
) -> Sent:
    """One letter to each subscriber whose turn it is. A letter that cannot be sent stays due."""
    now = moment or datetime.now(UTC)
    subscriptions.notice(news, now)
    sent = failed = quiet = 0
    for subscription in subscriptions.due(now):
        fresh = subscriptions.news_for(subscription, news)
        if not subscriptions.take(subscription, now):
            continue
        if not fresh:
            quiet += 1
            continue
        try:
            send(mail, letter(subscription, fresh, mail))
            sent += 1
        except (OSError, smtplib.SMTPException) as error:
            subscriptions.give_back(subscription, now)
            log.warning("A digest could not be sent: %s", error)
            failed += 1
    return Sent(sent, failed, quiet)


def letter(subscription: Subscription, news: Sequence[News], mail: MailSettings) -> EmailMessage:
    """The digest itself, with the headers by which mail programs unsubscribe in one click (RFC 8058)."""
    shown, more = news[:MOST], max(0, len(news) - MOST)
    leave = mail.link(f"/digest/unsubscribe?key={quote(subscription.key)}")
    parts = [f"{n.title} ({day(n.date)})\n{n.text}\n{mail.link(n.path)}\n" for n in shown]
    if more:
        parts.append(f"And {more} more: {mail.link('/board/newest')}\n")
    parts.append(f"-- \nYour {WORDS[subscription.every]} digest. To stop it: {leave}\n")
    html = (
        templates()
        .get_template("digest/letter.html")
        .render(news=shown, more=more, leave=leave, link=mail.link, every=WORDS[subscription.every])
    )
    return compose(
        mail,
        subscription.email,
        f"didact: {_counted(news)}",
        "\n".join(parts),
        html,
        {
            "List-Unsubscribe": f"<{leave}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            "List-Id": "didact digest <digest.didact>",
            "Precedence": "bulk",
        },
    )


def confirmation(email: str, secret: str, mail: MailSettings) -> EmailMessage:
    """The first letter: nothing more comes unless its link is followed."""
    link = mail.link(f"/digest/confirm?key={quote(secret)}")
    text = (
        f"Somebody, probably you, asked for the digest of {mail.site} to be sent to this address.\n\n"
        f"To confirm, open this page and press the button (the link works for two days):\n\n{link}\n\n"
        "If it was not you, do nothing: no further letter will come.\n"
    )
    return compose(mail, email, "Confirm the didact digest", text)


def _counted(news: Sequence[News]) -> str:
    counts = {
        "new verdict": sum(n.kind == "verdict" for n in news),
        "new learnware": sum(n.kind == "learnware" for n in news),
        "new run": sum(n.kind == "run" for n in news),
    }
    return ", ".join(f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count)

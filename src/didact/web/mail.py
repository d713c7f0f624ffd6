"""E-mail: settings from the environment, messages that mail programs accept, and sending them by SMTP.

Nothing is sent when no server is set: whoever wants to send asks `MailSettings.from_environment()` first, which is
None then.
"""

from __future__ import annotations

import os
import re
import smtplib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from didact.core.errors import BadInput

PREFIX = "DIDACT_SMTP_"
#: what a mailbox may look like; whether it exists only a letter can tell
ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*"
                     r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # fmt: skip


class MailSettings(BaseModel):
    """How letters leave, and under which address the pages that they link to are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(min_length=1)
    port: int = Field(default=587, ge=1, le=65535)
    user: str = ""  #: empty: no sign-in
    password: str = Field(default="", repr=False)
    sender: str  #: the From address, with or without a name
    site: str  #: the public address of the pages, such as https://dock.example.org; never taken from a request
    security: Literal["starttls", "tls", "none"] = "starttls"
    timeout: float = Field(default=20.0, gt=0)  #: seconds

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> MailSettings | None:
        """`DIDACT_SMTP_HOST`, `_PORT`, `_USER`, `_PASSWORD`, `_SENDER`, `_SITE`, `_SECURITY`; None without a host.

        Errors: BadInput when a host is set but something else is missing or wrong.
        """
        environment = os.environ if environment is None else environment
        given = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(PREFIX + name.upper())
        }
        if "host" not in given:
            return None
        try:
            settings = cls(**given)
        except ValidationError as error:
            wrong = "; ".join(f"{PREFIX}{str(p['loc'][0]).upper()}: {p['msg']}" for p in error.errors())
            raise BadInput(
                f"The mail settings cannot be used: {wrong}. Set these variables, or unset {PREFIX}HOST."
            ) from None
        if not is_address(parseaddr(settings.sender)[1]):
            raise BadInput(f"{PREFIX}SENDER should be an e-mail address, but is {settings.sender!r}.")
        if not re.match(r"https?://[^/\s]+", settings.site):
            raise BadInput(f"{PREFIX}SITE should be the address of the pages (https://...), but is {settings.site!r}.")
        return settings

    def link(self, path: str) -> str:
        """A full address of a page of this site."""
        return self.site.rstrip("/") + path


def is_address(text: str) -> bool:
    """Can this be the address of a mailbox? (One address, ASCII, no name, no line breaks.)"""
    return len(text) <= 254 and ADDRESS.fullmatch(text) is not None


def compose(
    settings: MailSettings,
    to: str,
    subject: str,
    text: str,
    html: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> EmailMessage:
    """A letter in plain text, with an HTML version beside it when there is one.

    Errors: BadInput when `to` is no address. Line breaks in a header are refused by the e-mail package itself.
    """
    if not is_address(to):
        raise BadInput(f"An e-mail address such as ada@example.org was expected, but {to!r} was given.")
    message = EmailMessage()
    message["From"] = settings.sender
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=parseaddr(settings.sender)[1].rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # so that holiday notices do not answer
    for name, value in (headers or {}).items():
        message[name] = value
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def send(settings: MailSettings, message: EmailMessage) -> None:
    """Send one letter. Errors: OSError and smtplib.SMTPException as the server gives them."""
    with connected(settings) as server:
        server.send_message(message)


@contextmanager
def connected(settings: MailSettings) -> Iterator[smtplib.SMTP]:
    """A signed-in connection; a password never travels unencrypted."""
    context = ssl.create_default_context()
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout, context=context)
    else:
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
    with server:
        if settings.security == "starttls":
            server.starttls(context=context)
        if settings.user:
            if settings.security == "none":
                raise BadInput(
                    f"{PREFIX}SECURITY is none, so the password would travel in the open. Use starttls or tls."
                )
            server.login(settings.user, settings.password)
        yield server

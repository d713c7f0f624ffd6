"""Who wants the digest by e-mail, in the dock's database.

An address counts only after its owner has followed the link in a first letter (double opt-in), and is removed for
good by the link in every later one. Of the first link only the hash is kept. The second must be written into every
letter, so it is kept as it is: all it can do is unsubscribe.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa

from didact.reusing.dock.errors import DockError, NotFound
from didact.reusing.dock.storage import Store
from didact.web.mail import is_address
from didact.web.news import News

Every = Literal["day", "week", "month"]
EVERY: tuple[Every, ...] = get_args(Every)
DAYS = {"day": 1, "week": 7, "month": 30}

#: how long the link of the first letter works, and how long until another is sent to the same address
LINK_LASTS = timedelta(days=2)
BETWEEN_LETTERS = timedelta(hours=1)

_tables = sa.MetaData()
_subscriptions = sa.Table(
    "digest_subscription",
    _tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("every", sa.String(8), nullable=False),
    sa.Column("confirmed", sa.Boolean, nullable=False),
    sa.Column("key", sa.String(64), nullable=False, unique=True),
    sa.Column("link_hash", sa.String(64), nullable=False, index=True),
    sa.Column("link_every", sa.String(8), nullable=False),
    sa.Column("asked", sa.String(32), nullable=False),
    sa.Column("covered", sa.String(32), nullable=False),
)
#: when a piece of news was first met: a result may be measured long before it reaches this site
_noticed = sa.Table(
    "digest_news",
    _tables,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("noticed", sa.String(32), nullable=False),
)


@dataclass(frozen=True)
class Subscription:
    email: str
    every: Every
    key: str
    covered: str  #: news that was noticed after this has not been told


class BadAddress(DockError):
    """Not an e-mail address, or not a known interval."""

    status = 422


class Subscriptions:
    """The subscriptions of one site."""

    def __init__(self, store: Store) -> None:
        self.store = store
        _tables.create_all(store.engine)

    def ask(self, email: str, every: str = "week", moment: datetime | None = None) -> str | None:
        """Note that somebody wants the digest; the secret for the link of the first letter.

        None when a letter went to this address less than an hour ago: whoever types in other people's addresses
        must not fill their mailboxes. A confirmed address may ask again, to change how often.

        Errors: BadAddress.
        """
        email = email.strip()
        if not is_address(email):
            raise BadAddress("bad-email", "An e-mail address such as ada@example.org was expected.")
        if every not in EVERY:
            raise BadAddress("bad-interval", f"A digest comes every {', '.join(EVERY)}; {every!r} was given.")
        now, email = moment or datetime.now(UTC), email.lower()
        secret = secrets.token_urlsafe(24)
        link = {"link_hash": _digest(secret), "link_every": every, "asked": _text(now)}
        with self.store.writing() as connection:
            stale = ~_subscriptions.c.confirmed & (_subscriptions.c.asked < _text(now - LINK_LASTS))
            connection.execute(sa.delete(_subscriptions).where(stale))
            known = connection.execute(sa.select(_subscriptions).where(_subscriptions.c.email == email)).first()
            if known is not None:
                if known.asked > _text(now - BETWEEN_LETTERS):
                    return None
                connection.execute(sa.update(_subscriptions).where(_subscriptions.c.id == known.id).values(**link))
                return secret
            new = {"email": email, "every": every, "confirmed": False, "key": secrets.token_urlsafe(24), "covered": ""}
            connection.execute(sa.insert(_subscriptions).values(**new, **link))
        return secret

    def not_sent(self, email: str) -> None:
        """The first letter could not be sent: another may be asked for at once."""
        here = _subscriptions.c.email == email.strip().lower()
        with self.store.writing() as connection:
            connection.execute(sa.update(_subscriptions).where(here).values(asked=""))

    def confirm(self, secret: str, news: Iterable[News] = (), moment: datetime | None = None) -> Subscription:
        """Count an address from now on; the news of now are not told any more.

        Errors: NotFound when the link is too old, was used or never existed.
        """
        now = moment or datetime.now(UTC)
        self.notice(news, now)
        with self.store.writing() as connection:
            row = connection.execute(sa.select(_subscriptions).where(*_link(secret, now))).first()
            if row is None:
                raise NotFound("no-subscription", "This link is too old or was used already. Subscribe once more.")
            values = {"confirmed": True, "every": row.link_every, "link_hash": ""}
            if not row.confirmed:
                values["covered"] = _text(now)
            changed = sa.update(_subscriptions).where(_subscriptions.c.id == row.id).values(**values)
            return _subscription(connection.execute(changed.returning(_subscriptions)).one())

    def pending(self, secret: str, moment: datetime | None = None) -> str | None:
        """The address that a link would confirm, without doing it."""
        with self.store.reading() as connection:
            return connection.scalar(
                sa.select(_subscriptions.c.email).where(*_link(secret, moment or datetime.now(UTC)))
            )

    def find(self, key: str) -> Subscription | None:
        """The subscription that a letter's unsubscribe link belongs to."""
        with self.store.reading() as connection:
            row = connection.execute(sa.select(_subscriptions).where(_subscriptions.c.key == key)).first()
        return _subscription(row) if row is not None else None

    def unsubscribe(self, key: str) -> bool:
        """Forget an address; False when it was not known (any more)."""
        with self.store.writing() as connection:
            return bool(connection.execute(sa.delete(_subscriptions).where(_subscriptions.c.key == key)).rowcount)

    # -- sending ---------------------------------------------------------------------------------------------------

    def notice(self, news: Iterable[News], moment: datetime | None = None) -> None:
        """Remember when each piece of news was first met."""
        ids = {item.id[:200] for item in news}
        with self.store.writing() as connection:
            new = ids - set(connection.scalars(sa.select(_noticed.c.id)))
            if new:
                when = _text(moment or datetime.now(UTC))
                connection.execute(sa.insert(_noticed), [{"id": id, "noticed": when} for id in sorted(new)])

    def news_for(self, subscription: Subscription, news: Iterable[News]) -> list[News]:
        """What this subscriber has not been told."""
        query = sa.select(_noticed.c.id).where(_noticed.c.noticed > subscription.covered)
        with self.store.reading() as connection:
            fresh = set(connection.scalars(query))
        return [item for item in news if item.id[:200] in fresh]

    def due(self, moment: datetime | None = None) -> list[Subscription]:
        """Confirmed subscriptions whose last digest is long enough ago."""
        now = moment or datetime.now(UTC)
        with self.store.reading() as connection:
            found = connection.execute(sa.select(_subscriptions).where(_subscriptions.c.confirmed))
            everybody = [_subscription(row) for row in found]
        # An hour of grace: a job that runs once a day does so a little earlier on some days.
        grace = timedelta(hours=1)
        return [s for s in everybody if s.covered <= _text(now - timedelta(days=DAYS[s.every]) + grace)]

    def take(self, subscription: Subscription, moment: datetime | None = None) -> bool:
        """Note that this digest is being sent; False when another process does it already."""
        return self._cover(subscription, subscription.covered, _text(moment or datetime.now(UTC)))

    def give_back(self, subscription: Subscription, moment: datetime) -> None:
        """The letter could not be sent: it is due again."""
        self._cover(subscription, _text(moment), subscription.covered)

    def _cover(self, subscription: Subscription, before: str, after: str) -> bool:
        here = (_subscriptions.c.key == subscription.key) & (_subscriptions.c.covered == before)
        with self.store.writing() as connection:
            return bool(connection.execute(sa.update(_subscriptions).where(here).values(covered=after)).rowcount)


def _link(secret: str, now: datetime) -> tuple[sa.ColumnElement[bool], ...]:
    return (_subscriptions.c.link_hash == _digest(secret), _subscriptions.c.asked >= _text(now - LINK_LASTS))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _subscription(row: Any) -> Subscription:
    return Subscription(row.email, row.every, row.key, row.covered)

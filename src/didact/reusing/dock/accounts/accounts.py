"""Class Accounts: users, their roles and their tokens."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from didact.reusing.dock.accounts.passwords import Passwords
from didact.reusing.dock.accounts.people import BadAccount, NewToken, Role, Token, User, require_admin
from didact.reusing.dock.errors import Conflict, NotAllowed, NotFound, NotSignedIn
from didact.reusing.dock.paging import Page, offset
from didact.reusing.dock.storage.store import Store, happened, now
from didact.reusing.dock.storage.tables import tokens, users

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,63}\Z")
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}\Z")
_LONGEST_DAYS = 3650.0
_LARGEST_ID = 2**31 - 1


class Accounts:
    """The people of a dock. Safe to use from many threads."""

    def __init__(
        self, store: Store, *, registration: Literal["open", "closed"] = "open", token_days: float = 90.0
    ) -> None:
        self.store = store
        self.registration = registration
        self.token_days = token_days
        self._passwords = Passwords()

    # -- signing in ------------------------------------------------------------------------------------------------

    def register(self, name: str, email: str, password: str, *, by: User | None = None) -> User:
        """Make an account. Where registration is closed, only an admin makes them for others.

        Errors: `BadAccount` "bad-name", "bad-email" or "bad-password"; `Conflict` "name-taken"; `NotAllowed`
        "registration-closed".
        """
        if self.registration == "closed" and not (by and by.is_admin):
            raise NotAllowed(
                "registration-closed", "This dock does not take new accounts by itself. Ask its operator for one."
            )
        return self._create(name, email, password, "user")

    def login(self, name: str, password: str, *, label: str = "login", days: float | None = None) -> NewToken:
        """A token for a name and its password. Errors: `NotSignedIn` "wrong-password", also for unknown names."""
        row = self._row(_named(name))
        right = self._passwords.is_right(row.password_hash if row else None, password)
        if row is None or not right:
            raise NotSignedIn("wrong-password", "The name or the password is wrong.")
        if self._passwords.is_outdated(row.password_hash):
            self._set_hash(row.id, self._passwords.hash(password))
        return self.issue(_user(row), label=label, days=days)

    def verify(self, secret: str | None) -> User:
        """Whose token this is. Errors: `NotSignedIn` "missing-token", "unknown-token", "revoked-token" or
        "expired-token"."""
        if not secret:
            raise NotSignedIn("missing-token", "This needs an account. Sign in and send the token along.")
        query = sa.select(users, tokens.c.expires, tokens.c.revoked).join(tokens, tokens.c.user_id == users.c.id)
        with self.store.reading() as connection:
            row = connection.execute(query.where(tokens.c.hash == _digest(secret))).first()
        if row is None:
            raise NotSignedIn("unknown-token", "This token is not one of this dock. Sign in again.")
        if row.revoked:
            raise NotSignedIn("revoked-token", "This token was revoked. Sign in again.")
        if row.expires <= now():
            raise NotSignedIn("expired-token", f"This token expired on {row.expires[:10]}. Sign in again.")
        return _user(row)

    # -- tokens ----------------------------------------------------------------------------------------------------

    def issue(self, user: User, *, label: str = "", days: float | None = None) -> NewToken:
        """A new token. Its secret is in the answer and nowhere else. Errors: `BadAccount` "bad-days", "bad-label"."""
        days = self.token_days if days is None else days
        if not 0 < days <= _LONGEST_DAYS:
            raise BadAccount("bad-days", f"A token is good for up to {_LONGEST_DAYS:.0f} days; {days} were asked for.")
        if len(label) > 100 or not label.isprintable():
            raise BadAccount("bad-label", "A token's label has at most 100 characters, all printable.")
        secret = f"didact_{secrets.token_urlsafe(32)}"
        created = datetime.now(UTC)
        values: dict[str, Any] = {
            "label": label,
            "created": created.isoformat(timespec="microseconds"),
            "expires": (created + timedelta(days=days)).isoformat(timespec="microseconds"),
            "revoked": False,
        }
        with self.store.writing() as connection:
            if connection.scalar(sa.select(users.c.id).where(users.c.id == user.id)) is None:
                raise NotSignedIn("unknown-token", "This account was removed.")
            added = sa.insert(tokens).values(user_id=user.id, hash=_digest(secret), **values).returning(tokens.c.id)
            id = connection.scalars(added).one()
        return NewToken(id=id, secret=secret, user=user, **values)

    def tokens(self, user: User) -> list[Token]:
        """A user's tokens, newest first, without those that were revoked or have expired."""
        query = sa.select(tokens).where(
            tokens.c.user_id == user.id, tokens.c.revoked.is_(False), tokens.c.expires > now()
        )
        with self.store.reading() as connection:
            found = connection.execute(query.order_by(tokens.c.id.desc()))
            return [Token(r.id, r.label, r.created, r.expires, r.revoked) for r in found]

    def revoke(self, id: int, *, by: User) -> None:
        """End a token of one's own, or as an admin anybody's. Errors: `NotFound` "no-token"."""
        condition = tokens.c.id == _row_id(id, "no-token", "token")
        if not by.is_admin:
            condition &= tokens.c.user_id == by.id
        with self.store.writing() as connection:
            if not connection.execute(sa.update(tokens).where(condition).values(revoked=True)).rowcount:
                raise NotFound("no-token", f"You have no token number {id}.")

    def sign_out(self, secret: str) -> None:
        """End the token that has this secret; nothing happens when there is none."""
        with self.store.writing() as connection:
            connection.execute(sa.update(tokens).where(tokens.c.hash == _digest(secret)).values(revoked=True))

    # -- users -----------------------------------------------------------------------------------------------------

    def user(self, id: int) -> User:
        """A user by number. Errors: `NotFound` "no-user"."""
        row = self._row(users.c.id == _row_id(id, "no-user", "user"))
        if row is None:
            raise NotFound("no-user", f"There is no user number {id}.")
        return _user(row)

    def find(self, name: str) -> User | None:
        """A user by name; capitals do not matter."""
        row = self._row(_named(name))
        return None if row is None else _user(row)

    def users(self, *, by: User, page: int = 1, limit: int = 20) -> Page[User]:
        """All users in alphabetical order. Errors: `NotAllowed` "not-admin"."""
        require_admin(by)
        start = offset(page, limit)
        ordered = sa.select(users).order_by(sa.func.lower(users.c.name)).offset(start).limit(limit)
        with self.store.reading() as connection:
            total = connection.scalar(sa.select(sa.func.count()).select_from(users)) or 0
            return Page([_user(row) for row in connection.execute(ordered)], total, page, limit)

    def set_role(self, id: int, role: Role, *, by: User) -> User:
        """Make somebody an admin, or an admin a user. Errors: `NotAllowed`, `NotFound`, `Conflict` "last-admin"."""
        require_admin(by)
        if role not in ("user", "admin"):
            raise BadAccount("bad-role", f"A role is 'user' or 'admin'; {role!r} was given.")
        user = self.user(id)
        with self.store.writing() as connection:
            if role != "admin":
                _keep_an_admin(connection, id)
            connection.execute(sa.update(users).where(users.c.id == id).values(role=role))
            happened(connection, "role", user=by.name, of=user.name, role=role)
        return self.user(id)

    def set_password(self, user: User, old: str, new: str) -> None:
        """Change a password; all tokens end. Errors: `NotSignedIn` "wrong-password", `BadAccount` "bad-password"."""
        row = self._row(users.c.id == user.id)
        if row is None or not self._passwords.is_right(row.password_hash, old):
            raise NotSignedIn("wrong-password", "The present password is wrong.")
        self._set_hash(user.id, self._passwords.hash(new), revoke=True)

    def delete(self, id: int, *, by: User) -> None:
        """Remove an account: one's own, or as an admin anybody's. What it submitted stays, without an owner.

        Errors: `NotAllowed` "not-admin", `NotFound` "no-user", `Conflict` "last-admin".
        """
        user = self.may_delete(id, by=by)
        with self.store.writing() as connection:
            _keep_an_admin(connection, id)
            connection.execute(sa.delete(users).where(users.c.id == id))
            happened(connection, "leave", user=by.name, of=user.name)

    def may_delete(self, id: int, *, by: User) -> User:
        """The user that would be removed, or the error that `delete` would raise."""
        if by.id != id:
            require_admin(by)
        user = self.user(id)
        with self.store.writing() as connection:
            _keep_an_admin(connection, id)
        return user

    def ensure_admin(self, name: str, email: str = "admin@localhost") -> tuple[User, str | None]:
        """An admin of this name, for whoever runs the dock. A new account's password is in the answer, once."""
        found = self.find(name)
        if found is None:
            password = secrets.token_urlsafe(12)
            return self._create(name, email, password, "admin"), password
        with self.store.writing() as connection:
            connection.execute(sa.update(users).where(users.c.id == found.id).values(role="admin"))
        return self.user(found.id), None

    # -- helpers ---------------------------------------------------------------------------------------------------

    def _create(self, name: str, email: str, password: str, role: Role) -> User:
        if not _NAME.match(name):
            raise BadAccount(
                "bad-name",
                "A name has 2 to 64 letters, digits, dots, dashes or underscores, and begins with a letter or digit.",
            )
        if not _EMAIL.match(email) or not email.isprintable():
            raise BadAccount("bad-email", "An e-mail address looks like name@example.org.")
        values = {
            "name": name,
            "email": email,
            "password_hash": self._passwords.hash(password),
            "role": role,
            "created": now(),
        }
        try:
            with self.store.writing() as connection:
                row = connection.execute(sa.insert(users).values(values).returning(users)).one()
                happened(connection, "register", user=name)
        except sa.exc.IntegrityError:
            raise Conflict("name-taken", f"The name {name!r} is taken. Choose another.") from None
        return _user(row)

    def _row(self, condition: sa.ColumnElement[bool]) -> sa.Row[Any] | None:
        with self.store.reading() as connection:
            return connection.execute(sa.select(users).where(condition)).first()

    def _set_hash(self, id: int, hashed: str, revoke: bool = False) -> None:
        with self.store.writing() as connection:
            connection.execute(sa.update(users).where(users.c.id == id).values(password_hash=hashed))
            if revoke:
                connection.execute(sa.update(tokens).where(tokens.c.user_id == id).values(revoked=True))


def _keep_an_admin(connection: sa.Connection, leaving: int) -> None:
    # The rows are locked, so that two admins who leave at the same moment do not both find the other still there.
    admins = connection.scalars(sa.select(users.c.id).where(users.c.role == "admin").with_for_update()).all()
    if list(admins) == [leaving]:
        raise Conflict("last-admin", "This is the only admin of the dock. Make somebody else an admin first.")


def _named(name: str) -> sa.ColumnElement[bool]:
    # What cannot be a name is not shown to the database, which may refuse to compare with it.
    return sa.func.lower(users.c.name) == (name.lower() if _NAME.match(name) else "")


def _row_id(id: int, code: str, what: str) -> int:
    if not 0 < id <= _LARGEST_ID:  # a database would refuse to compare with it
        raise NotFound(code, f"There is no {what} number {id}.")
    return id


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _user(row: Any) -> User:
    return User(row.id, row.name, row.email, row.role, row.created)

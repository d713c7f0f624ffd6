"""The database: opening it, bringing it up to date, reading and writing in short transactions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from didact.core.errors import BadInput, MissingExtra
from didact.reusing.dock.storage.tables import changes, counters, events

_migrating = threading.Lock()  # Alembic keeps what it works on in globals
_MIGRATION_LOCK = 0x6469646163  # any number, the same in every process
_KEPT_CHANGES = 10_000
_KEPT_EVENTS = 100_000


class Store:
    """A database of a dock: an SQLite file or, by URL, PostgreSQL. Threads and processes may share it."""

    def __init__(self, url: str | Path) -> None:
        """`url` is an SQLAlchemy URL or the path of an SQLite file. The tables are made or brought up to date.

        Errors: `BadInput` when the database cannot be opened or was made by a newer didact.
        """
        self.url = _normal(str(url))
        try:
            self.engine = sa.create_engine(self.url, **_options(self.url))
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "psycopg", "postgres") from None
        except sa.exc.ArgumentError as error:
            raise BadInput(f"{url!r} is not a database: expected a file or an SQLAlchemy URL ({error}).") from None
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        try:
            self.migrate()
        except sa.exc.DatabaseError as error:
            self.close()
            raise BadInput(f"The database {self.engine.url!r} cannot be opened: {error.orig}") from None

    def migrate(self) -> None:
        """Bring the tables to the newest version, in one transaction; of several processes one does it."""
        try:
            from alembic import command
            from alembic.config import Config
            from alembic.util import CommandError
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "alembic", "dock") from None
        config = Config()
        folder = Path(__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        with _migrating, self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise BadInput(
                    f"The database {self.engine.url!r} was made by another version of didact ({error}). "
                    "Update didact, or give a database of its own."
                ) from None

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection for looking. It sees one state of the database and never waits for writers."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction: all that is done in it is stored at its end, or nothing when it is left by an error."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    # -- what happened ---------------------------------------------------------------------------------------------

    def version(self) -> int:
        """A number that is raised whenever what everybody can find changes."""
        with self.reading() as connection:
            return int(connection.scalars(sa.select(counters.c.value).where(counters.c.name == "catalogue")).one())

    def prune(self) -> None:
        """Forget old changes and events."""
        with self.writing() as connection:
            for column, kept in ((changes.c.version, _KEPT_CHANGES), (events.c.id, _KEPT_EVENTS)):
                newest = connection.scalar(sa.select(sa.func.max(column))) or 0
                connection.execute(sa.delete(column.table).where(column <= newest - kept))


def changed(connection: sa.Connection, learnware: str) -> None:
    """Note, in the transaction that changes it, that a learnware appeared, changed or went for everybody."""
    raised = (
        sa.update(counters)
        .where(counters.c.name == "catalogue")
        .values(value=counters.c.value + 1)
        .returning(counters.c.value)
    )
    version = connection.scalars(raised).one()
    connection.execute(sa.insert(changes).values(version=version, learnware_id=learnware))


def happened(connection: sa.Connection, kind: str, *, user: str = "", learnware: str = "", **about: Any) -> None:
    """Write an event, in the transaction that makes it happen."""
    connection.execute(sa.insert(events).values(at=now(), kind=kind, user=user, learnware=learnware, about=about))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


_WRITES = "didact_writes"


def _normal(url: str) -> str:
    if "://" not in url:
        path = Path(url).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    # Plain postgresql:// would look for the old driver; didact's extra installs psycopg 3.
    return url.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+psycopg://", 1)


def _options(url: str) -> dict[str, Any]:
    # As many connections as a web server has threads; a PostgreSQL server that was restarted is noticed.
    return {"pool_size": 16, "max_overflow": 48, "pool_pre_ping": not url.startswith("sqlite")}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Transactions are begun by `_begin_sqlite`, not by the driver. FULL: what was acknowledged survives a power cut.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=60000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that begins by reading and then writes could find the database changed under it and fail at once,
    # whatever the timeout is: writers therefore take their turn at the beginning.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

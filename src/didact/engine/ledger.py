"""The ledger: one row a cell, kept in SQLite or, by URL, in PostgreSQL. A row is there whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import platformdirs
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from didact.core.errors import BadInput, MissingExtra, UnknownName
from didact.engine.cells import Cell

Status = Literal["done", "failed", "timed-out", "out-of-memory", "not-applicable"]

_tables = sa.MetaData()
_rows = sa.Table(
    "rows",
    _tables,
    sa.Column("key", sa.String(32), primary_key=True),
    sa.Column("family", sa.String(64), index=True, nullable=False),
    sa.Column("method", sa.String(128), index=True, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("scale", sa.String(32), nullable=False),
    sa.Column("seed", sa.Integer, nullable=False),
    sa.Column("code", sa.String(32), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("cost", sa.JSON, nullable=False),
    sa.Column("log", sa.JSON, nullable=False),
    sa.Column("environment", sa.JSON, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
)
_runs = sa.Table(
    "runs",
    _tables,
    sa.Column("id", sa.String(128), primary_key=True),
    sa.Column("family", sa.String(64), nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
)
_run_cells = sa.Table(
    "run_cells",
    _tables,
    sa.Column("run", sa.String(128), sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(32), nullable=False),
)
_verdicts = sa.Table(
    "verdicts",
    _tables,
    sa.Column("slug", sa.String(128), primary_key=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("verdict", sa.JSON, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
)


@dataclass(frozen=True)
class Row:
    """The result of a cell. `metrics`, `cost` and `log` hold numbers; one that could not be measured is NaN."""

    cell: Cell
    status: Status
    metrics: dict[str, float] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)
    error: str = ""
    created: str = ""

    @property
    def key(self) -> str:
        return self.cell.key

    @property
    def numbers(self) -> dict[str, float]:
        """Metrics, costs and logged numbers in one mapping, as claims and leaderboards read them."""
        logged = {k: float(v) for k, v in self.log.items() if isinstance(v, (int, float))}
        return {**logged, **self.cost, **self.metrics}


@dataclass(frozen=True)
class Run:
    """One call of the bench: what was asked for, and the cells it consists of."""

    id: str
    family: str
    about: dict[str, Any]
    keys: list[str]
    created: str


class Ledger:
    """Rows, runs and verdicts in a database."""

    def __init__(self, url: str | None = None) -> None:
        """`url` is an SQLAlchemy URL or the path of an SQLite file; default `DIDACT_LEDGER`, else the user's own."""
        self.url = _normal(url or os.environ.get("DIDACT_LEDGER") or str(default_file()))
        try:
            self.engine = sa.create_engine(self.url)
        except ModuleNotFoundError as error:
            raise MissingExtra(error.name or "psycopg", "postgres") from None
        except sa.exc.ArgumentError as error:
            raise BadInput(f"{url!r} is not a ledger: expected a file or an SQLAlchemy URL ({error}).") from None
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
        try:
            _tables.create_all(self.engine)
        except sa.exc.DatabaseError as error:
            raise BadInput(f"The ledger {self.engine.url!r} cannot be opened: {error.orig}") from None

    # -- rows ------------------------------------------------------------------------------------------------------

    def write(self, row: Row, replace: bool = False) -> bool:
        """Store a row; False when another process had stored the same cell (its row stays, unless `replace`)."""
        values = _values(row)
        statement = self._insert(_rows).values(**values)
        if replace:
            statement = statement.on_conflict_do_update(index_elements=["key"], set_=values)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=["key"])
        with self.engine.begin() as connection:
            return connection.execute(statement.returning(_rows.c.key)).first() is not None

    def rows(self, keys: Iterable[str] | None = None, **filters: Any) -> list[Row]:
        """Rows by key, or by equal columns (`family="forgetting", status="done"`)."""
        query = sa.select(_rows)
        for name, value in filters.items():
            query = query.where(_rows.c[name] == value)
        with self.engine.connect() as connection:
            if keys is None:
                return [_row(found) for found in connection.execute(query.order_by(_rows.c.created))]
            wanted = list(dict.fromkeys(keys))
            found: dict[str, Row] = {}
            for start in range(0, len(wanted), 500):  # databases limit the length of an IN list
                part = query.where(_rows.c.key.in_(wanted[start : start + 500]))
                found |= {r.key: _row(r) for r in connection.execute(part)}
            return [found[key] for key in wanted if key in found]

    # -- runs ------------------------------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                self._insert(_runs)
                .values(id=run.id, family=run.family, about=_clean(run.about), created=run.created)
                .on_conflict_do_nothing(index_elements=["id"])
            )
            self._store_cells(connection, run.id, run.keys)

    def extend(self, run: str, keys: Sequence[str]) -> None:
        """Replace the list of a run's cells (it grows while a run tunes)."""
        with self.engine.begin() as connection:
            self._store_cells(connection, run, keys)

    def _store_cells(self, connection: sa.Connection, run: str, keys: Sequence[str]) -> None:
        connection.execute(sa.delete(_run_cells).where(_run_cells.c.run == run))
        if keys:
            connection.execute(
                sa.insert(_run_cells), [{"run": run, "position": i, "key": k} for i, k in enumerate(keys)]
            )

    def runs(self) -> list[Run]:
        """All runs, newest first."""
        with self.engine.connect() as connection:
            found = list(connection.execute(sa.select(_runs).order_by(_runs.c.created.desc())))
            return [Run(r.id, r.family, r.about, self._keys(connection, r.id), r.created) for r in found]

    def run(self, id: str) -> Run:
        """A run by id or the beginning of it; "last" is the newest."""
        runs = self.runs()
        found = (
            runs[:1] if id == "last" else [r for r in runs if r.id == id] or [r for r in runs if r.id.startswith(id)]
        )
        if len(found) != 1:
            what = "no run" if not found else f"{len(found)} runs"
            raise UnknownName(f"The ledger holds {what} named {id!r}. Known: {', '.join(r.id for r in runs[:10])}.")
        return found[0]

    def _keys(self, connection: sa.Connection, run: str) -> list[str]:
        query = sa.select(_run_cells.c.key).where(_run_cells.c.run == run).order_by(_run_cells.c.position)
        return list(connection.scalars(query))

    # -- verdicts --------------------------------------------------------------------------------------------------

    def write_verdict(self, slug: str, outcome: str, verdict: dict[str, Any]) -> None:
        values = {"slug": slug, "outcome": outcome, "verdict": _clean(verdict), "created": now()}
        with self.engine.begin() as connection:
            connection.execute(
                self._insert(_verdicts).values(**values).on_conflict_do_update(index_elements=["slug"], set_=values)
            )

    def verdicts(self) -> dict[str, dict[str, Any]]:
        with self.engine.connect() as connection:
            return {r.slug: r.verdict for r in connection.execute(sa.select(_verdicts))}

    def _insert(self, table: sa.Table) -> Any:
        return (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(table)


def default_file() -> Path:
    return Path(platformdirs.user_data_dir("didact")) / "ledger.sqlite"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _normal(url: str) -> str:
    if "://" not in url:
        path = Path(url).expanduser().resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        return f"sqlite:///{path}"
    # Plain postgresql:// would look for the old driver; didact's extra installs psycopg 3.
    return url.replace("postgres://", "postgresql://").replace("postgresql://", "postgresql+psycopg://", 1)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # Readers never block the writer (WAL), and two benches on one file wait for each other instead of failing.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=30000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _values(row: Row) -> dict[str, Any]:
    cell = row.cell
    return {
        "key": cell.key,
        "family": cell.family,
        "method": cell.method,
        "label": cell.label or cell.method,
        "settings": _clean(cell.settings),
        "problem": cell.problem,
        "scale": cell.scale,
        "seed": cell.seed,
        "code": cell.code,
        "role": cell.role,
        "status": row.status,
        "metrics": _clean(row.metrics),
        "cost": _clean(row.cost),
        "log": _clean(row.log),
        "environment": _clean(row.environment),
        "limits": _clean(row.limits),
        "error": row.error.replace("\x00", ""),
        "created": row.created or now(),
    }


def _row(found: Any) -> Row:
    cell = Cell(
        found.family, found.method, found.settings, found.problem, found.seed, found.code, found.scale, found.role,
        label=found.label,
    )  # fmt: skip
    metrics, cost = ({k: math.nan if v is None else v for k, v in m.items()} for m in (found.metrics, found.cost))
    return Row(
        cell, found.status, metrics, cost, found.log, found.environment, found.limits, found.error, found.created
    )


def _clean(value: Any) -> Any:
    """JSON that every database takes: what is not a finite number becomes null, unknown objects their text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return json.loads(json.dumps(value, default=lambda v: v.item() if hasattr(v, "item") else str(v)))

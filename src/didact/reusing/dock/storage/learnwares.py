"""The rows of learnwares and of their specifications."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from didact.reusing.dock.records import LearnwareInfo, Status
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification, matches
from didact.reusing.dock.storage.rows import info_of, row_of, semantic_of, specification_of
from didact.reusing.dock.storage.store import Store, changed, happened, now
from didact.reusing.dock.storage.tables import changes, counters, inner_products, learnwares, users
from didact.reusing.dock.storage.tables import specifications as spec
from didact.reusing.dock.storage.tables import verify_logs as logs

if TYPE_CHECKING:
    from didact.reusing.dock.specification import Specification

_BATCH = 500  # databases limit the length of an IN list
_VISIBLE = (learnwares.c.status == "SUCCESS") & (learnwares.c.usable == 1)
_COLUMNS = sa.select(learnwares, users.c.name.label("owner")).select_from(
    learnwares.outerjoin(users, users.c.id == learnwares.c.owner_id)
)


class Learnwares:
    """Reading and writing learnwares. What others may see of them is the dock's business, not decided here."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- writing ---------------------------------------------------------------------------------------------------

    def insert(
        self,
        connection: sa.Connection,
        *,
        owner_id: int | None,
        semantic: SemanticSpecification,
        tier: str,
        specifications: Sequence[Specification],
        shapes: Mapping[str, Sequence[int]],
        sha256: str,
        size: int,
    ) -> str:
        """A new row, waiting to be checked, with its specifications; gives its id. The hash must be new."""
        id, moment = secrets.token_hex(6), now()
        connection.execute(
            sa.insert(learnwares).values(
                id=id,
                owner_id=owner_id,
                semantic=semantic.to_json(),
                tier=tier,
                stat_type=specifications[0].type,
                shapes={name: list(shape) for name, shape in shapes.items()},
                status="WAITING",
                usable=None,
                reason="",
                blob_sha256=sha256,
                size=size,
                created=moment,
                modified=moment,
                turn=moment,
                attempts=0,
                holder="",
                lease=0.0,
            )
        )
        connection.execute(
            sa.insert(spec), [row_of(id, i, specification) for i, specification in enumerate(specifications)]
        )
        return id

    def set_semantic(self, id: str, semantic: SemanticSpecification, by: str) -> bool:
        with self.store.writing() as connection:
            found = connection.execute(
                sa.update(learnwares).where(learnwares.c.id == id).values(semantic=semantic.to_json(), modified=now())
            )
            if found.rowcount:
                changed(connection, id)
                happened(connection, "update", user=by, learnware=id)
            return bool(found.rowcount)

    def delete(self, id: str, by: str) -> str | None:
        """Remove a learnware with all that belongs to it; gives the hash of its package, None when there was none."""
        with self.store.writing() as connection:
            gone = connection.execute(
                sa.delete(learnwares).where(learnwares.c.id == id).returning(learnwares.c.blob_sha256)
            ).first()
            if gone is None:
                return None
            changed(connection, id)
            happened(connection, "delete", user=by, learnware=id)
            return str(gone.blob_sha256)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, id: str) -> LearnwareInfo | None:
        return self.many([id]).get(id)

    def many(self, ids: Collection[str]) -> dict[str, LearnwareInfo]:
        """Learnwares by id; those that are gone are left out."""
        found = {}
        with self.store.reading() as connection:
            for some in _batches(ids):
                for row in connection.execute(_COLUMNS.where(learnwares.c.id.in_(some))):
                    found[row.id] = info_of(row)
        return found

    def with_hash(self, sha256: str) -> LearnwareInfo | None:
        with self.store.reading() as connection:
            row = connection.execute(_COLUMNS.where(learnwares.c.blob_sha256 == sha256)).first()
        return None if row is None else info_of(row)

    def hashes(self) -> set[str]:
        with self.store.reading() as connection:
            return set(connection.scalars(sa.select(learnwares.c.blob_sha256)))

    def bytes_of(self, owner_id: int | None) -> int:
        """Bytes of all packages of one owner."""
        with self.store.reading() as connection:
            total = sa.select(sa.func.sum(learnwares.c.size)).where(learnwares.c.owner_id == owner_id)
            return int(connection.scalar(total) or 0)

    def list(
        self,
        *,
        visible: bool = False,
        owner_id: int | None = None,
        status: Status | None = None,
        query: SemanticQuery | None = None,
        start: int = 0,
        limit: int = 20,
    ) -> tuple[list[LearnwareInfo], int]:
        """A stretch of the list, newest first, and its whole length. With `query` every row is looked at."""
        conditions: list[sa.ColumnElement[bool]] = [_VISIBLE] if visible else []
        if owner_id is not None:
            conditions.append(learnwares.c.owner_id == owner_id)
        if status is not None:
            conditions.append(learnwares.c.status == status)
        ordered = _COLUMNS.where(*conditions).order_by(learnwares.c.created.desc(), learnwares.c.id)
        with self.store.reading() as connection:
            if query is not None:
                rows = connection.execute(ordered.execution_options(yield_per=_BATCH))
                found = [info for info in map(info_of, rows) if matches(query, info.semantic) is not None]
                return found[start : start + limit], len(found)
            total = connection.scalar(sa.select(sa.func.count()).select_from(learnwares).where(*conditions)) or 0
            return [info_of(row) for row in connection.execute(ordered.offset(start).limit(limit))], total

    def log(self, id: str) -> str:
        """What the checks wrote, newest last."""
        with self.store.reading() as connection:
            found = connection.execute(sa.select(logs).where(logs.c.learnware_id == id).order_by(logs.c.id))
            return "\n".join(f"{row.at}\n{row.log.rstrip()}\n" for row in found)

    def specifications(self, id: str) -> Sequence[Specification]:
        query = sa.select(spec).where(spec.c.learnware_id == id)
        with self.store.reading() as connection:
            return [specification_of(row) for row in connection.execute(query.order_by(spec.c.position))]

    # -- what can be found -----------------------------------------------------------------------------------------

    def visible(self, ids: Collection[str] | None = None) -> Iterator[tuple[str, SemanticSpecification, Specification]]:
        """All that everybody may find, or those of `ids` that are: what an index is made of."""
        query = (
            sa.select(learnwares.c.semantic, spec)
            .join(spec, spec.c.learnware_id == learnwares.c.id)
            .where(_VISIBLE, spec.c.position == 0)
            .order_by(learnwares.c.created, learnwares.c.id)
        )
        parts = [query] if ids is None else [query.where(learnwares.c.id.in_(some)) for some in _batches(ids)]
        with self.store.reading() as connection:
            for part in parts:
                for row in connection.execute(part.execution_options(yield_per=_BATCH)):
                    yield row.learnware_id, semantic_of(row.semantic), specification_of(row)

    def changes_since(self, version: int) -> tuple[int, set[str] | None]:
        """The present version and what changed since another; None when that is too long ago to be known."""
        newest = sa.select(counters.c.value).where(counters.c.name == "catalogue")
        oldest = sa.select(sa.func.min(changes.c.version))
        with self.store.reading() as connection:
            present = connection.scalars(newest).one()
            if present == version:
                return present, set()
            known = connection.scalar(oldest)
            if known is None or known > version + 1 or present < version:
                return present, None
            return present, set(
                connection.scalars(sa.select(changes.c.learnware_id).where(changes.c.version > version))
            )

    # -- inner products --------------------------------------------------------------------------------------------

    def products(self, id: str, type: str) -> dict[str, float]:
        """The inner products of a learnware's specification with others', as far as they were stored."""
        table = inner_products
        query = sa.select(table.c.a, table.c.b, table.c.value).where(
            (table.c.a == id) | (table.c.b == id), table.c.type == type
        )
        with self.store.reading() as connection:
            return {row.b if row.a == id else row.a: row.value for row in connection.execute(query)}

    def self_products(self, ids: Iterable[str]) -> dict[str, float]:
        """The inner products of specifications with themselves."""
        columns = sa.select(spec.c.learnware_id, spec.c.self_product)
        found: dict[str, float] = {}
        with self.store.reading() as connection:
            for some in _batches(ids):
                first = columns.where(spec.c.learnware_id.in_(some), spec.c.position == 0)
                found |= {row.learnware_id: row.self_product for row in connection.execute(first)}
        return found

    def store_products(self, id: str, type: str, values: Mapping[str, float]) -> None:
        """Keep inner products that were computed. Learnwares that went meanwhile are left out."""
        with self.store.writing() as connection:
            present = set()
            for some in _batches([id, *values]):
                present |= set(connection.scalars(sa.select(learnwares.c.id).where(learnwares.c.id.in_(some))))
            pairs = {(min(id, other), max(id, other)): value for other, value in values.items() if other in present}
            if id not in present or not pairs:
                return
            table = inner_products
            for (a, b), value in pairs.items():
                same = (table.c.a == a) & (table.c.b == b) & (table.c.type == type)
                if not connection.execute(sa.update(table).where(same).values(value=value)).rowcount:
                    connection.execute(sa.insert(table).values(a=a, b=b, type=type, value=value))

    # -- counting --------------------------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """Counts for the front page and for admins."""
        count = sa.func.count()
        by_status = sa.select(learnwares.c.status, count).group_by(learnwares.c.status)
        by_type = sa.select(learnwares.c.stat_type, count).where(_VISIBLE).group_by(learnwares.c.stat_type)
        totals = sa.select(count, sa.func.coalesce(sa.func.sum(learnwares.c.size), 0))
        with self.store.reading() as connection:
            number, size = connection.execute(totals).one()
            return {
                "learnwares": number,
                "usable": connection.scalar(sa.select(count).select_from(learnwares).where(_VISIBLE)),
                "users": connection.scalar(sa.select(count).select_from(users)),
                "bytes": int(size),
                "status": {row[0]: row[1] for row in connection.execute(by_status)},
                "types": {row[0]: row[1] for row in connection.execute(by_type)},
            }


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), _BATCH):
        yield wanted[start : start + _BATCH]

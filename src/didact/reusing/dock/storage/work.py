"""The queue of checks: who waits, whose turn it is, and who was given what to check."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from didact.reusing.dock.storage.store import Store, changed, happened, now
from didact.reusing.dock.storage.tables import learnwares, verify_logs

_LONGEST_LOG = 200_000


@dataclass(frozen=True)
class Item:
    """A learnware that was handed to a checker."""

    id: str
    sha256: str
    attempt: int  #: how often it was handed out, this time included


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    usable: Literal[-1, 0, 1] | None
    reason: str
    log: str
    input_shape: Sequence[int] | None = None
    output_shape: Sequence[int] | None = None


class Work:
    """The states WAITING, QUEUE and PROCESSING. Each step is one transaction, so it happened or it did not."""

    def __init__(self, store: Store, per_owner: int) -> None:
        """Of one owner `per_owner` learnwares are in the queue or being checked at once; the others wait."""
        self.store = store
        self.per_owner = per_owner

    def admit(self, connection: sa.Connection, owner_id: int | None) -> None:
        """Let as many of an owner's waiting learnwares into the queue as there is room for."""
        own = learnwares.c.owner_id.is_(None) if owner_id is None else learnwares.c.owner_id == owner_id
        waiting = sa.select(learnwares.c.id).where(own, learnwares.c.status == "WAITING").order_by(learnwares.c.turn)
        if owner_id is not None:
            busy = sa.select(sa.func.count()).where(own, learnwares.c.status.in_(("QUEUE", "PROCESSING")))
            waiting = waiting.limit(max(0, self.per_owner - (connection.scalar(busy) or 0)))
        for id in connection.scalars(waiting).all():
            connection.execute(sa.update(learnwares).where(learnwares.c.id == id).values(status="QUEUE"))

    def take(self, holder: str, seconds: float) -> Item | None:
        """The learnware whose turn it is, now being checked by `holder`; None when the queue is empty."""
        # On PostgreSQL a row that another checker is taking at this moment is passed over, not waited for.
        first = (
            sa.select(learnwares.c.id)
            .where(learnwares.c.status == "QUEUE")
            .order_by(learnwares.c.turn, learnwares.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        taking = (
            sa.update(learnwares)
            .where(learnwares.c.id == first, learnwares.c.status == "QUEUE")
            .values(
                status="PROCESSING",
                holder=holder,
                lease=time.time() + seconds,
                attempts=learnwares.c.attempts + 1,
                modified=now(),
            )
            .returning(learnwares.c.id, learnwares.c.blob_sha256, learnwares.c.attempts)
        )
        with self.store.writing() as connection:
            row = connection.execute(taking).first()
            if row is None and self._admit_all(connection):
                row = connection.execute(taking).first()
        return None if row is None else Item(row.id, row.blob_sha256, row.attempts)

    def beat(self, id: str, holder: str, seconds: float) -> bool:
        """A sign of life. False when the learnware is no longer this checker's (gone, or taken over)."""
        with self.store.writing() as connection:
            beating = sa.update(learnwares).where(*_held(id, holder)).values(lease=time.time() + seconds)
            return bool(connection.execute(beating).rowcount)

    def finish(self, id: str, holder: str, outcome: Outcome) -> bool:
        """Write what a check found, all at once. False, with nothing written, when it is no longer this checker's."""
        values: dict[str, object] = {
            "status": "SUCCESS" if outcome.usable == 1 else "FAIL",
            "usable": outcome.usable,
            "reason": outcome.reason[:64],
            "holder": "",
            "attempts": 0,
            "modified": now(),
        }
        if outcome.input_shape is not None and outcome.output_shape is not None:
            values["shapes"] = {"input": list(outcome.input_shape), "output": list(outcome.output_shape)}
        with self.store.writing() as connection:
            ended = sa.update(learnwares).where(*_held(id, holder)).values(values).returning(learnwares.c.owner_id)
            row = connection.execute(ended).first()
            if row is None:
                return False
            self._ended(connection, id, row.owner_id, outcome)
            return True

    def give_back(self, id: str, holder: str) -> None:
        """Return a learnware unchecked to the front of the queue; it does not count as an attempt."""
        with self.store.writing() as connection:
            attempts = learnwares.c.attempts - 1
            returned = sa.update(learnwares).where(*_held(id, holder))
            connection.execute(returned.values(status="QUEUE", holder="", attempts=attempts))

    def recover(self, is_dead: Callable[[str], bool], most_attempts: int) -> list[str]:
        """Take back what was handed to checkers that died or were silent too long; gives the ids.

        Errors of a check never end a checker, so one that dies over the same learnware again and again may well be
        killed by it: after `most_attempts` it is not tried any more.
        """
        taken = []
        for id, holder, owner_id, lease, attempts in self._held_now():
            if lease > time.time() and not is_dead(holder):
                continue
            # The lease is compared too: a checker that was only slow may have given a sign of life meanwhile.
            still = (*_held(id, holder), learnwares.c.lease == lease)
            with self.store.writing() as connection:
                if attempts < most_attempts:
                    freed = sa.update(learnwares).where(*still).values(status="QUEUE", holder="")
                    if connection.execute(freed).rowcount:
                        taken.append(id)
                    continue
                values = {"status": "FAIL", "usable": None, "reason": "checker-died", "holder": "", "attempts": 0}
                if connection.execute(sa.update(learnwares).where(*still).values(values)).rowcount:
                    log = f"The check was begun {attempts} times and never came to an end. It is given up."
                    self._ended(connection, id, owner_id, Outcome(None, "checker-died", log))
        return taken

    def again(self, id: str, by: str) -> bool:
        """Have a learnware checked once more; until then only its owner sees it. False while a check is under way."""
        ended = learnwares.c.status.in_(("SUCCESS", "FAIL"))
        values = {"status": "WAITING", "usable": None, "reason": "", "turn": now(), "modified": now(), "attempts": 0}
        with self.store.writing() as connection:
            waiting = sa.update(learnwares).where(learnwares.c.id == id, ended).values(values)
            row = connection.execute(waiting.returning(learnwares.c.owner_id)).first()
            if row is None:
                return False
            changed(connection, id)
            happened(connection, "recheck", user=by, learnware=id)
            self.admit(connection, row.owner_id)
            return True

    def _admit_all(self, connection: sa.Connection) -> bool:
        # What was deleted or lost its owner made room that no ended check has given away.
        waiting = sa.select(learnwares.c.owner_id).where(learnwares.c.status == "WAITING").distinct()
        owners = connection.scalars(waiting).all()
        for owner_id in owners:
            self.admit(connection, owner_id)
        return bool(owners)

    def _ended(self, connection: sa.Connection, id: str, owner_id: int | None, outcome: Outcome) -> None:
        log = storable(outcome.log)
        if len(log) > _LONGEST_LOG:
            log = f"{log[:_LONGEST_LOG]}\n... {len(log) - _LONGEST_LOG:,} characters more"
        connection.execute(
            sa.insert(verify_logs).values(
                learnware_id=id, at=now(), usable=outcome.usable, reason=outcome.reason[:64], log=log
            )
        )
        happened(connection, "check", learnware=id, usable=outcome.usable, reason=outcome.reason)
        if outcome.usable == 1:
            changed(connection, id)
        self.admit(connection, owner_id)

    def _held_now(self) -> Sequence[tuple[str, str, int | None, float, int]]:
        columns = (
            learnwares.c.id, learnwares.c.holder, learnwares.c.owner_id, learnwares.c.lease, learnwares.c.attempts,
        )  # fmt: skip
        with self.store.reading() as connection:
            found = connection.execute(sa.select(*columns).where(learnwares.c.status == "PROCESSING"))
            return [(row.id, row.holder, row.owner_id, row.lease, row.attempts) for row in found]


def storable(text: str) -> str:
    """Text that every database takes: without NUL and half characters."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _held(id: str, holder: str) -> tuple[sa.ColumnElement[bool], ...]:
    return learnwares.c.id == id, learnwares.c.status == "PROCESSING", learnwares.c.holder == holder

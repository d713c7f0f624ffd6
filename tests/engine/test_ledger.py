"""The ledger on SQLite and PostgreSQL: a row is there whole or not at all, once, and comes back as it was."""

import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from didact.core.errors import BadInput, UnknownName
from didact.engine.cells import Cell
from didact.engine.ledger import Ledger, Row, Run, now


@pytest.fixture(params=["sqlite", "postgres"])
def book(request, tmp_path):
    if request.param == "sqlite":
        return Ledger(str(tmp_path / "ledger.sqlite"))
    book = Ledger(request.getfixturevalue("postgres"))
    from didact.engine import ledger

    ledger._tables.drop_all(book.engine)
    ledger._tables.create_all(book.engine)
    return book


def row(seed=0, **changes) -> Row:
    cell = Cell(
        "forgetting", "ssd", {"alpha": 10.0, "target": None}, "digits-class", seed, "c0de", label="ssd:alpha=10"
    )
    return replace(
        Row(
            cell,
            "done",
            {"test_score": 0.5, "w1": math.nan},
            {"seconds": 1.5},
            {"alpha": 3, "why": "x"},
            {"torch": "2"},
        ),
        created=now(),
        **changes,
    )


def test_a_row_comes_back_as_it_was(book):
    written = row()
    assert book.write(written)
    (found,) = book.rows()
    assert found.cell == written.cell
    assert found.key == written.key
    assert found.cell.label == "ssd:alpha=10"
    assert math.isnan(found.metrics.pop("w1"))
    assert found.metrics == {"test_score": 0.5}
    assert (found.cost, found.log, found.environment) == (written.cost, written.log, written.environment)
    assert found.created == written.created


def test_a_cell_is_stored_once_unless_replaced(book):
    assert book.write(row())
    assert not book.write(row(status="failed"))
    assert [r.status for r in book.rows()] == ["done"]
    assert book.write(row(status="failed", error="why\x00"), replace=True)
    (found,) = book.rows()
    assert (found.status, found.error) == ("failed", "why")


def test_many_writers_lose_and_repeat_nothing(book):
    def write(start):
        other = Ledger(book.engine.url.render_as_string(hide_password=False))
        for seed in range(start, start + 20):
            other.write(row(seed))

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.cell.seed for r in book.rows()) == list(range(40))


def test_rows_by_key_keep_the_order_asked_for(book):
    rows = [row(seed) for seed in range(1200)]
    with book.engine.begin():
        pass
    for r in rows[:3] + rows[-3:]:
        book.write(r)
    wanted = [r.key for r in reversed(rows)]
    assert [r.cell.seed for r in book.rows(wanted)] == [1199, 1198, 1197, 2, 1, 0]
    assert [r.cell.seed for r in book.rows(seed=2)] == [2]


def test_runs_and_verdicts(book):
    book.begin(Run("forgetting-a-1", "forgetting", {"problem": "a"}, ["k2", "k1"], now()))
    time.sleep(0.002)
    book.begin(Run("forgetting-b-1", "forgetting", {"problem": "b"}, ["k3"], now()))
    assert [r.id for r in book.runs()] == ["forgetting-b-1", "forgetting-a-1"]
    assert book.run("last").id == "forgetting-b-1"
    assert book.run("forgetting-a").keys == ["k2", "k1"]
    with pytest.raises(UnknownName, match="2 runs"):
        book.run("forgetting")
    with pytest.raises(UnknownName, match="no run"):
        book.run("nothing")
    book.write_verdict("ssd", "fails", {"outcome": "fails"})
    book.write_verdict("ssd", "holds", {"outcome": "holds", "effect": math.inf})
    assert book.verdicts() == {"ssd": {"outcome": "holds", "effect": None}}


def test_a_ledger_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "text.sqlite").write_text("this is no database, it is a text file of some length")
    with pytest.raises(BadInput, match="cannot be opened"):
        Ledger(str(tmp_path / "text.sqlite"))
    with pytest.raises(BadInput, match="not a ledger"):
        Ledger("nonsense://")


def test_the_same_cell_has_the_same_key_and_any_change_another():
    cell = row().cell
    assert cell.key == replace(cell, label="other", module="m").key
    changes = [
        {"seed": 1},
        {"code": "x"},
        {"settings": {"alpha": 11.0}},
        {"problem": "p"},
        {"role": "validate"},
        {"scale": "paper"},
    ]
    assert len({cell.key, *(replace(cell, **change).key for change in changes)}) == 7


def test_a_bench_runs_on_postgresql(postgres):
    import didact

    problem = f"{Path(__file__).parent / 'hostile.py'}:make"
    first = didact.bench("forgetting", problem=problem, methods="original", seeds=2, ledger=postgres, quiet=True)
    again = didact.bench("forgetting", problem=problem, methods="original", seeds=2, ledger=postgres, quiet=True)
    assert [r.created for r in first.rows] == [r.created for r in again.rows]

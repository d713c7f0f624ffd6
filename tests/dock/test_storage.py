"""Tables, migrations, blobs and the queue's steps, on SQLite and PostgreSQL."""

import hashlib
import io
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.dialects import postgresql
from wares import statistics, words

from didact.core.errors import BadInput
from didact.reusing.dock.errors import Conflict, DockError, NotFound, TooLarge
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.storage import Blobs, Learnwares, Store, Work
from didact.reusing.dock.storage import tables as t
from didact.reusing.dock.storage.work import Outcome

USABLE = Outcome(1, "", "all is well")


@pytest.fixture
def shop(database):
    store = Store(database)
    yield SimpleNamespace(store=store, learnwares=Learnwares(store), work=Work(store, per_owner=2))
    store.close()


def insert(shop, name="a model", owner_id=None, centre=0.0, size=10) -> str:
    with shop.store.writing() as connection:
        id = shop.learnwares.insert(
            connection,
            owner_id=owner_id,
            semantic=SemanticSpecification.parse(words(name)),
            tier="safe",
            specifications=[statistics(centre)],
            shapes={"input": (4,), "output": (3,)},
            sha256=hashlib.sha256(name.encode()).hexdigest(),
            size=size,
        )
        shop.work.admit(connection, owner_id)
    return id


def user(shop, name) -> int:
    with shop.store.writing() as connection:
        values = {"name": name, "email": "a@b", "password_hash": "", "role": "user", "created": ""}
        return connection.scalars(sa.insert(t.users).values(values).returning(t.users.c.id)).one()


# -- the database ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_migrations_make_the_tables_that_the_code_uses(shop):
    with shop.store.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": "schema_version"})
        assert compare_metadata(context, t.tables) == []
        assert context.get_current_revision() == "0001"


def test_opening_again_and_from_many_threads_at_once_changes_nothing(database, tmp_path):
    failures, barrier = [], threading.Barrier(8)

    def open_one(url):
        try:
            barrier.wait()
            store = Store(url)
            assert store.version() == 0
            store.close()
        except Exception as error:
            failures.append(error)

    # Half of them share a database, the others make one each.
    urls = [database] * 4 + [str(tmp_path / f"another {i}.sqlite") for i in range(4)]
    threads = [threading.Thread(target=open_one, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_of_a_newer_didact_is_refused(database):
    store = Store(database)
    with store.writing() as connection:
        connection.execute(sa.text("UPDATE schema_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(BadInput, match="another version of didact"):
        Store(database)


def test_what_is_no_database_is_refused(tmp_path):
    (tmp_path / "text").write_text("not a database at all, but long enough to be looked at" * 100)
    with pytest.raises(BadInput, match="cannot be opened"):
        Store(tmp_path / "text")
    with pytest.raises(BadInput, match="not a database"):
        Store("sqlite:://")


def test_a_transaction_left_by_an_error_stores_nothing(shop):
    def fail():
        with shop.store.writing() as connection:
            connection.execute(sa.insert(t.counters).values(name="other", value=1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with shop.store.reading() as connection:
        assert connection.scalars(sa.select(t.counters.c.name)).all() == ["catalogue"]


def test_writers_wait_for_each_other(shop):
    """Each transaction reads, waits and writes what it read plus one: none may be lost, none refused."""

    def raise_counter():
        for _ in range(10):
            with shop.store.writing() as connection:
                row = sa.select(t.counters.c.value).where(t.counters.c.name == "catalogue").with_for_update()
                value = connection.scalars(row).one()
                time.sleep(0.001)
                connection.execute(sa.update(t.counters).values(value=value + 1))

    threads = [threading.Thread(target=raise_counter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shop.store.version() == 40


def test_readers_are_not_kept_waiting_by_a_writer(shop):
    insert(shop)
    with shop.store.writing() as connection:
        connection.execute(sa.update(t.learnwares).values(size=99))
        (info,), _ = shop.learnwares.list()
        assert info.size == 10
    assert shop.learnwares.list()[0][0].size == 99


def test_old_events_and_changes_are_forgotten(shop, monkeypatch):
    from didact.reusing.dock.storage import store

    monkeypatch.setattr(store, "_KEPT_CHANGES", 3)
    monkeypatch.setattr(store, "_KEPT_EVENTS", 2)
    with shop.store.writing() as connection:
        for i in range(5):
            store.changed(connection, f"x{i}")
            store.happened(connection, "test", learnware=f"x{i}")
    shop.store.prune()
    with shop.store.reading() as connection:
        assert connection.scalars(sa.select(t.changes.c.version).order_by(t.changes.c.version)).all() == [3, 4, 5]
        assert connection.scalars(sa.select(t.events.c.learnware).order_by(t.events.c.id)).all() == ["x3", "x4"]
    assert shop.learnwares.changes_since(2) == (5, {"x2", "x3", "x4"})
    assert shop.learnwares.changes_since(1) == (5, None), "x1 was forgotten, so all must be read again"


def test_every_table_compiles_for_postgresql():
    for table in t.tables.sorted_tables:
        assert "CREATE TABLE" in str(sa.schema.CreateTable(table).compile(dialect=postgresql.dialect()))


# -- learnwares --------------------------------------------------------------------------------------------------------


def test_a_learnware_comes_back_as_it_was(shop):
    owner = user(shop, "ann")
    id = insert(shop, "it", owner)
    info = shop.learnwares.get(id)
    assert (info.id, info.owner, info.owner_id, info.status, info.usable) == (id, "ann", owner, "QUEUE", None)
    assert info.semantic == SemanticSpecification.parse(words("it"))
    assert (info.input_shape, info.output_shape, info.type, info.tier) == ((4,), (3,), "rkme-table", "safe")
    assert shop.learnwares.with_hash(info.sha256) == info
    (found,) = shop.learnwares.specifications(id)
    expected = statistics()
    np.testing.assert_array_equal(found.z, expected.z)
    np.testing.assert_array_equal(found.beta, expected.beta)
    assert (found.type, found.gamma, found.encoder, found.languages) == ("rkme-table", 0.1, "", ())


def test_the_same_package_cannot_be_stored_twice(shop):
    insert(shop, "same")
    with pytest.raises(sa.exc.IntegrityError):
        insert(shop, "same")
    assert shop.learnwares.list()[1] == 1


def test_deleting_takes_everything_along(shop):
    id, other = insert(shop, "one"), insert(shop, "two")
    shop.learnwares.store_products(id, "rkme-table", {other: 0.5, "gone": 0.1})
    assert shop.learnwares.products(other, "rkme-table") == {id: 0.5}
    shop.learnwares.store_products(other, "rkme-table", {id: 0.25})
    assert shop.learnwares.products(id, "rkme-table") == {other: 0.25}
    shop.work.take("me", 60)
    shop.work.finish(id, "me", USABLE)
    assert shop.learnwares.delete(id, "ann") == hashlib.sha256(b"one").hexdigest()
    assert shop.learnwares.delete(id, "ann") is None
    with shop.store.reading() as connection:
        for column in (
            t.specifications.c.learnware_id,
            t.inner_products.c.a,
            t.inner_products.c.b,
            t.verify_logs.c.learnware_id,
        ):
            assert id not in connection.scalars(sa.select(column)).all()


def test_a_user_who_leaves_leaves_the_learnwares(shop):
    owner = user(shop, "ann")
    id = insert(shop, owner_id=owner)
    with shop.store.writing() as connection:
        connection.execute(sa.delete(t.users).where(t.users.c.id == owner))
    assert (shop.learnwares.get(id).owner, shop.learnwares.get(id).owner_id) == ("", None)


def test_lists_are_newest_first_filtered_and_in_stretches(shop):
    owner = user(shop, "ann")
    ids = [insert(shop, f"number {i}", owner if i % 2 else None) for i in range(5)]
    while item := shop.work.take("me", 60):
        shop.work.finish(item.id, "me", USABLE if item.id != ids[0] else Outcome(0, "bad-output", "no"))
    found, total = shop.learnwares.list(start=1, limit=2)
    assert ([i.id for i in found], total) == ([ids[3], ids[2]], 5)
    assert [i.id for i in shop.learnwares.list(owner_id=owner)[0]] == [ids[3], ids[1]]
    assert [i.id for i in shop.learnwares.list(status="FAIL")[0]] == [ids[0]]
    assert [i.id for i in shop.learnwares.list(visible=True)[0]] == ids[:0:-1]
    found, total = shop.learnwares.list(query=SemanticQuery(text="number 3"))
    assert ids[3] in {i.id for i in found}
    assert shop.learnwares.list(query=SemanticQuery(data="Image")) == ([], 0)
    summary = shop.learnwares.summary()
    assert (summary["learnwares"], summary["usable"], summary["users"], summary["bytes"]) == (5, 4, 1, 50)
    assert (summary["status"], summary["types"]) == ({"SUCCESS": 4, "FAIL": 1}, {"rkme-table": 4})


def test_only_usable_ones_are_for_the_index_and_changes_are_told(shop):
    good, bad = insert(shop, "good"), insert(shop, "bad")
    assert list(shop.learnwares.visible()) == []
    version, ids = shop.learnwares.changes_since(0)
    assert (version, ids) == (0, set())
    for outcome in (USABLE, Outcome(-1, "broken", "no")):
        shop.work.finish(shop.work.take("me", 60).id, "me", outcome)
    assert [id for id, _, _ in shop.learnwares.visible()] == [good]
    assert shop.learnwares.changes_since(0) == (1, {good})
    assert list(shop.learnwares.visible({bad})) == []
    shop.learnwares.set_semantic(good, SemanticSpecification.parse(words("better")), "ann")
    assert shop.learnwares.changes_since(1) == (2, {good})
    (found,) = shop.learnwares.visible({good, bad})
    assert found[1].name == "better"


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_each_is_handed_out_once_in_order(shop):
    ids = [insert(shop, f"n{i}") for i in range(3)]
    taken = [shop.work.take(f"checker {i}", 60) for i in range(4)]
    assert [item.id for item in taken[:3]] == ids
    assert taken[3] is None
    assert shop.learnwares.get(ids[0]).status == "PROCESSING"


def test_many_checkers_never_get_the_same(shop):
    for i in range(24):
        insert(shop, f"n{i}")
    taken, lock = [], threading.Lock()

    def take(name):
        while item := shop.work.take(name, 60):
            with lock:
                taken.append(item.id)
            assert shop.work.finish(item.id, name, USABLE)

    threads = [threading.Thread(target=take, args=(f"c{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 24


def test_an_owner_has_only_so_many_in_the_queue(shop):
    ann, bob = user(shop, "ann"), user(shop, "bob")
    hers = [insert(shop, f"ann {i}", ann) for i in range(4)]
    his = insert(shop, "bob", bob)
    status = {id: shop.learnwares.get(id).status for id in [*hers, his]}
    assert list(status.values()) == ["QUEUE", "QUEUE", "WAITING", "WAITING", "QUEUE"]
    order = []
    while item := shop.work.take("me", 60):
        order.append(item.id)
        shop.work.finish(item.id, "me", USABLE)
    assert sorted(order) == sorted([*hers, his])
    assert order[:1] == hers[:1]


def test_what_waits_is_let_in_when_others_were_deleted(shop):
    ann = user(shop, "ann")
    hers = [insert(shop, f"ann {i}", ann) for i in range(3)]
    for id in hers[:2]:
        shop.learnwares.delete(id, "ann")
    assert shop.work.take("me", 60).id == hers[2]


def test_a_result_is_written_whole_and_only_by_its_holder(shop):
    id = insert(shop)
    shop.work.take("me", 60)
    assert not shop.work.finish(id, "somebody else", USABLE)
    assert shop.learnwares.get(id).status == "PROCESSING"
    assert shop.work.finish(id, "me", Outcome(0, "nan-output", "it gave\x00 NaN \ud800", (4,), (7,)))
    info = shop.learnwares.get(id)
    assert (info.status, info.usable, info.reason, info.output_shape) == ("FAIL", 0, "nan-output", (7,))
    assert "it gave NaN ?" in shop.learnwares.log(id)
    assert not shop.work.finish(id, "me", USABLE), "it was finished already"


def test_a_long_log_is_cut(shop):
    id = insert(shop)
    shop.work.take("me", 60)
    shop.work.finish(id, "me", Outcome(0, "loud", "x" * 300_000))
    assert "100,000 characters more" in shop.learnwares.log(id)


def test_the_silent_and_the_dead_lose_what_they_hold(shop):
    ids = [insert(shop, f"n{i}") for i in range(3)]
    for name, lease in (("alive", 60), ("silent", -1), ("dead", 60)):
        shop.work.take(name, lease)
    assert sorted(shop.work.recover(lambda name: name == "dead", 10)) == sorted(ids[1:])
    assert [shop.learnwares.get(id).status for id in ids] == ["PROCESSING", "QUEUE", "QUEUE"]
    assert not shop.work.beat(ids[1], "silent", 60)
    assert not shop.work.finish(ids[1], "silent", USABLE)
    assert shop.work.beat(ids[0], "alive", 60)
    assert shop.work.take("new", 60).id == ids[1], "it keeps its turn"


def test_what_kills_its_checkers_is_given_up(shop):
    id = insert(shop)
    for attempt in range(1, 4):
        assert shop.work.take("me", -1).attempt == attempt
        shop.work.recover(lambda _: False, most_attempts=3)
    info = shop.learnwares.get(id)
    assert (info.status, info.usable, info.reason) == ("FAIL", None, "checker-died")
    assert "3 times" in shop.learnwares.log(id)
    assert shop.work.again(id, "ann")
    assert shop.work.take("me", 60).attempt == 1


def test_giving_back_is_no_attempt(shop):
    id = insert(shop)
    shop.work.take("me", 60)
    shop.work.give_back(id, "me")
    assert shop.work.take("me", 60).attempt == 1
    assert not shop.work.again(id, "ann"), "while it is being checked"


# -- blobs -------------------------------------------------------------------------------------------------------------


def test_a_blob_has_the_name_of_its_contents(tmp_path):
    blobs = Blobs(tmp_path)
    sha256, size = blobs.put(io.BytesIO(b"contents"))
    assert (sha256, size) == (hashlib.sha256(b"contents").hexdigest(), 8)
    assert blobs.path(sha256).read_bytes() == b"contents"
    assert blobs.put(io.BytesIO(b"contents"), sha256) == (sha256, 8)
    assert list(blobs.hashes()) == [sha256]
    assert list((tmp_path / "incoming").iterdir()) == []
    blobs.remove(sha256)
    with pytest.raises(NotFound, match="No package"):
        blobs.path(sha256)


def test_wrong_hashes_and_too_much_leave_nothing(tmp_path):
    blobs = Blobs(tmp_path)
    with pytest.raises(Conflict, match="was expected"):
        blobs.put(io.BytesIO(b"contents"), "0" * 64)
    with pytest.raises(TooLarge, match="larger than"):
        blobs.stage(io.BytesIO(b"x" * 11), limit=10)
    assert list(blobs.hashes()) == []
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_hashes_become_paths(tmp_path, name):
    with pytest.raises(DockError, match="SHA-256"):
        Blobs(tmp_path).path(name)


def test_a_file_system_without_links_gets_a_copy(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", refuse)
    blobs = Blobs(tmp_path)
    sha256, _ = blobs.put(io.BytesIO(b"contents"))
    assert blobs.path(sha256).read_bytes() == b"contents"
    assert list((tmp_path / "incoming").iterdir()) == []


def test_sweeping_takes_orphans_and_forgotten_files_only(tmp_path):
    blobs = Blobs(tmp_path)
    kept, orphan = (blobs.put(io.BytesIO(text))[0] for text in (b"kept", b"orphan"))
    young, old = tmp_path / "incoming" / "young", tmp_path / "incoming" / "old"
    for file in (young, old):
        file.touch()
    os.utime(old, (0, 0))
    assert blobs.sweep(lambda: {kept}) == {orphan}
    assert list(blobs.hashes()) == [kept]
    assert (young.exists(), old.exists()) == (True, False)


def test_sweeping_spares_what_is_being_placed(tmp_path):
    """Between placing a blob and writing its row the lock is held, and the sweep looks again when it has it."""
    blobs, rows, placed = Blobs(tmp_path), set(), threading.Event()

    def place():
        with blobs.lock():
            sha256, _ = blobs.put(io.BytesIO(b"new"))
            placed.set()
            time.sleep(0.2)
            rows.add(sha256)

    thread = threading.Thread(target=place)
    thread.start()
    placed.wait()
    assert blobs.sweep(lambda: set(rows)) == set()
    thread.join()
    assert set(blobs.hashes()) == rows

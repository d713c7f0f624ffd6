"""The rules of the dock: what is taken, who sees what, and that nothing is there by half."""

import hashlib
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from wares import statistics, words

from didact.core.errors import BadInput
from didact.reusing.dock.accounts import User
from didact.reusing.dock.errors import BadPackage, BadSpecification, Conflict, DockError, NotAllowed, NotFound
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.service import Dock, DockSettings, Duplicate, WrongOffset
from didact.reusing.dock.specification import Gamma
from didact.reusing.dock.storage.tables import users
from didact.reusing.dock.storage.work import Outcome

USABLE, UNUSABLE = Outcome(1, "", "all is well"), Outcome(0, "nan-output", "it gave NaN")


@pytest.fixture
def make(tmp_path):
    """Opens docks on one folder and database; all are closed at the end."""
    opened = []

    def dock(**settings) -> Dock:
        opened.append(Dock(DockSettings(folder=tmp_path / "dock", **settings)))
        return opened[-1]

    yield dock
    for each in opened:
        each.close()


@pytest.fixture
def dock(make):
    return make()


def person(dock: Dock, name: str, role: str = "user") -> User:
    with dock.store.writing() as connection:
        values = {"name": name, "email": "a@b", "password_hash": "", "role": role, "created": ""}
        row = connection.execute(sa.insert(users).values(values).returning(users)).one()
    return User(row.id, row.name, row.email, row.role, row.created)


@pytest.fixture
def people(dock):
    return person(dock, "ann"), person(dock, "bob"), person(dock, "root", "admin")


def judge(dock: Dock, outcome: Outcome = USABLE) -> None:
    """Give all that waits the same verdict."""
    while item := dock.work.take("judge", 60):
        dock.work.finish(item.id, "judge", outcome)


def code(failing, *args, **options) -> str:
    with pytest.raises(DockError) as caught:
        failing(*args, **options)
    assert str(caught.value).endswith("."), "an error is a sentence"
    return caught.value.code


def files(dock: Dock) -> set[str]:
    """All files that could hold a package or part of one."""
    kept = (path for path in Path(dock.settings.folder).rglob("*") if path.is_file())
    return {path.name for path in kept if not {"locks", "lock"} & {path.parent.name, path.name}} - {
        "dock.sqlite", "dock.sqlite-wal", "dock.sqlite-shm",
    }  # fmt: skip


def upload(dock: Dock, owner: User, path: Path, chunk: int = 300) -> str:
    contents = path.read_bytes()
    sha256 = hashlib.sha256(contents).hexdigest()
    at = dock.begin_upload(owner, sha256, len(contents)).offset
    while at < len(contents):
        at = dock.write_chunk(owner, sha256, at, contents[at : at + chunk]).offset
    return sha256


# -- submitting --------------------------------------------------------------------------------------------------------


def test_a_package_is_taken_in_and_queued(dock, people, package):
    ann, _, _ = people
    path = package("first")
    info = dock.submit(path, ann)
    assert (info.owner, info.semantic.name, info.status, info.usable) == ("ann", "first", "QUEUE", None)
    assert (info.tier, info.type, info.input_shape, info.output_shape) == ("safe", "rkme-table", (4,), (3,))
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert info.size == path.stat().st_size
    assert dock.download(info.id, ann).read_bytes() == path.read_bytes()
    assert files(dock) == {info.sha256}
    assert dock.submitted.is_set()


def test_a_stream_is_as_good_as_a_path(dock, package):
    with package().open("rb") as stream:
        info = dock.submit(stream)
    assert (info.owner, info.semantic.name) == ("", "a model")
    with pytest.raises(BadInput, match="not a file"):
        dock.submit("/nowhere.zip")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: p.write_bytes(b"not a zip"), "not-a-zip"),
        (lambda p: p.write_bytes(b""), "not-a-zip"),
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "not-a-zip"),
        (lambda p: p.write_bytes(p.read_bytes() + bytes(5000)), "oversize"),
    ],
)
def test_bad_packages_are_refused_and_leave_nothing(make, package, spoil, expected):
    dock = make(max_upload=5000)
    ann, path = person(dock, "ann"), package()
    spoil(path)
    assert code(dock.submit, path, ann) == expected
    if expected == "oversize":
        assert code(dock.begin_upload, ann, "0" * 64, 5001) == "oversize"
    elif path.stat().st_size:
        assert code(dock.submit_upload, ann, upload(dock, ann, path)) == expected
    assert files(dock) == set()
    assert dock.list(mine=ann).total == 0


def test_unknown_tags_wrong_gammas_and_code_are_refused(make, package):
    dock = make(gamma=0.5, code=False)
    assert code(dock.submit, package("one", gamma=0.5, scenario=["Nonsense"])) == "bad-semantic"
    assert code(dock.submit, package("two")) == "wrong-gamma"
    dock.submit(package("three", gamma=0.5))
    assert len(files(dock)) == 1
    assert {"type": "rkme-table", "encoder": "", "gamma": 0.5} in dock.semantics()["gamma"]
    assert make(gamma=Gamma()).semantics()["gamma"] != dock.semantics()["gamma"]


def test_the_same_package_is_taken_once(dock, people, package):
    ann, bob, root = people
    path = package()
    info = dock.submit(path, ann)
    for sender, told in ((ann, info.id), (bob, ""), (root, info.id)):
        with pytest.raises(Duplicate) as caught:
            dock.submit(path, sender)
        assert (caught.value.code, caught.value.status, caught.value.learnware) == ("duplicate", 409, told)
        assert code(dock.begin_upload, sender, info.sha256, info.size) == "duplicate"
    judge(dock)
    with pytest.raises(Duplicate, match=info.id):
        dock.submit(path, bob)
    dock.delete(info.id, by=ann)
    assert dock.submit(path, bob).owner == "bob"


def test_many_who_submit_the_same_at_once_store_it_once(dock, package):
    path, refused, taken, barrier = package(), [], [], threading.Barrier(6)

    def submit():
        barrier.wait()
        try:
            taken.append(dock.submit(path))
        except Duplicate as error:
            refused.append(error)

    threads = [threading.Thread(target=submit) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(taken), len(refused)) == (1, 5)
    assert files(dock) == {taken[0].sha256}


def test_deleting_and_submitting_the_same_at_once_never_loses_the_package(dock, people, package):
    """A row without its package would be a learnware by half."""
    _, _, root = people
    path, stop = package(), threading.Event()

    def submit():
        while not stop.is_set():
            try:
                dock.submit(path)
            except Duplicate:
                time.sleep(0)

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    deleted = 0
    deadline = time.monotonic() + 60
    while deleted < 15 and time.monotonic() < deadline:
        for info in dock.list(reader=root).items:
            assert dock.download(info.id, root).exists()
            dock.delete(info.id, by=root)
            deleted += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert deleted >= 15
    assert files(dock) == {info.sha256 for info in dock.list(reader=root).items}


def test_a_quota_holds_for_each_user(make, package):
    dock = make(quota=4000)
    ann, bob = person(dock, "ann"), person(dock, "bob")
    first = package("first", weights=bytes(1200))
    second = package("second", weights=bytes(range(256)) * 5)
    dock.submit(first, ann)
    assert code(dock.submit, second, ann) == "quota"
    assert dock.submit(second, bob).owner == "bob"


def test_a_full_disk_is_named_and_leaves_nothing(dock, package, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DockError, match="no room") as caught:
        dock.submit(package())
    assert (caught.value.code, caught.value.status) == ("out-of-space", 507)
    assert files(dock) == set()


def test_a_failure_of_the_database_leaves_no_package(dock, people, package, monkeypatch):
    monkeypatch.setattr(dock.work, "admit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        dock.submit(package())
    assert files(dock) == set()
    assert dock.list(reader=people[2]).total == 0


def test_an_owner_who_was_removed_meanwhile_cannot_submit(dock, people, package):
    ann, _, _ = people
    dock.accounts.delete(ann.id, by=ann)
    assert code(dock.submit, package(), ann) == "unknown-token"
    assert files(dock) == set()


# -- uploading ---------------------------------------------------------------------------------------------------------


def test_an_upload_goes_on_where_it_broke_off(dock, people, package):
    ann, bob, _ = people
    contents = package().read_bytes()
    sha256 = hashlib.sha256(contents).hexdigest()
    assert dock.begin_upload(ann, sha256, len(contents)).offset == 0
    assert dock.write_chunk(ann, sha256, 0, contents[:500]).offset == 500
    again = dock.begin_upload(ann, sha256, len(contents))
    assert (again.offset, again.size, again.complete) == (500, len(contents), False)
    assert dock.uploads(ann) == [again]
    assert dock.uploads(bob) == []
    for wrong in (0, 499, 501, -1):
        with pytest.raises(WrongOffset, match="begins at 500") as caught:
            dock.write_chunk(ann, sha256, wrong, b"x")
        assert (caught.value.code, caught.value.status, caught.value.offset) == ("wrong-offset", 409, 500)
    with pytest.raises(Conflict, match=f"500 of {len(contents)}"):
        dock.submit_upload(ann, sha256)
    assert dock.write_chunk(ann, sha256, 500, contents[500:]).complete
    assert code(dock.write_chunk, ann, sha256, len(contents), b"x") == "beyond-size"
    info = dock.submit_upload(ann, sha256)
    assert (info.owner, info.sha256) == ("ann", sha256)
    assert dock.uploads(ann) == []
    assert files(dock) == {sha256}
    with pytest.raises(Duplicate, match=info.id):
        dock.submit_upload(ann, sha256)


def test_two_users_upload_the_same_side_by_side(dock, people, package):
    ann, bob, _ = people
    sha256 = upload(dock, ann, package())
    assert upload(dock, bob, package()) == sha256
    dock.submit_upload(bob, sha256)
    assert code(dock.submit_upload, ann, sha256) == "duplicate"
    assert code(dock.write_chunk, people[2], sha256, 0, b"") == "no-upload"


def test_what_is_not_what_was_announced_is_dropped(dock, people):
    ann, _, _ = people
    dock.begin_upload(ann, "0" * 64, 4)
    dock.write_chunk(ann, "0" * 64, 0, b"abcd")
    assert code(dock.submit_upload, ann, "0" * 64) == "wrong-hash"
    assert dock.uploads(ann) == []
    dock.begin_upload(ann, "0" * 64, 4)
    dock.begin_upload(ann, "0" * 64, 5)
    assert [each.size for each in dock.uploads(ann)] == [5]
    dock.cancel_upload(ann, "0" * 64)
    assert code(dock.cancel_upload, ann, "0" * 64) == "no-upload"
    assert files(dock) == set()


@pytest.mark.parametrize("sha256", ["", "../../etc", "F" * 64, "0" * 63, "*" * 64])
def test_only_hashes_name_uploads(dock, people, sha256):
    for call in (
        lambda: dock.begin_upload(people[0], sha256, 5),
        lambda: dock.write_chunk(people[0], sha256, 0, b""),
        lambda: dock.submit_upload(people[0], sha256),
        lambda: dock.cancel_upload(people[0], sha256),
    ):
        assert code(call) == "bad-hash"


def test_uploads_are_limited(make):
    dock = make(open_uploads=2)
    ann = person(dock, "ann")
    for i in range(2):
        dock.begin_upload(ann, str(i) * 64, 5)
    assert code(dock.begin_upload, ann, "2" * 64, 5) == "too-many-uploads"
    assert dock.begin_upload(ann, "1" * 64, 5).offset == 0
    dock.begin_upload(person(dock, "bob"), "2" * 64, 5)
    assert code(dock.begin_upload, ann, "3" * 64, 0) == "bad-size"


def test_forgotten_uploads_are_swept(make):
    dock = make(upload_hours=1)
    ann = person(dock, "ann")
    dock.begin_upload(ann, "0" * 64, 5)
    dock.begin_upload(ann, "1" * 64, 5)
    (old,) = Path(dock.settings.folder).rglob("0" * 64 + ".*")
    os.utime(old, (0, 0))
    assert [each.sha256[0] for each in make(upload_hours=1).uploads(ann)] == ["1"]


def test_an_upload_left_by_a_kill_after_its_row_was_written_is_swept(dock, people, make, package):
    ann, bob, _ = people
    upload(dock, ann, package())
    sha256 = upload(dock, bob, package())
    dock.submit_upload(bob, sha256)
    assert make().uploads(ann) == []


def test_many_chunks_at_once_never_mix(dock, people, monkeypatch):
    """Of writers that send the same chunk at the same offset exactly one gets it in."""
    ann, _, _ = people
    find = dock._uploads._find

    def slowly(*args):
        found = find(*args)
        time.sleep(0.002)  # time for another writer to come in between, if one could
        return found

    monkeypatch.setattr(dock._uploads, "_find", slowly)
    contents = bytes(range(250)) * 8
    sha256 = hashlib.sha256(contents).hexdigest()
    dock.begin_upload(ann, sha256, len(contents))

    def send():
        at = 0
        while at < len(contents):
            try:
                at = dock.write_chunk(ann, sha256, at, contents[at : at + 100]).offset
            except WrongOffset as error:
                at = error.offset

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = Path(dock.settings.folder).rglob(f"{sha256}.*")
    assert file.read_bytes() == contents


# -- who sees what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [None, UNUSABLE])
def test_what_is_not_usable_is_for_its_owner_and_admins(dock, people, package, outcome):
    ann, bob, root = people
    info = dock.submit(package(), ann)
    if outcome:
        judge(dock, outcome)
    for reader in (ann, root):
        assert dock.info(info.id, reader).id == info.id
        assert dock.download(info.id, reader).exists()
        assert dock.specification(info.id, reader).digest == statistics(seed=sum(b"a model")).digest
        assert ("it gave NaN" in dock.log(info.id, reader)) == bool(outcome)
    for reader in (bob, None):
        for look in (dock.info, dock.download, dock.specification, dock.log, dock.similar):
            assert code(look, info.id, reader=reader) == "no-learnware"
        assert dock.list(reader=reader).total == 0
    assert dock.list(reader=root).total == 1
    assert dock.list(mine=ann, reader=ann).total == 1
    assert dock.list(mine=bob, reader=bob).total == 0
    assert dock.search().total == 0
    assert dock.search(specification=statistics()).total == 0


def test_what_is_usable_is_for_everybody(dock, people, package):
    info = dock.submit(package(), people[0])
    judge(dock)
    assert dock.info(info.id).visible
    assert dock.download(info.id).exists()
    assert "all is well" in dock.log(info.id)
    assert [each.id for each in dock.list().items] == [info.id]
    assert [found.info.id for found in dock.search().single] == [info.id]
    summary = dock.summary()
    assert (summary["usable"], summary["status"]) == (1, {"SUCCESS": 1})
    assert (summary["data"], summary["task"]) == ({"Table": 1}, {"Classification": 1})
    assert summary["scenario"] == {"Education": 1}


def test_a_closed_dock_shows_nothing_to_strangers(make, package):
    dock = make(public=False)
    ann, bob = person(dock, "ann"), person(dock, "bob")
    info = dock.submit(package(), ann)
    judge(dock)
    for look in (dock.search, dock.list, lambda: dock.info(info.id), lambda: dock.download(info.id)):
        assert code(look) == "missing-token"
    assert dock.info(info.id, bob) == dock.info(info.id, ann)
    assert dock.search(reader=bob).total == 1


@pytest.mark.parametrize("id", ["", "nothing", "x" * 5000, "0' OR 1=1 --"])
def test_what_is_not_there_is_not_found(dock, people, id):
    for call in (
        lambda: dock.info(id),
        lambda: dock.delete(id, by=people[2]),
        lambda: dock.recheck(id, by=people[2]),
        lambda: dock.update(id, semantic=SemanticSpecification.parse(words()), by=people[2]),
    ):
        assert code(call) == "no-learnware"


def test_events_are_for_admins(dock, people, package):
    ann, _, root = people
    info = dock.submit(package(), ann)
    judge(dock)
    dock.delete(info.id, by=ann)
    assert [(e.kind, e.user) for e in dock.events(reader=root)] == [("delete", "ann"), ("check", ""), ("submit", "ann")]
    assert code(dock.events, reader=ann) == "not-admin"
    assert code(dock.events) == "missing-token"


# -- searching ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(dock, package):
    """Four usable learnwares with statistics around 0, 2, 4 and 6."""
    ids = [dock.submit(package(f"around {centre}", centre, description="x" * centre)).id for centre in (0, 2, 4, 6)]
    judge(dock)
    return ids


def test_a_search_by_statistics_finds_the_nearest_first(dock, four):
    found = dock.search(specification=statistics(2.0, seed=7))
    assert found.searched == "statistical"
    assert found.single[0].info.id == four[1]
    distances = [hit.distance for hit in found.single]
    assert distances == sorted(distances)
    expected = dock.specification(four[1]).distance(statistics(2.0, seed=7))
    np.testing.assert_allclose(distances[0], expected, atol=1e-12)


def test_a_mixture_comes_with_the_first_page_only(dock, four):
    z = np.concatenate([dock.specification(id).z for id in (four[0], four[3])])
    user = type(statistics())("rkme-table", 0.1, "", z, np.full(10, 0.1))
    found = dock.search(specification=user, limit=1)
    shares = zip(found.mixture.learnwares, found.mixture.weights, strict=True)
    assert {info.id for info, weight in shares if weight > 1e-6} == {four[0], four[3]}
    np.testing.assert_allclose(sum(found.mixture.weights), 1.0)
    assert found.mixture.distance < found.single[0].distance
    second = dock.search(specification=user, limit=1, page=2)
    assert second.mixture is None
    assert second.total == found.total
    assert dock.search(specification=user, mixture=None).mixture is None
    assert found.to_json()["mixture"]["learnwares"][0]["id"] in four


def test_pages_follow_each_other(dock, four):
    pages = [dock.search(limit=3, page=page) for page in (1, 2, 3)]
    assert [len(page.single) for page in pages] == [3, 1, 0]
    assert {hit.info.id for page in pages for hit in page.single} == set(four)
    assert {page.total for page in pages} == {4}
    for wrong in ({"limit": 0}, {"limit": 101}, {"page": 0}, {"page": 10**30}):
        assert code(dock.search, **wrong) in ("bad-limit", "bad-page")
        assert code(dock.list, **wrong) in ("bad-limit", "bad-page")


def test_words_filter(dock, four):
    assert dock.search(SemanticQuery(text="around 4")).single[0].info.id == four[2]
    assert dock.search(SemanticQuery(data="Image")).total == 0
    assert dock.list(query=SemanticQuery(task="Classification"), limit=2).total == 4


def test_a_specification_with_another_gamma_is_refused(dock, four):
    with pytest.raises(BadSpecification, match="gamma"):
        dock.search(specification=statistics(gamma=0.2))
    dock.search(specification=statistics())


def test_another_process_sees_what_changes(dock, people, make, package):
    other = make()
    info = dock.submit(package("here"), people[0])
    assert other.search().total == 0
    judge(dock)
    assert other.search().total == dock.search().total == 1
    dock.update(info.id, semantic=SemanticSpecification.parse(words("renamed")), by=people[0])
    assert other.search(SemanticQuery(text="renamed")).total == 1
    dock.recheck(info.id, by=people[0])
    assert other.search().total == 0
    assert other.summary()["data"] == {}
    judge(other)
    assert dock.search().total == 1
    other.delete(info.id, by=people[0])
    assert dock.search().total == 0


def test_an_index_that_missed_too_much_is_read_again(dock, make, package, monkeypatch):
    from didact.reusing.dock.storage import store

    other = make()
    monkeypatch.setattr(store, "_KEPT_CHANGES", 1)
    for i in range(3):
        dock.submit(package(f"number {i}"))
    judge(dock)
    dock.store.prune()
    assert other.search().total == 3


def test_searching_while_others_submit_and_delete_never_fails(dock, people, package):
    """What a search found may be gone when its description is read: it is then left out."""
    root, stop, failures = people[2], threading.Event(), []
    for i in range(3):
        dock.submit(package(f"stays {i}"))
    judge(dock)

    def search():
        while not stop.is_set():
            try:
                found = dock.search(specification=statistics(), limit=100)
                assert len({hit.info.id for hit in found.single}) == len(found.single)
                assert all(hit.info.visible for hit in found.single)
            except Exception as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(10):
        info = dock.submit(package(f"goes {i}"))
        judge(dock)
        dock.delete(info.id, by=root)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_similar_ones_are_kept_as_inner_products(dock, four):
    found = dock.similar(four[1], limit=2)
    assert four[1] not in {hit.info.id for hit in found}
    own = dock.specification(four[1])
    for hit in found:
        np.testing.assert_allclose(hit.distance, own.distance(dock.specification(hit.info.id)), atol=1e-9)
        assert 0 <= hit.score <= 1
    kept = dock.learnwares.products(four[1], "rkme-table")
    for other, value in kept.items():
        np.testing.assert_allclose(value, own.inner(dock.specification(other)), atol=1e-9)
    dock.relate("gone")


# -- changing ----------------------------------------------------------------------------------------------------------


def test_words_change_and_what_was_checked_does_not(dock, people, package):
    ann, bob, root = people
    info = dock.submit(package(), ann)
    judge(dock)
    better = SemanticSpecification.parse(words("better", description="new", licence="Apache-2.0"))
    assert code(dock.update, info.id, semantic=better, by=bob) == "not-owner"
    changed = dock.update(info.id, semantic=better, by=ann)
    assert (changed.semantic, changed.status) == (better, "SUCCESS")
    assert changed.modified > info.modified
    dock.update(info.id, semantic=better, by=root)
    for change in (
        {"output": {"dimension": 4}},
        {"input": {"dimension": 5}},
        {"task": "Regression"},
        {"data": "Image"},
    ):
        semantic = SemanticSpecification.parse(words("better", **change))
        assert code(dock.update, info.id, semantic=semantic, by=ann) == "checked-field"
    assert dock.info(info.id).semantic == better


def test_only_owners_and_admins_delete_and_recheck(dock, people, package):
    ann, bob, root = people
    info = dock.submit(package(), ann)
    assert code(dock.delete, info.id, by=bob) == "no-learnware", "he does not even know of it"
    assert code(dock.recheck, info.id, by=ann) == "in-queue"
    judge(dock)
    for forbidden in (dock.delete, dock.recheck):
        with pytest.raises(NotAllowed, match="somebody else"):
            forbidden(info.id, by=bob)
    assert dock.recheck(info.id, by=ann).status == "QUEUE"
    judge(dock)
    dock.delete(info.id, by=root)
    assert files(dock) == set()
    with pytest.raises(NotFound):
        dock.info(info.id, ann)


def test_who_reads_a_package_that_is_deleted_reads_on(dock, people, package):
    info = dock.submit(package(), people[0])
    contents = package().read_bytes()
    with dock.download(info.id, people[0]).open("rb") as reading:
        start = reading.read(10)
        dock.delete(info.id, by=people[0])
        assert start + reading.read() == contents


@pytest.mark.parametrize("learnwares", ["keep", "delete"])
def test_a_user_leaves_with_or_without_the_learnwares(dock, people, package, learnwares):
    ann, bob, _ = people
    info = dock.submit(package(), ann)
    judge(dock)
    dock.begin_upload(ann, "0" * 64, 5)
    with pytest.raises(NotAllowed):
        dock.delete_user(ann.id, by=bob, learnwares="delete")
    assert dock.info(info.id).owner == "ann"
    dock.delete_user(ann.id, by=ann, learnwares=learnwares)
    assert dock.uploads(ann) == []
    if learnwares == "keep":
        assert dock.info(info.id).owner == ""
    else:
        assert dock.search().total == 0
        assert files(dock) == set()


def test_the_last_admin_does_not_lose_learnwares_over_a_refusal(dock, people, package):
    root = people[2]
    info = dock.submit(package(), root)
    assert code(dock.delete_user, root.id, by=root, learnwares="delete") == "last-admin"
    assert dock.info(info.id, root).owner == "root"


# -- opening again -----------------------------------------------------------------------------------------------------


def test_everything_is_there_again_after_reopening(dock, people, make, package):
    infos = [dock.submit(package(f"number {i}"), people[0]) for i in range(3)]
    judge(dock)
    again = make()
    assert {hit.info.id for hit in again.search(specification=statistics()).single} <= {info.id for info in infos}
    assert again.list().total == again.search().total == 3
    np.testing.assert_array_equal(again.specification(infos[0].id).z, dock.specification(infos[0].id).z)


def test_what_a_kill_left_is_swept_at_opening(dock, make, package):
    kept = dock.submit(package("kept"))
    blob = dock.blobs.path(kept.sha256)
    orphan = blob.parent.parent / "00" / ("00" + "f" * 62)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"placed, but its row was never written")
    half = blob.parent.parent / "incoming" / "half"
    half.write_bytes(b"half a pack")
    os.utime(half, (0, 0))
    make()
    assert files(dock) == {kept.sha256}


def test_postgresql_serves_as_well(make, postgres, package):
    dock = make(url=postgres)
    ann = person(dock, "ann")
    info = dock.submit_upload(ann, upload(dock, ann, package("there")))
    judge(dock)
    other = make(url=postgres)
    assert [hit.info.id for hit in other.search(specification=statistics()).single] == [info.id]
    assert other.info(info.id) == dock.info(info.id)
    assert dock.submit(package("près d'ici ☃")).semantic.name == "près d'ici ☃"
    assert code(dock.submit, package("there")) == "duplicate"
    other.delete_user(ann.id, by=ann, learnwares="delete")
    assert dock.search().total == 0
    assert not list((Path(dock.settings.folder)).glob("dock.sqlite*"))


def test_what_a_learnware_says_in_json(dock, people, package):
    info = dock.submit(package(), people[0])
    plain = info.to_json()
    assert plain["semantic"] == info.semantic.to_json()
    assert (plain["input_shape"], plain["owner"]) == ([4], "ann")
    assert "owner_id" not in plain
    with pytest.raises(BadPackage):
        dock.begin_upload(people[0], "0" * 64, -5)

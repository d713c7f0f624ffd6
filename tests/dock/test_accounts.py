"""Accounts, tokens, roles and rate limits."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from didact.reusing.dock.accounts import Accounts, BadAccount, RateLimit, RateLimited
from didact.reusing.dock.errors import Conflict, DockError, NotAllowed, NotFound, NotSignedIn
from didact.reusing.dock.storage import Store
from didact.reusing.dock.storage.tables import tokens, users

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch):
    """Argon2 at its least, so that the tests are quick."""
    import argon2

    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(argon2, "PasswordHasher", lambda: cheap)


@pytest.fixture
def accounts(database):
    store = Store(database)
    yield Accounts(store)
    store.close()


@pytest.fixture
def ann(accounts):
    return accounts.register("ann", "ann@example.org", PASSWORD)


@pytest.fixture
def admin(accounts):
    return accounts.ensure_admin("root")[0]


def stored(accounts) -> str:
    """Everything in the tables of people, as text."""
    with accounts.store.reading() as connection:
        return repr([connection.execute(sa.select(table)).all() for table in (users, tokens)])


def code(failing, *args, **options) -> str:
    with pytest.raises(DockError) as caught:
        failing(*args, **options)
    assert str(caught.value).endswith("."), "an error is a sentence"
    return caught.value.code


# -- signing in --------------------------------------------------------------------------------------------------------


def test_a_token_says_whose_it_is_and_no_secret_is_kept(accounts, ann):
    token = accounts.login("Ann", PASSWORD)
    assert accounts.verify(token.secret) == ann == token.user
    assert (ann.name, ann.role, ann.is_admin) == ("ann", "user", False)
    assert token.secret not in stored(accounts)
    assert PASSWORD not in stored(accounts)
    assert "$argon2id$" in stored(accounts)


@pytest.mark.parametrize("secret", [None, "", "didact_wrong", "x" * 10_000, "nul\x00", "\ud800"])
def test_what_is_no_token_opens_nothing(accounts, ann, secret):
    assert code(accounts.verify, secret) == ("unknown-token" if secret else "missing-token")


def test_expired_and_revoked_tokens_open_nothing(accounts, ann):
    token = accounts.issue(ann, days=1)
    yesterday = (datetime.now(UTC) - timedelta(seconds=1)).isoformat(timespec="microseconds")
    with accounts.store.writing() as connection:
        connection.execute(sa.update(tokens).values(expires=yesterday))
    assert code(accounts.verify, token.secret) == "expired-token"
    assert accounts.tokens(ann) == []
    token = accounts.issue(ann)
    accounts.revoke(token.id, by=ann)
    assert code(accounts.verify, token.secret) == "revoked-token"
    token = accounts.issue(ann)
    accounts.sign_out(token.secret)
    assert code(accounts.verify, token.secret) == "revoked-token"


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "wrong horse"), ("ann", ""), ("nobody", PASSWORD), ("", PASSWORD), ("a\x00", PASSWORD),
     ("ann", "\ud800" * 9), ("ann", "x" * 5000), ("\ud800", PASSWORD), ("x" * 5000, PASSWORD)],
)  # fmt: skip
def test_wrong_passwords_and_names_read_the_same(accounts, ann, name, password):
    with pytest.raises(NotSignedIn, match="name or the password") as caught:
        accounts.login(name, password)
    assert (caught.value.code, caught.value.status) == ("wrong-password", 401)


def test_a_weak_hash_is_made_anew_at_the_next_login(accounts, ann):
    import argon2

    old = argon2.low_level.hash_secret(PASSWORD.encode(), b"saltsaltsalt", 1, 16, 1, 16, argon2.Type.ID).decode()
    with accounts.store.writing() as connection:
        connection.execute(sa.update(users).values(password_hash=old))
    accounts.login("ann", PASSWORD)
    assert old not in stored(accounts)
    accounts.login("ann", PASSWORD)


# -- accounts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "email", "password", "expected"),
    [
        ("a", "a@b.c", PASSWORD, "bad-name"),
        ("-ann", "a@b.c", PASSWORD, "bad-name"),
        ("ann bee", "a@b.c", PASSWORD, "bad-name"),
        ("x" * 65, "a@b.c", PASSWORD, "bad-name"),
        ("ann\n", "a@b.c", PASSWORD, "bad-name"),
        ("änn", "a@b.c", PASSWORD, "bad-name"),
        ("ann", "nobody", PASSWORD, "bad-email"),
        ("ann", "a@b\r\nBcc: c@d", PASSWORD, "bad-email"),
        ("ann", "a\x00@b.c", PASSWORD, "bad-email"),
        ("ann", "\ud800@b.c", PASSWORD, "bad-email"),
        ("ann", "a@" + "b" * 300, PASSWORD, "bad-email"),
        ("ann", "a@b.c", "short", "bad-password"),
        ("ann", "a@b.c", "x" * 1025, "bad-password"),
        ("ann", "a@b.c", "\ud800" * 9, "bad-password"),
    ],
)
def test_bad_accounts_are_refused(accounts, name, email, password, expected):
    assert code(accounts.register, name, email, password) == expected
    assert stored(accounts) == "[[], []]"


def test_a_name_is_taken_once_whatever_its_capitals(accounts, ann):
    assert code(accounts.register, "ANN", "other@example.org", PASSWORD) == "name-taken"
    done, lock = [], threading.Lock()

    def try_it():
        try:
            accounts.register("bob", "bob@example.org", PASSWORD)
        except Conflict:
            return
        with lock:
            done.append(1)

    threads = [threading.Thread(target=try_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [1]


def test_closed_registration_is_for_admins(accounts, admin):
    accounts.registration = "closed"
    assert code(accounts.register, "bob", "b@c.d", PASSWORD) == "registration-closed"
    bob = accounts.register("bob", "b@c.d", PASSWORD, by=admin)
    assert code(accounts.register, "eve", "b@c.d", PASSWORD, by=bob) == "registration-closed"


def test_a_new_password_ends_all_tokens(accounts, ann):
    token = accounts.issue(ann)
    assert code(accounts.set_password, ann, "wrong horse", "another one") == "wrong-password"
    assert code(accounts.set_password, ann, PASSWORD, "short") == "bad-password"
    assert accounts.verify(token.secret) == ann
    accounts.set_password(ann, PASSWORD, "another one")
    assert code(accounts.verify, token.secret) == "revoked-token"
    assert code(accounts.login, "ann", PASSWORD) == "wrong-password"
    accounts.login("ann", "another one")


def test_tokens_have_labels_and_limits_and_belong_to_somebody(accounts, ann, admin):
    first, second = accounts.issue(ann, label="laptop"), accounts.issue(ann, label="phone", days=1)
    assert [token.label for token in accounts.tokens(ann)] == ["phone", "laptop"]
    assert first.expires > second.expires
    bob = accounts.register("bob", "b@c.d", PASSWORD)
    assert code(accounts.revoke, first.id, by=bob) == "no-token"
    assert accounts.verify(first.secret) == ann
    accounts.revoke(first.id, by=admin)
    assert [token.label for token in accounts.tokens(ann)] == ["phone"]
    for days in (0, -1, 4000, float("nan"), float("inf")):
        assert code(accounts.issue, ann, days=days) == "bad-days"
    for label in ("x" * 101, "a\x00", "\ud800"):
        assert code(accounts.issue, ann, label=label) == "bad-label"
    for id in (0, -1, 999, 2**40):
        assert code(accounts.revoke, id, by=admin) == "no-token"


def test_only_admins_oversee(accounts, ann, admin):
    for forbidden in (
        lambda: accounts.users(by=ann),
        lambda: accounts.set_role(ann.id, "admin", by=ann),
        lambda: accounts.delete(admin.id, by=ann),
    ):
        with pytest.raises(NotAllowed, match="admins"):
            forbidden()
    assert [user.name for user in accounts.users(by=admin).items] == ["ann", "root"]
    page = accounts.users(by=admin, page=2, limit=1)
    assert ([user.name for user in page.items], page.total, page.pages) == (["root"], 2, 2)
    assert accounts.set_role(ann.id, "admin", by=admin).is_admin
    assert code(accounts.set_role, ann.id, "king", by=admin) == "bad-role"
    for id in (0, 999, 2**40):
        assert code(accounts.set_role, id, "admin", by=admin) == "no-user"


def test_there_is_always_an_admin(accounts, ann, admin):
    assert code(accounts.set_role, admin.id, "user", by=admin) == "last-admin"
    assert code(accounts.delete, admin.id, by=admin) == "last-admin"
    accounts.set_role(ann.id, "admin", by=admin)
    accounts.delete(admin.id, by=admin)
    assert code(accounts.delete, ann.id, by=ann) == "last-admin"


def test_admins_who_leave_at_once_do_not_all_go(accounts, admin):
    for turn in range(8):
        others = [accounts.register(f"admin{turn}.{i}", "a@b.c", PASSWORD) for i in range(3)]
        for other in others:
            accounts.set_role(other.id, "admin", by=admin)
        everybody = [user for user in accounts.users(by=admin, limit=100).items if user.is_admin]
        barrier, refused = threading.Barrier(len(everybody)), []

        def leave(user, barrier=barrier, refused=refused):
            barrier.wait()
            try:
                accounts.delete(user.id, by=user)
            except Conflict:
                refused.append(user)

        threads = [threading.Thread(target=leave, args=(user,)) for user in everybody]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (admin,) = refused


def test_who_left_has_no_token_and_no_number_is_given_twice(accounts, ann):
    token = accounts.issue(ann)
    accounts.delete(ann.id, by=ann)
    assert code(accounts.verify, token.secret) == "unknown-token"
    assert code(accounts.issue, ann) == "unknown-token"
    assert accounts.register("ann", "ann@example.org", PASSWORD).id != ann.id
    with pytest.raises(NotFound):
        accounts.user(ann.id)


def test_the_first_admin_gets_a_password_once(accounts, ann):
    root, password = accounts.ensure_admin("root")
    assert root.is_admin
    assert accounts.login("root", password).user == root
    assert accounts.ensure_admin("root") == (root, None)
    promoted, password = accounts.ensure_admin("ann")
    assert (promoted.is_admin, password) == (True, None)
    with pytest.raises(BadAccount):
        accounts.ensure_admin("no name")


# -- rate limits -------------------------------------------------------------------------------------------------------


def test_a_burst_goes_through_and_then_the_pace_holds():
    clock = [0.0]
    limit = RateLimit(per_minute=60, burst=3, clock=lambda: clock[0])
    for _ in range(3):
        limit.check("ann")
    with pytest.raises(RateLimited, match="Try again in 1 s") as caught:
        limit.check("ann")
    assert (caught.value.retry_after, caught.value.status) == (1, 429)
    limit.check("bob")
    clock[0] = 1.0
    limit.check("ann")
    with pytest.raises(RateLimited):
        limit.check("ann")
    clock[0] = 100.0
    for _ in range(3):
        limit.check("ann")
    with pytest.raises(RateLimited) as caught:
        limit.check("ann", cost=2.5)
    assert caught.value.retry_after == 3


def test_buckets_do_not_pile_up():
    clock = [0.0]
    limit = RateLimit(per_minute=60, burst=1, keys=10, clock=lambda: clock[0])
    for i in range(1000):
        clock[0] += 0.01
        limit.check(f"address {i}")
        assert len(limit._buckets) <= 11
    with pytest.raises(RateLimited):
        limit.check("address 999")

"""Every route of the API for every role: a token opens what it should; a missing, foreign or ended one does not."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from served import FREELY, PASSWORD, ROLES, Served, package, semantic, serve, specification

from didact.reusing.dock.paging import LARGEST_LIMIT
from didact.web.settings import WebSettings


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Served:
    return serve(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Served:
    return serve(tmp_path_factory.mktemp("private"), public=False)


@dataclass(frozen=True)
class Case:
    """One request. `make` prepares what it is about, anew for every role; `expected` is by role."""

    method: str
    route: str
    expected: dict[str, int]
    make: Callable[[Served], tuple[dict[str, Any], dict[str, Any]]] = lambda served: ({}, {})  # path, request
    note: str = ""


def everybody(status: int) -> dict[str, int]:
    """A bad token is refused even where none is needed: its owner should know that it is bad."""
    return dict.fromkeys(ROLES, 401) | dict.fromkeys(("none", "foreign", "owner", "admin"), status)


def signed_in(foreign: int, owner: int, admin: int) -> dict[str, int]:
    return dict.fromkeys(ROLES, 401) | {"foreign": foreign, "owner": owner, "admin": admin}


def hidden(status: int) -> dict[str, int]:
    """What is not (yet) usable is for its owner and admins alone; to visitors it does not exist."""
    return signed_in(404, status, status) | {"none": 404}


def tokenless(status: int) -> dict[str, int]:
    return dict.fromkeys(ROLES, status)


def waiting(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"id": served.submit().id}, {}


def usable(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"id": served.submit(usable=True).id}, {}


def with_words(make: Callable) -> Callable:
    def made(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
        return make(served)[0], {"json": {"semantic": semantic("renamed").to_json()}}

    return made


def announced(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    content = package(served.folder).read_bytes()
    return {}, {"json": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}}


def begun_by_owner(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    content = package(served.folder).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    for open_one in served.dock.uploads(served.users["owner"]):
        served.dock.cancel_upload(served.users["owner"], open_one.sha256)
    served.dock.begin_upload(served.users["owner"], sha256, len(content))
    return {"sha256": sha256}, {"params": {"offset": 0}, "content": content}


def sent_by_owner(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    path, request = begun_by_owner(served)
    served.dock.write_chunk(served.users["owner"], path["sha256"], 0, request["content"])
    return {}, {"json": path}


def new_account(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"json": {"name": f"user-{next(_names)}", "email": "a@example.org", "password": PASSWORD}}


def owners_token(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"id": served.dock.accounts.issue(served.users["owner"]).id}, {}


def somebody(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    user = served.dock.accounts._create(f"user-{next(_names)}", "a@example.org", PASSWORD, "user")
    return {"id": user.id}, {}


def with_role(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return somebody(served)[0], {"json": {"role": "admin"}}


def asked(served: Served) -> tuple[dict[str, Any], dict[str, Any]]:
    return {}, {"files": {"specification": ("stat.json", json.dumps(specification().to_json()))}}


_names = count()
ADMINS = signed_in(403, 403, 200)
CASES = [
    Case("GET", "/v1/semantics", everybody(200)),
    Case("POST", "/v1/search", everybody(200), asked),
    Case("GET", "/v1/learnwares", everybody(200)),
    Case("GET", "/v1/learnwares", signed_in(200, 200, 200), lambda s: ({}, {"params": {"mine": True}}), "mine"),
    Case("GET", "/v1/learnwares/{id}", everybody(200), usable, "usable"),
    Case("GET", "/v1/learnwares/{id}", hidden(200), waiting, "waiting"),
    Case("GET", "/v1/learnwares/{id}/download", everybody(200), usable, "usable"),
    Case("GET", "/v1/learnwares/{id}/download", hidden(200), waiting, "waiting"),
    Case("GET", "/v1/learnwares/{id}/log", everybody(200), usable, "usable"),
    Case("GET", "/v1/learnwares/{id}/log", hidden(200), waiting, "waiting"),
    Case("PUT", "/v1/learnwares/{id}", signed_in(403, 200, 200), with_words(usable), "usable"),
    Case("PUT", "/v1/learnwares/{id}", signed_in(404, 200, 200), with_words(waiting), "waiting"),
    Case("POST", "/v1/learnwares/{id}/check", signed_in(403, 202, 202), usable, "usable"),
    Case("POST", "/v1/learnwares/{id}/check", signed_in(404, 409, 409), waiting, "waiting"),
    Case("DELETE", "/v1/learnwares/{id}", signed_in(403, 204, 204), usable, "usable"),
    Case("DELETE", "/v1/learnwares/{id}", signed_in(404, 204, 204), waiting, "waiting"),
    Case("GET", "/v1/uploads", signed_in(200, 200, 200)),
    Case("POST", "/v1/uploads", signed_in(201, 201, 201), announced),
    Case("PUT", "/v1/uploads/{sha256}", signed_in(404, 200, 404), begun_by_owner),
    Case("DELETE", "/v1/uploads/{sha256}", signed_in(404, 204, 404), begun_by_owner),
    Case("POST", "/v1/learnwares", signed_in(404, 201, 404), sent_by_owner),
    Case("POST", "/v1/users", tokenless(201), new_account),
    Case("POST", "/v1/login", tokenless(200), lambda s: ({}, {"json": {"name": "ann", "password": PASSWORD}})),
    Case("POST", "/v1/login", tokenless(401), lambda s: ({}, {"json": {"name": "ann", "password": "guess"}}), "wrong"),
    Case("GET", "/v1/users/me", signed_in(200, 200, 200)),
    Case("GET", "/v1/tokens", signed_in(200, 200, 200)),
    Case("POST", "/v1/tokens", signed_in(201, 201, 201), lambda s: ({}, {"json": {"label": "laptop"}})),
    Case("DELETE", "/v1/tokens/{id}", signed_in(404, 204, 204), owners_token),
    Case("GET", "/v1/admin/summary", ADMINS),
    Case("GET", "/v1/admin/learnwares", ADMINS),
    Case("GET", "/v1/admin/events", ADMINS),
    Case("GET", "/v1/admin/users", ADMINS),
    Case("PUT", "/v1/admin/users/{id}", ADMINS, with_role),
    Case("DELETE", "/v1/admin/users/{id}", signed_in(403, 403, 204), somebody),
]


def send(served: Served, case: Case, role: str):
    path, request = case.make(served)
    headers = served.headers[role]
    return served.client.request(case.method, case.route.format(**path), headers=headers, **request)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.method} {c.route} {c.note}".strip())
def test_who_may_do_what(served, case, role):
    answer = send(served, case, role)
    assert answer.status_code == case.expected[role], answer.text
    if answer.status_code >= 400:
        assert set(answer.json()) >= {"error", "message"}
    if answer.status_code == 401 and case.route != "/v1/login":
        code = {"none": "missing-token"}.get(role, f"{role}-token")
        assert answer.json()["error"] == code


def test_no_route_is_forgotten(served):
    paths = served.client.app.openapi()["paths"]
    there = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert there == {(case.method, case.route) for case in CASES}


@pytest.mark.parametrize("case", [c for c in CASES if c.expected["none"] == 200 and "login" not in c.route])
def test_a_private_dock_shows_nothing_to_visitors(private, case):
    assert send(private, case, "none").status_code == 401
    assert send(private, case, "foreign").status_code == 200


def test_a_refused_change_changes_nothing(served):
    info = served.submit(usable=True)
    for role in ("none", "expired", "revoked", "unknown", "foreign"):
        served.client.delete(f"/v1/learnwares/{info.id}", headers=served.headers[role])
        words = {"semantic": semantic("stolen").to_json()}
        served.client.put(f"/v1/learnwares/{info.id}", json=words, headers=served.headers[role])
    assert served.dock.info(info.id) == info


def test_only_usable_learnwares_are_listed_and_found(served):
    shown = served.submit(usable=True, name="to be seen").id
    failed = served.submit(name="not to be seen").id
    served.judge(failed, usable=0)
    queued = served.submit(name="not to be seen either").id
    listed = served.client.get("/v1/learnwares", params={"limit": LARGEST_LIMIT}).json()["items"]
    assert shown in {item["id"] for item in listed}
    assert not {failed, queued} & {item["id"] for item in listed}
    found = served.client.post("/v1/search", files={"semantic": (None, '{"text": "to be seen"}')}).json()
    assert shown in {hit["learnware"]["id"] for hit in found["single"]}
    assert not {failed, queued} & {hit["learnware"]["id"] for hit in found["single"]}
    own = {"mine": True, "limit": LARGEST_LIMIT}
    mine = served.client.get("/v1/learnwares", params=own, headers=served.headers["owner"]).json()
    assert {shown, failed, queued} <= {item["id"] for item in mine["items"]}
    theirs = served.client.get("/v1/learnwares", params={"mine": True}, headers=served.headers["foreign"]).json()
    assert not {shown, failed, queued} & {item["id"] for item in theirs["items"]}


def test_search_puts_the_nearest_first(tmp_path):
    served = serve(tmp_path)
    ids = {centre: served.submit(usable=True, centre=centre).id for centre in (0.0, 4.0)}
    for centre in ids:
        stat = json.dumps(specification(99, centre).to_json())
        found = served.client.post("/v1/search", files={"specification": ("stat.json", stat)}).json()
        assert found["searched"] == "statistical"
        assert found["single"][0]["learnware"]["id"] == ids[centre]
        assert found["single"][0]["distance"] < 0.5


def test_a_package_in_pieces(served):
    content = package(served.folder).read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    owner = served.headers["owner"]
    about = {"sha256": sha256, "size": len(content)}
    begun = served.client.post("/v1/uploads", json=about, headers=owner).json()
    assert (begun["offset"], begun["size"]) == (0, len(content))

    def put(offset: int, piece: bytes):
        params = {"offset": offset}
        return served.client.put(f"/v1/uploads/{sha256}", params=params, content=piece, headers=owner)

    assert put(0, content[:100]).json()["offset"] == 100
    wrong = put(50, content[50:])
    assert (wrong.status_code, wrong.json()["error"], wrong.json()["offset"]) == (409, "wrong-offset", 100)
    early = served.client.post("/v1/learnwares", json={"sha256": sha256}, headers=owner)
    assert (early.status_code, early.json()["error"]) == (409, "incomplete-upload")
    assert served.client.post("/v1/uploads", json=about, headers=owner).json()["offset"] == 100
    assert put(100, content[100:]).json()["offset"] == len(content)
    assert put(len(content), b"more").status_code == 400
    made = served.client.post("/v1/learnwares", json={"sha256": sha256}, headers=owner)
    assert made.status_code == 201
    id = made.json()["id"]
    assert made.json()["status"] in ("WAITING", "QUEUE")
    again = served.client.post("/v1/uploads", json=about, headers=owner)
    assert (again.status_code, again.json()["error"], again.json()["learnware"]) == (409, "duplicate", id)
    foreign = served.client.post("/v1/uploads", json=about, headers=served.headers["foreign"]).json()
    assert foreign["error"] == "duplicate"
    assert "learnware" not in foreign
    fetched = served.client.get(f"/v1/learnwares/{id}/download", headers=owner)
    assert fetched.content == content
    assert fetched.headers["ETag"] == f'"{sha256}"'
    part = served.client.get(f"/v1/learnwares/{id}/download", headers={**owner, "Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])


def test_what_is_no_package_is_not_stored(served):
    content = b"this is not a zip file"
    sha256 = hashlib.sha256(content).hexdigest()
    owner = served.headers["owner"]
    served.client.post("/v1/uploads", json={"sha256": sha256, "size": len(content)}, headers=owner)
    served.client.put(f"/v1/uploads/{sha256}?offset=0", content=content, headers=owner)
    before = served.dock.summary()["learnwares"]
    refused = served.client.post("/v1/learnwares", json={"sha256": sha256}, headers=owner)
    assert (refused.status_code, refused.json()["error"]) == (400, "not-a-zip")
    assert served.dock.summary()["learnwares"] == before


@pytest.mark.parametrize(
    "files, error",
    [
        ({"specification": "no json"}, "not-json"),
        ({"specification": "[" * 100_000}, "not-json"),
        ({"specification": '{"type": "rkme-table"}'}, "missing"),
        ({"specification": '{"type": "rkme-table", "gamma": 0.1, "z": [[NaN]], "beta": [1]}'}, "non-finite"),
        ({"specification": '{"type": "rkme-table", "gamma": 7.0, "z": [[0]], "beta": [1]}'}, "wrong-gamma"),
        ({"semantic": '{"library": "none such"}'}, "unknown-tag"),
        ({"semantic": '{"colour": "red"}'}, "bad-semantic"),
        ({"semantic": "no json"}, "not-json"),
        ({"limit": "0"}, "invalid-request"),
        ({"limit": "many"}, "invalid-request"),
        ({"page": "-1"}, "invalid-request"),
        ({"mixture": "magic"}, "invalid-request"),
    ],
)
def test_bad_searches_have_a_named_reason(served, files, error):
    parts = {name: (f"{name}.json" if name == "specification" else None, text) for name, text in files.items()}
    answer = served.client.post("/v1/search", files=parts)
    assert (answer.status_code, answer.json()["error"]) == (422, error)
    assert answer.json()["message"].endswith(".") or error == "invalid-request"


def test_unknown_addresses_answer_in_the_same_shape(served):
    for method, path, status in (
        ("GET", "/v1/none", 404),
        ("PATCH", "/v1/semantics", 405),
        ("GET", "/v1/learnwares/nobody", 404),
    ):
        answer = served.client.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"error", "message"}


def test_bodies_beyond_the_limit_are_refused_however_they_come(served):
    owner = served.headers["owner"]
    long = b"x" * (FREELY.max_body + 1)
    for content in (long, (long[i : i + 65_536] for i in range(0, len(long), 65_536))):
        answer = served.client.post("/v1/users", content=content, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (413, "oversize")
    too_long = b"x" * (FREELY.max_chunk + 1)
    answer = served.client.put(f"/v1/uploads/{'0' * 64}?offset=0", content=too_long, headers=owner)
    assert answer.status_code == 413


def test_tokens_that_were_revoked_open_nothing_more(served):
    made = served.client.post("/v1/tokens", json={"label": "laptop"}, headers=served.headers["foreign"]).json()
    mine = {"Authorization": f"Bearer {made['token']}"}
    assert served.client.get("/v1/users/me", headers=mine).json()["name"] == "bob"
    listed = served.client.get("/v1/tokens", headers=mine).json()
    assert made["id"] in {token["id"] for token in listed}
    assert made["token"] not in json.dumps(listed)
    assert served.client.delete(f"/v1/tokens/{made['id']}", headers=mine).status_code == 204
    assert served.client.get("/v1/users/me", headers=mine).json()["error"] == "revoked-token"


def test_a_browsers_cookie_needs_the_pages_token_to_change_something(served):
    from didact.web.security import CSRF_HEADER, SESSION_COOKIE, _signature

    secret = served.headers["foreign"]["Authorization"].removeprefix("Bearer ")
    session = {"Cookie": f"{SESSION_COOKIE}={secret}"}
    assert served.client.get("/v1/users/me", headers=session).json()["name"] == "bob"
    asked = {"label": "stolen"}
    for extra in ({}, {CSRF_HEADER: "guess"}, {CSRF_HEADER: _signature(secret), "Sec-Fetch-Site": "cross-site"}):
        answer = served.client.post("/v1/tokens", json=asked, headers={**session, **extra})
        assert (answer.status_code, answer.json()["error"]) == (403, "csrf")
    good = {**session, CSRF_HEADER: _signature(secret)}
    assert served.client.post("/v1/tokens", json=asked, headers=good).status_code == 201


def test_an_old_cookie_does_not_lock_out_of_what_is_public(served):
    from didact.web.security import SESSION_COOKIE

    old = served.headers["expired"]["Authorization"].removeprefix("Bearer ")
    session = {"Cookie": f"{SESSION_COOKIE}={old}"}
    assert served.client.get("/v1/learnwares", headers=session).status_code == 200
    assert served.client.get("/v1/users/me", headers=session).json()["error"] == "expired-token"


def test_requests_are_limited_for_each_user_and_for_each_address(tmp_path):
    slow = WebSettings(checker=False, requests_per_minute=1, burst=3, sign_ins_per_minute=1, sign_in_burst=2)
    served = serve(tmp_path, slow)

    def statuses(role: str, n: int) -> list[int]:
        return [served.client.get("/v1/semantics", headers=served.headers[role]).status_code for _ in range(n)]

    assert statuses("owner", 5) == [200, 200, 200, 429, 429]
    assert statuses("foreign", 4) == [200, 200, 200, 429]  # another user has a share of their own
    assert statuses("none", 4) == [200, 200, 200, 429]
    assert statuses("unknown", 1) == [429]  # invented tokens count for the address
    refused = served.client.get("/v1/semantics")
    assert refused.json()["error"] == "rate-limit"
    assert int(refused.headers["Retry-After"]) >= 1


def test_guessing_passwords_is_slow(tmp_path):
    slow = WebSettings(checker=False, requests_per_minute=1e6, burst=1000, sign_ins_per_minute=1, sign_in_burst=2)
    served = serve(tmp_path, slow)
    guess = {"name": "ann", "password": "guess"}
    assert [served.client.post("/v1/login", json=guess).status_code for _ in range(3)] == [401, 401, 429]


def test_nobody_registers_where_registration_is_closed(tmp_path):
    served = serve(tmp_path, registration="closed")
    answer = served.client.post("/v1/users", json={"name": "eve", "email": "e@example.org", "password": PASSWORD})
    assert (answer.status_code, answer.json()["error"]) == (403, "registration-closed")


def test_headers_that_protect_browsers(served):
    answer = served.client.get("/healthz")
    assert answer.json() == {"status": "ok"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


def test_an_error_of_the_servers_own_says_nothing_about_its_inside(served, monkeypatch):
    from starlette.testclient import TestClient

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(served.dock, "semantics", broken)
    answer = TestClient(served.client.app, raise_server_exceptions=False).get("/v1/semantics")
    assert (answer.status_code, answer.json()["error"]) == (500, "internal-error")
    assert "secret" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_last_admin_stays(served):
    id = served.users["admin"].id
    headers = served.headers["admin"]
    assert served.client.put(f"/v1/admin/users/{id}", json={"role": "user"}, headers=headers).status_code in (200, 409)
    assert any(user.is_admin for user in served.dock.accounts.users(by=served.users["admin"], limit=100).items)


def test_a_removed_user_leaves_the_learnwares_or_takes_them_along(tmp_path):
    served = serve(tmp_path)
    kept = served.submit("owner", usable=True).id
    gone = served.submit("foreign", usable=True).id
    admin = served.headers["admin"]
    for role, what in (("owner", "keep"), ("foreign", "delete")):
        path = f"/v1/admin/users/{served.users[role].id}"
        assert served.client.delete(path, params={"learnwares": what}, headers=admin).status_code == 204
    assert served.client.get(f"/v1/learnwares/{kept}").json()["owner"] == ""
    assert served.client.get(f"/v1/learnwares/{gone}").status_code == 404
    assert served.client.get("/v1/users/me", headers=served.headers["owner"]).status_code == 401

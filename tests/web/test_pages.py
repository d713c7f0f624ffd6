"""The dock's pages, by an HTTP client: what they show, to whom, and what their forms do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from served import PASSWORD, Served, package, semantic, serve, specification, table
from starlette.testclient import TestClient

from didact.reusing.dock.package import write_package
from didact.reusing.dock.specification import Specification
from didact.web.pages.drawing import HEIGHT, WIDTH, draw
from didact.web.pages.forms import local

PUBLIC = (
    "/",
    "/search",
    "/sign-in",
    "/register",
    "/digest",
    "/digest/confirm?key=x",
    "/digest/unsubscribe?key=x",
    "/board",
)
SIGNED_IN = ("/submit", "/mine", "/account")
ADMIN = ("/admin", "/admin/users", "/admin/learnwares", "/admin/queue", "/admin/events")


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return serve(tmp_path)


class Browser:
    """A client that keeps cookies and fills in the forms of pages."""

    def __init__(self, served: Served, name: str | None = None) -> None:
        self.http = TestClient(served.client.app, follow_redirects=False)
        if name:
            self.form("/sign-in", "/sign-in", name=name, password=PASSWORD)
            assert "didact_session" in self.http.cookies

    def get(self, path: str, **options: object):
        return self.http.get(path, **options)

    def form(self, page: str, action: str, files: dict | None = None, **fields: object):
        token = re.search(r'data-csrf="(\w+)"', self.http.get(page).text)[1]
        return self.http.post(action, data={"csrf": token, **fields}, files=files)


@pytest.fixture
def ann(served: Served) -> Browser:
    return Browser(served, "ann")


@pytest.fixture
def bob(served: Served) -> Browser:
    return Browser(served, "bob")


@pytest.fixture
def root(served: Served) -> Browser:
    token = served.dock.accounts.issue(served.users["admin"])
    browser = Browser(served)
    browser.http.cookies.set("didact_session", token.secret)
    return browser


def text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


# -- who may see what --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PUBLIC)
def test_public_pages_are_for_everybody(served, path):
    page = served.client.get(path)
    assert page.status_code == (404 if "confirm" in path else 200)
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", SIGNED_IN + ADMIN)
def test_visitors_are_asked_to_sign_in_and_brought_back(served, path):
    answer = Browser(served).get(path + "?page=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/sign-in?next={path}%3Fpage%3D1"
    assert Browser(served).get(path, headers={"Cookie": "didact_session=didact_wrong"}).status_code == 303


@pytest.mark.parametrize("path", ADMIN)
def test_admin_pages_are_for_admins(ann, root, path):
    refused = ann.get(path)
    assert refused.status_code == 403
    assert "This is not yours to do" in refused.text
    assert root.get(path).status_code == 200


@pytest.mark.parametrize("path", SIGNED_IN)
def test_users_see_their_pages(ann, path):
    assert ann.get(path).status_code == 200


def changing_routes() -> list[str]:
    """Every page's route that changes something, with numbers and names filled in."""
    from didact.web import pages

    found = []

    def walk(routes) -> None:
        for route in routes:
            inner = getattr(route, "original_router", None)
            if inner is not None:
                walk(inner.routes)
            elif "POST" in (getattr(route, "methods", None) or ()):
                found.append(re.sub(r"\{\w+\}", "1", route.path))

    walk(pages.router(None, None, None).routes)
    return sorted(set(found))


def test_the_list_of_changing_routes_is_whole():
    assert len(changing_routes()) >= 15
    assert {"/submit", "/account/delete", "/admin/users/1/role", "/learnwares/1/delete"} <= set(changing_routes())


@pytest.mark.parametrize("path", changing_routes())
def test_nothing_is_changed_without_the_pages_token(served, root, path):
    """An admin's browser, led by another site's form, does nothing. (Unsubscribing proves itself by its key.)"""
    if path == "/digest/unsubscribe":
        pytest.skip("mail programs have no page of ours")
    before = served.dock.accounts.users(by=served.users["admin"]).total
    for fields in ({}, {"csrf": "0" * 64}):
        answer = root.http.post(path, data={"role": "user", "name": "root", **fields})
        assert answer.status_code in (403, 422), path
        assert answer.status_code == 403 or "not as expected" in answer.text
    assert served.dock.accounts.users(by=served.users["admin"]).total == before


@pytest.mark.parametrize("path", changing_routes())
def test_visitors_change_nothing(served, path):
    if path.startswith(("/sign-", "/register", "/search", "/digest")):
        pytest.skip("made for visitors")
    answer = Browser(served).form("/", path, role="user", name="ann")
    assert answer.status_code == 401


def test_a_private_dock_shows_visitors_nothing(tmp_path):
    served = serve(tmp_path, public=False)
    info = served.submit(usable=True)
    visitor = Browser(served)
    for path in ("/", "/search", f"/learnwares/{info.id}", f"/learnwares/{info.id}/download"):
        assert visitor.get(path).status_code == 303
    assert info.semantic.name in Browser(served, "bob").get("/").text
    assert "token)" in unescape(Browser(served, "bob").get(f"/learnwares/{info.id}").text), "the snippet needs one too"


def test_every_page_keeps_browsers_from_running_anything_else(served):
    for path in (*PUBLIC, "/learnwares/none"):
        page = served.client.get(path)
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\ssrc=)", page.text), "no script in the page"
        assert not re.search(r"\s(on\w+|style)=", page.text), "no handler and no style in a tag"
        assert not re.search(r'(?:src|href|action)="(?:https?:)?//(?!arxiv|doi|github)', page.text), (
            "nothing from elsewhere"
        )


@pytest.mark.parametrize("name", ["style.css", "app.js", "icon.svg", "htmx.js"])
def test_files_are_served_with_their_type_and_a_tag(served, name):
    file = served.client.get(f"/static/{name}")
    assert file.status_code == 200
    assert file.headers["x-content-type-options"] == "nosniff"
    again = served.client.get(f"/static/{name}", headers={"If-None-Match": file.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("name", ["__init__.py", "..%2fapp.py", "nothing.css"])
def test_no_other_files_are_served(served, name):
    assert served.client.get(f"/static/{name}").status_code == 404


def test_pages_work_where_htmx_is_not_installed(served, monkeypatch):
    from didact.web import rendering

    monkeypatch.setattr(rendering, "has_htmx", lambda: False)
    info = served.submit()
    page = Browser(served, "ann").get(f"/learnwares/{info.id}").text
    assert "/static/htmx.js" not in page
    assert "Look again" in page


def test_errors_are_pages_for_people_and_json_for_programs(served):
    page = served.client.get("/learnwares/nothing")
    assert page.status_code == 404
    assert "no-learnware" in page.text
    assert page.headers["content-type"].startswith("text/html")
    assert served.client.get("/v1/learnwares/nothing").json()["error"] == "no-learnware"
    assert served.client.get("/no/such/page").headers["content-type"].startswith("text/html")


# -- browsing ----------------------------------------------------------------------------------------------------------


def test_browsing_shows_what_is_usable_newest_first(served):
    names = ["first", "second"]
    for name in names:
        served.submit(usable=True, name=name)
    served.submit(name="not checked")
    page = served.client.get("/").text
    assert page.index("second") < page.index("first")
    assert "not checked" not in page
    assert "2 learnwares" in text(page)


def test_filters_and_words(served):
    served.submit(usable=True, name="apples")
    served.submit(usable=True, name="pears")
    assert "apples" in served.client.get("/?text=apple").text
    assert "pears" not in served.client.get("/?text=apple").text
    assert "1 learnware" in text(served.client.get("/?text=appels").text), "roughly is near enough"
    assert "2 learnwares" in text(served.client.get("/?data=Table&scenario=Education").text)
    assert "Nothing here meets all of that" in served.client.get("/?data=Image").text
    page = served.client.get("/?data=Table").text
    assert '<option value="Table" selected>Table (2)</option>' in page
    assert served.client.get("/?data=Sculpture").status_code == 422


def test_htmx_gets_only_the_list(served):
    served.submit(usable=True, name="apples")
    part = served.client.get("/?text=apples", headers={"HX-Request": "true"})
    assert "apples" in part.text
    assert "<html" not in part.text
    back = served.client.get("/?text=apples", headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert "<html" in back.text


def test_long_lists_come_in_pages_and_keep_their_filters(served):
    for n in range(23):
        served.submit(usable=True, name=f"ware {n:02}")
    first, second = served.client.get("/?scenario=Education"), served.client.get("/?scenario=Education&page=2")
    assert "page 1 of 2" in text(first.text)
    assert "scenario=Education&amp;page=2" in first.text
    seen = re.findall(r"/learnwares/(\w+)", first.text) + re.findall(r"/learnwares/(\w+)", second.text)
    assert len(set(seen)) == 23
    assert len(set(re.findall(r"/learnwares/(\w+)", served.client.get("/?page=2").text))) == 3
    assert served.client.get("/?page=0").status_code == 422


def test_an_empty_dock_says_what_to_do(served):
    assert "Submit the first learnware" in served.client.get("/").text


def test_search_by_a_specification(served):
    near, far = served.submit(usable=True, name="near"), served.submit(usable=True, name="far", centre=3.0)
    content = json.dumps(specification(99).to_json())
    answer = Browser(served).form("/search", "/search", files={"specification": ("stat.json", content)})
    assert answer.status_code == 200
    assert f"/learnwares/{near.id}" in answer.text
    assert f"/learnwares/{far.id}" not in answer.text, "its score is too low"
    assert "score" in text(answer.text)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        "NaN",
        '{"type": "rkme-table"}',
        "[" * 100_000,
        '{"type":"rkme-table","gamma":1e999,"z":[[1]],"beta":[1]}',
    ],
)
def test_what_is_no_specification_is_refused_on_the_page(served, content):
    answer = Browser(served).form("/search", "/search", files={"specification": ("stat.json", content)})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text


# -- one learnware -----------------------------------------------------------------------------------------------------


def test_a_learnwares_page_tells_everything(served):
    info = served.submit(usable=True, name="sides of a line")
    page = served.client.get(f"/learnwares/{info.id}").text
    words = text(page)
    for part in ("sides of a line", "usable", "Tells which side a point is on.", "Tables, 4 columns", "2 classes",
                 "left, right", "MIT", "ann", info.id, info.sha256, "rkme-table", "judged by a test"):  # fmt: skip
        assert part in words, part
    assert page.count("<circle") == len(served.dock.specification(info.id).z)
    snippet = unescape(re.search(r'id="snippet"><code>(.*?)</code>', page, re.DOTALL)[1])
    assert len(snippet.splitlines()) == 3
    assert f'DockClient("http://testserver").download("{info.id}")' in snippet
    compile(snippet, "snippet", "exec")


def test_hostile_words_are_only_words(served):
    x, y = table()
    from sklearn.linear_model import LogisticRegression

    nasty = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    words = semantic(nasty[:200]).model_copy(update={"description": nasty})
    path = write_package(
        served.folder / "nasty.zip", LogisticRegression().fit(x, y), semantic=words,
        specification=specification(7), input_shape=(4,), output_shape=(2,),
    )  # fmt: skip
    info = served.dock.submit(path, served.users["owner"])
    served.judge(info.id)
    for address in ("/", f"/learnwares/{info.id}", "/feed.atom", f"/?text={nasty}"):
        page = served.client.get(address).text
        assert "<script>alert" not in page
        assert "<img" not in page


def test_what_is_not_usable_is_for_its_owner_and_admins(served, ann, bob, root):
    waiting = served.submit()
    useless = served.submit()
    served.judge(useless.id, usable=0)
    for info in (waiting, useless):
        for part in ("", "/download", "/status"):
            assert Browser(served).get(f"/learnwares/{info.id}{part}").status_code == 404
            assert bob.get(f"/learnwares/{info.id}{part}").status_code == 404
            assert ann.get(f"/learnwares/{info.id}{part}").status_code == 200
            assert root.get(f"/learnwares/{info.id}{part}").status_code == 200
    assert "not usable" in ann.get(f"/learnwares/{useless.id}").text
    assert 'id="snippet"' not in ann.get(f"/learnwares/{useless.id}").text


def test_the_status_is_looked_at_again_until_the_check_is_over(served, ann):
    info = served.submit()
    pending = ann.get(f"/learnwares/{info.id}/status")
    assert 'hx-trigger="every 1s"' in pending.text
    assert "hx-refresh" not in pending.headers
    served.judge(info.id)
    over = ann.get(f"/learnwares/{info.id}/status")
    assert "hx-trigger" not in over.text
    assert over.headers["hx-refresh"] == "true"
    assert "usable" in over.text


def test_a_download_is_the_package(served):
    info = served.submit(usable=True)
    answer = served.client.get(f"/learnwares/{info.id}/download")
    assert f'filename="{info.id}.zip"' in answer.headers["content-disposition"]
    assert len(answer.content) == info.size
    (served.folder / "again.zip").write_bytes(answer.content)
    assert "learnware.yaml" in zipfile.ZipFile(served.folder / "again.zip").namelist()


def test_owners_change_words_and_others_do_not(served, ann, bob):
    info = served.submit(usable=True, name="before")
    page = f"/learnwares/{info.id}/edit"
    fields = {
        "name": "after",
        "description": "d",
        "library": "ONNX",
        "licence": "MIT",
        "scenario": ["Health", "Nature"],
    }
    assert ann.form(page, page, **fields).headers["location"] == f"/learnwares/{info.id}"
    changed = served.dock.info(info.id).semantic
    assert (changed.name, changed.library, changed.scenario) == ("after", "ONNX", ("Health", "Nature"))
    assert changed.output == info.semantic.output
    assert bob.form("/", page, **{**fields, "name": "mine now"}).status_code == 403
    assert bob.get(page).status_code == 403
    assert "Change it" not in bob.get(f"/learnwares/{info.id}").text
    refused = ann.form(page, page, **{**fields, "name": " "})
    assert refused.status_code == 422
    assert 'role="alert"' in refused.text
    assert served.dock.info(info.id).semantic.name == "after"


def test_owners_check_again_and_delete(served, ann, bob):
    info = served.submit(usable=True)
    assert bob.form("/", f"/learnwares/{info.id}/recheck").status_code == 403
    assert bob.form("/", f"/learnwares/{info.id}/delete").status_code == 403
    assert ann.form("/", f"/learnwares/{info.id}/recheck").status_code == 303
    assert served.dock.info(info.id, served.users["owner"]).status in ("QUEUE", "WAITING")
    assert ann.form("/", f"/learnwares/{info.id}/recheck").status_code == 409
    assert "Delete" in ann.get(f"/learnwares/{info.id}/delete").text
    assert ann.form("/", f"/learnwares/{info.id}/delete").headers["location"] == "/mine"
    assert ann.get(f"/learnwares/{info.id}").status_code == 404


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_a_drawing_shows_the_main_directions_and_the_weights():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(40, 6)) * [9.0, 3.0, 0.1, 0.1, 0.1, 0.1]
    beta = rng.dirichlet(np.ones(40))
    drawn = draw(Specification("rkme-table", 0.1, "", z, beta))
    assert len(drawn.dots) == 40
    assert all(0 <= d.x <= WIDTH and 0 <= d.y <= HEIGHT for d in drawn.dots)
    assert sum(drawn.shares) > 0.95
    assert drawn.shares[0] > drawn.shares[1]
    across, along = np.array([d.x for d in drawn.dots]), z[np.argsort(-beta), 0]
    assert abs(np.corrcoef(across, along)[0, 1]) > 0.95, "the widest direction runs across"
    radii = [d.radius for d in drawn.dots]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] / radii[20] == pytest.approx(np.sqrt(drawn.dots[0].weight / drawn.dots[20].weight), rel=0.1)


def test_points_without_weight_do_not_turn_the_drawing():
    z = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1e6]])
    drawn = draw(Specification("rkme-table", 0.1, "", z, np.array([0.5, 0.5, 0.0])))
    assert len(drawn.dots) == 2
    assert abs(drawn.dots[0].x - drawn.dots[1].x) > WIDTH / 2, "the two others fill the picture"
    assert drawn.shares[0] == pytest.approx(1.0)


def test_points_of_little_weight_hardly_turn_the_drawing():
    z = np.array([[-5.0, 0.0], [5.0, 0.0], [0.0, 20.0]])
    drawn = draw(Specification("rkme-table", 0.1, "", z, np.array([0.495, 0.495, 0.01])))
    assert abs(drawn.dots[0].x - drawn.dots[1].x) > 2 * abs(drawn.dots[0].y - drawn.dots[1].y)
    assert drawn.shares[0] == pytest.approx(24.75 / (24.75 + 20**2 * 0.01 * 0.99), rel=0.01)


@pytest.mark.parametrize("z", [[[1.0]], [[1.0], [2.0]], [[3.0, 3.0], [3.0, 3.0]], [[1e90, 0.0], [-1e90, 5.0]]])
def test_odd_specifications_are_drawn_too(z):
    z = np.array(z)
    drawn = draw(Specification("rkme-table", 0.1, "", z, np.full(len(z), 1 / len(z))))
    assert all(np.isfinite([d.x, d.y, d.radius]).all() for d in drawn.dots)


# -- submitting --------------------------------------------------------------------------------------------------------


def test_a_package_is_submitted_without_javascript(served, ann):
    path = package(served.folder, "by form")
    with path.open("rb") as file:
        answer = ann.form("/submit", "/submit", files={"package": ("p.zip", file)})
    assert answer.status_code == 303
    page = ann.get(answer.headers["location"]).text
    assert "by form" in page
    assert "in the queue" in page
    assert "by form" in ann.get("/mine").text
    with path.open("rb") as file:
        again = ann.form("/submit", "/submit", files={"package": ("p.zip", file)})
    assert again.headers["location"] == answer.headers["location"], "the same package leads to the same page"


def test_bad_packages_are_refused_on_the_page(served, ann):
    for content in (b"", b"not a zip"):
        answer = ann.form("/submit", "/submit", files={"package": ("p.zip", content)})
        assert answer.status_code in (400, 422)
        assert 'role="alert"' in answer.text
    assert ann.form("/submit", "/submit").status_code == 400
    assert served.dock.list(mine=served.users["owner"]).total == 0


def test_somebody_elses_hidden_package_is_not_named(served, bob):
    path = package(served.folder)
    served.dock.submit(path, served.users["owner"])
    answer = bob.form("/submit", "/submit", files={"package": ("p.zip", path.read_bytes())})
    assert answer.status_code == 409
    assert "/learnwares/" not in answer.text


def test_a_package_beyond_the_limit_is_refused(tmp_path):
    served = serve(tmp_path, max_upload=1000)
    answer = Browser(served, "ann").form("/submit", "/submit", files={"package": ("p.zip", b"x" * 2000)})
    assert answer.status_code == 413


def test_my_learnwares_are_mine_in_every_state(served, ann, bob):
    served.submit(usable=True, name="done")
    served.submit(name="waiting there")
    served.dock.begin_upload(served.users["owner"], "0" * 64, 1000)
    mine = text(ann.get("/mine").text)
    assert "done" in mine
    assert "waiting there" in mine
    assert "1 upload not finished" in mine
    assert "waiting there" not in bob.get("/mine").text


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_registering_signs_in_and_leads_back(served):
    visitor = Browser(served)
    fields = {"name": "eve", "email": "eve@example.org", "password": PASSWORD, "next": "/submit"}
    answer = visitor.form("/register", "/register", **fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/submit")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie.replace("Lax", "lax")
    assert "eve" in visitor.get("/account").text
    again = Browser(served).form("/register", "/register", **fields)
    assert again.status_code == 409
    assert "taken" in again.text
    assert PASSWORD not in again.text


def test_a_closed_dock_registers_nobody(tmp_path):
    served = serve(tmp_path, registration="closed")
    visitor = Browser(served)
    assert "<form" not in visitor.get("/register").text
    answer = visitor.form("/register", "/register", name="eve", email="eve@example.org", password=PASSWORD)
    assert answer.status_code == 403


def test_signing_in_and_out(served):
    browser = Browser(served)
    wrong = browser.form("/sign-in", "/sign-in", name="ann", password="no")
    assert wrong.status_code == 401
    assert "wrong" in text(wrong.text)
    assert (
        browser.form("/sign-in", "/sign-in", name="ann", password=PASSWORD, next="/mine").headers["location"] == "/mine"
    )
    secret = browser.http.cookies["didact_session"]
    assert browser.get("/sign-in").status_code == 303
    assert browser.form("/account", "/sign-out").headers["location"] == "/"
    browser.http.cookies.set("didact_session", secret)
    assert browser.get("/mine").status_code == 303, "the token itself has ended, not only the cookie"


@pytest.mark.parametrize(
    "there", ["//evil.example", "https://evil.example", "/\\evil.example", "/\nx", "javascript:alert(1)", ""]
)
def test_signing_in_leads_nowhere_else(served, there):
    assert local(there) == "/"
    answer = Browser(served).form("/sign-in", "/sign-in", name="ann", password=PASSWORD, next=there)
    assert answer.headers["location"] == "/"
    assert local("/mine?page=2") == "/mine?page=2"


def test_tokens_are_shown_once_work_and_end(served, ann, bob):
    made = ann.form("/account", "/account/tokens", label="laptop", days="3")
    secret = re.search(r'id="secret"><code>(\S+?)</code>', made.text)[1]
    assert served.dock.accounts.verify(secret).name == "ann"
    page = ann.get("/account").text
    assert "laptop" in page
    assert secret not in page
    number = next(t.id for t in served.dock.accounts.tokens(served.users["owner"]) if t.label == "laptop")
    assert bob.form("/account", f"/account/tokens/{number}/revoke").status_code == 404
    assert ann.form("/account", f"/account/tokens/{number}/revoke").status_code == 303
    assert served.client.get("/v1/users/me", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    for days in ("many", "-1", "nan", "99999"):
        assert ann.form("/account", "/account/tokens", label="x", days=days).status_code == 422


def test_a_new_password_ends_all_tokens_but_not_the_visit(served, ann):
    other = served.headers["owner"]
    assert ann.form("/account", "/account/password", old="wrong", new="another password").status_code == 422
    assert served.client.get("/v1/users/me", headers=other).status_code == 200
    assert ann.form("/account", "/account/password", old=PASSWORD, new="another password").status_code == 303
    assert served.client.get("/v1/users/me", headers=other).status_code == 401
    assert ann.get("/account").status_code == 200


def test_leaving_needs_the_name_and_keeps_or_deletes(served, ann, bob):
    kept, gone = served.submit(usable=True), served.submit("foreign", usable=True)
    assert ann.form("/account", "/account/delete", name="someone").status_code == 422
    assert ann.form("/account", "/account/delete", name="ann", learnwares="keep").headers["location"] == "/"
    assert bob.form("/account", "/account/delete", name="bob", learnwares="delete").headers["location"] == "/"
    assert served.dock.info(kept.id).owner == ""
    assert served.client.get(f"/learnwares/{gone.id}").status_code == 404
    assert served.dock.accounts.find("ann") is None
    assert ann.get("/account").status_code == 303


# -- administrators ----------------------------------------------------------------------------------------------------


def test_admins_see_numbers_queue_and_events(served, root):
    served.submit(usable=True, name="done")
    served.submit(name="waiting there")
    assert "By state" in root.get("/admin").text
    assert "waiting there" in root.get("/admin/queue").text
    assert "done" not in root.get("/admin/queue").text
    assert "waiting there" in root.get("/admin/learnwares?status=QUEUE").text
    assert ">done<" not in root.get("/admin/learnwares?status=QUEUE").text
    assert "submit" in text(root.get("/admin/events").text)
    assert root.get("/admin/learnwares?status=LOST").status_code == 422


def test_admins_change_roles_and_remove_users(served, root):
    bob = served.users["foreign"]
    assert root.form("/admin/users", f"/admin/users/{bob.id}/role", role="admin").status_code == 303
    assert served.dock.accounts.user(bob.id).is_admin
    assert root.form("/admin/users", f"/admin/users/{bob.id}/role", role="king").status_code == 422
    assert "bob" in root.get(f"/admin/users/{bob.id}/delete").text
    assert root.form("/admin/users", f"/admin/users/{bob.id}/delete").status_code == 303
    assert served.dock.accounts.find("bob") is None
    last = served.users["admin"]
    refused = root.form("/admin/users", f"/admin/users/{last.id}/role", role="user")
    assert refused.status_code == 409
    assert "only admin" in refused.text
    assert root.get("/admin/users/999999999999/delete").status_code == 404


def test_users_cannot_do_what_admins_do(served, ann):
    bob = served.users["foreign"]
    assert ann.form("/", f"/admin/users/{bob.id}/role", role="admin").status_code == 403
    assert ann.form("/", f"/admin/users/{bob.id}/delete").status_code == 403
    assert not served.dock.accounts.user(bob.id).is_admin


def test_the_server_starts_without_the_heavy_libraries():
    code = (
        "import sys, didact.web.app; print([m for m in ('torch', 'pandas', 'sklearn', 'django') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

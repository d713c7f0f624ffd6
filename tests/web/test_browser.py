"""The pages in a real browser, with mouse and with keys, on a desk and on a phone.

Needs Chromium; `DIDACT_TEST_CHROMIUM` names another than the system's, `DIDACT_TEST_PICTURES` a folder for pictures.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from served import PASSWORD, Background, package, specification, table

from didact.reusing.dock.records import DockSettings
from didact.reusing.dock.service import Dock
from didact.web.app import create_app
from didact.web.settings import WebSettings

playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = os.environ.get("DIDACT_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = os.environ.get("DIDACT_TEST_PICTURES")
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Dock, Path]]:
    """A dock over real HTTP, with its checking queue, two checked learnwares and an account."""
    folder = tmp_path_factory.mktemp("browser")
    dock = Dock(DockSettings(folder=folder / "dock"))
    dock.accounts.register("ann", "ann@example.org", PASSWORD)
    settings = WebSettings(sign_ins_per_minute=1e6, sign_in_burst=10**6, requests_per_minute=1e6, burst=10**6)
    with Background(create_app(dock, str(folder / "ledger.sqlite"), settings=settings)) as url:
        for name in ("sides of a fence", "sides of a river"):
            dock.submit(package(folder, name))
        wait_until_checked(dock)
        yield url, dock, folder
    dock.close()


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def page(request: pytest.FixtureRequest, chromium, place) -> Iterator[object]:
    """A page that fails the test when a script breaks or the content policy forbids something."""
    scheme = "light" if request.param is DESK else "dark"
    context = chromium.new_context(viewport=request.param, color_scheme=scheme, base_url=place[0])
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(20_000)
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on(
        "console", lambda m: broken.append(m.text) if m.type == "error" and "Failed to load" not in m.text else None
    )
    page.on("request", lambda r: broken.append(r.url) if not r.url.startswith(place[0]) else None)
    yield page
    context.close()
    assert broken == [], "a script broke, or something was asked of another site"


def wait_until_checked(dock: Dock) -> None:
    import time

    deadline = time.monotonic() + 180
    while set(dock.summary()["status"]) - {"SUCCESS", "FAIL"} and time.monotonic() < deadline:
        time.sleep(0.2)


def sign_in(page: object) -> None:
    page.goto("/sign-in")
    page.get_by_label("Name").fill("ann")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


def fits(page: object, name: str) -> None:
    """Nothing sticks out at the side; a picture is kept when asked for."""
    page.wait_for_load_state()
    wide, window = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window, f"{page.url} is {wide} wide in a window of {window}"
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{PICTURES}/{name}-{window}.png", full_page=True)


def tab_to(page: object, wanted: str, most: int = 60) -> None:
    """Press Tab until the element of this accessible text or id has the focus, and can be seen to have it."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return [e.id, (e.innerText || e.value || '').trim(), s.outlineStyle]; })()"
        )
        if wanted in focus[:2]:
            assert focus[2] != "none", f"the focus on {wanted!r} cannot be seen"
            return
    raise AssertionError(f"Tab never reached {wanted!r}")


def test_browse_and_search(page, place):
    page.goto("/")
    page.get_by_role("link", name="sides of a river").wait_for()
    fits(page, "browse")
    page.get_by_label("Name or description").press_sequentially("fence")
    page.wait_for_url(re.compile(r"text=fence"))  # without a click: the list follows the words
    page.get_by_role("link", name="sides of a river").wait_for(state="detached")
    assert page.get_by_role("status").inner_text() == "1 learnware"
    page.get_by_label("Data").select_option("Image")
    page.get_by_text("Nothing here meets all of that").wait_for()
    page.go_back()
    page.get_by_role("link", name="sides of a fence").click()
    page.get_by_role("heading", name="sides of a fence").wait_for()
    page.get_by_role("img", name=re.compile("weighted points")).wait_for()
    fits(page, "learnware")


def test_search_by_data(page, place):
    _, _, folder = place
    specification(99).save(folder / "stat.json")
    page.goto("/search")
    page.get_by_label("Specification").set_input_files(folder / "stat.json")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("heading", name=re.compile("near your data")).wait_for()
    assert page.get_by_role("link", name=re.compile("sides of")).count() >= 1
    fits(page, "search-by-data")


def test_submit_watch_the_check_and_reuse_the_snippet(page, place, tmp_path):
    _, dock, _ = place
    name = f"sides of the road, {page.viewport_size['width']}"
    path = package(tmp_path, name)
    sign_in(page)
    page.goto("/submit")
    fits(page, "submit")
    page.get_by_label("Package", exact=True).set_input_files(path)
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("heading", name=name).wait_for()
    assert dock.info(page.url.rsplit("/", 1)[1], dock.accounts.find("ann")).size == path.stat().st_size
    fits(page, "pending")
    # Nobody touches the page: it follows the check, and shows the snippet when it is over.
    page.locator("#snippet").wait_for(timeout=120_000)
    assert page.locator(".state").first.inner_text() == "usable"
    fits(page, "usable")

    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    snippet = page.evaluate("navigator.clipboard.readText()")
    assert snippet == page.locator("#snippet").inner_text().strip()
    x, y = table(seed=12345)
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    script = "\n".join(
        [
            "import sys, numpy as np",
            "x = np.load(sys.argv[1])['x']",
            snippet,
            "np.save(sys.argv[2], predictions)",
        ]
    )
    files = [str(tmp_path / "x.npz"), str(tmp_path / "y.npy")]
    environment = {**os.environ, "DIDACT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", script, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    predictions = np.load(tmp_path / "y.npy")
    assert predictions.shape == (40, 2)
    assert (predictions.argmax(1) == y).mean() > 0.8


def test_all_by_keyboard(page, place, tmp_path):
    """Sign in, submit, watch, copy: not one click."""
    name = f"keys only, {page.viewport_size['width']}"
    path = package(tmp_path, name)
    page.on("filechooser", lambda chooser: None)  # from now on choosers are given to us and not drawn
    page.goto("/submit")
    page.wait_for_url("**/sign-in?next=/submit")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip", "the first stop leads past the navigation"
    page.keyboard.press("Enter")
    tab_to(page, "name")
    page.keyboard.type("ann")
    tab_to(page, "password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/submit")
    page.get_by_role("heading", name="Make a package").wait_for()
    tab_to(page, "package")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(path)
    tab_to(page, "Submit")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=name).wait_for()
    page.locator("#snippet").wait_for(timeout=120_000)
    tab_to(page, "Copy")
    page.keyboard.press("Space")
    page.get_by_role("button", name="Copied").wait_for()
    assert "load_package" in page.evaluate("navigator.clipboard.readText()")
    page.goto("/")
    tab_to(page, "text")
    page.keyboard.type("keys only")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("keys"))
    tab_to(page, name)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=name).wait_for()


def test_an_upload_shows_how_far_it_is_and_goes_on_after_a_break(page, place, tmp_path):
    """The connection breaks in the middle of a large package; the page goes on where it stopped."""
    sign_in(page)
    big = tmp_path / "big.zip"
    rng = np.random.default_rng(page.viewport_size["width"])
    big.write_bytes(rng.bytes(11 * 2**20))  # not a package: it is refused, but only when all of it is there
    offsets: list[str] = []

    def interrupt(route: object) -> None:
        offsets.append(route.request.url.rsplit("=", 1)[1])
        if len(offsets) == 2:
            route.abort()
        else:
            route.continue_()

    page.route("**/v1/uploads/*", interrupt)
    page.goto("/submit")
    page.get_by_label("Package", exact=True).set_input_files(big)
    page.evaluate(
        "window.seen = []; new MutationObserver(() => seen.push(document.getElementById('progress-label').textContent))"
        ".observe(document.getElementById('progress-label'), {childList: true})"
    )
    page.get_by_role("button", name="Submit").click()
    alert = page.locator("#alert:not([hidden])")
    alert.wait_for()
    assert "zip" in alert.inner_text()
    piece = str(4 * 2**20)
    assert offsets == ["0", piece, piece, str(8 * 2**20)], "one piece again, none twice"
    seen = page.evaluate("seen")
    assert any("Connection lost" in text for text in seen)
    assert seen[-1] == "Sending 100 %"
    assert page.get_by_role("button", name="Submit").is_enabled(), "one may try another file"
    fits(page, "refused")


def test_without_javascript_everything_is_there(chromium, place, tmp_path):
    context = chromium.new_context(java_script_enabled=False, base_url=place[0])
    page = context.new_page()
    sign_in(page)
    page.goto("/submit")
    page.get_by_label("Package", exact=True).set_input_files(package(tmp_path, "no scripts"))
    page.get_by_role("button", name="Submit").click()
    page.get_by_role("heading", name="no scripts").wait_for()
    page.goto("/")
    page.get_by_label("Name or description").fill("river")
    page.get_by_role("button", name="Search").click()
    assert page.get_by_role("link", name="sides of a river").count() == 1
    page.goto("/board/search")
    page.get_by_role("searchbox").fill("forget without labels")
    page.get_by_role("button", name="Search").click()
    assert page.get_by_role("link", name="laf", exact=True).count() == 1
    context.close()


def test_the_board(page, place):
    page.goto("/board")
    fits(page, "board")
    page.get_by_role("link", name="Forgetting", exact=True).click()
    page.get_by_role("heading", name="Baselines").wait_for()
    fits(page, "family")
    page.get_by_role("link", name="ssd", exact=True).first.click()
    page.get_by_role("heading", name="Claim").wait_for()
    fits(page, "method")
    page.goto("/board/search")
    page.get_by_role("searchbox").press_sequentially("forget without labels")
    page.wait_for_url(re.compile("q=forget"))
    page.get_by_role("link", name="laf", exact=True).wait_for()
    fits(page, "board-search")


ACCESSIBLE = """() => {
  const wrong = [];
  const shown = (e) => e.getClientRects().length > 0;
  for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea'))
    if (shown(e) && !e.labels.length && !e.ariaLabel) wrong.push('no label: ' + e.outerHTML);
  for (const e of document.querySelectorAll('button, a'))
    if (shown(e) && !(e.ariaLabel || e.textContent).trim()) wrong.push('no text: ' + e.outerHTML);
  if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
  if (document.querySelectorAll('main').length !== 1) wrong.push('not one main');
  let level = 0;
  for (const e of document.querySelectorAll('h1, h2, h3, h4')) {
    if (+e.tagName[1] > level + 1) wrong.push('heading skips a level: ' + e.textContent);
    level = +e.tagName[1];
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => wrong.push('id twice: ' + id));
  for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby]'))
    for (const name of ['aria-labelledby', 'aria-describedby'])
      for (const id of (e.getAttribute(name) || '').split(' ').filter(Boolean))
        if (!document.getElementById(id)) wrong.push('names nothing: ' + id);
  for (const e of document.querySelectorAll('svg'))
    if (e.getAttribute('aria-hidden') !== 'true' && !e.getAttribute('aria-label')) wrong.push('drawing without words');
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const ground = (e) => { for (; e; e = e.parentElement) {
    const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const e = node.parentElement;
    if (!node.textContent.trim() || !shown(e) || e.closest('.skip, svg, [disabled], noscript, option')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push('low contrast: ' + node.textContent.trim().slice(0, 40));
  }
  return [...new Set(wrong)];
}"""


@pytest.mark.parametrize(
    "path", ["/", "/search", "/submit", "/mine", "/account", "/digest", "/board", "/board/families/forgetting",
             "/board/methods/ssd", "/board/search?q=forget", "/board/newest", "/register", "/learnwares/none"],
)  # fmt: skip
def test_labels_headings_and_contrast(page, place, path):
    if path != "/register":
        sign_in(page)
    page.goto(path)
    assert page.evaluate(ACCESSIBLE) == []
    fits(page, "page" + re.sub(r"\W+", "-", path))


def test_a_learnwares_page_is_accessible(page, place):
    page.goto("/")
    page.get_by_role("link", name="sides of a river").click()
    page.get_by_role("heading", name="Specification").wait_for()
    assert page.evaluate(ACCESSIBLE) == []


def test_the_page_hashes_as_the_standard_does(page, place):
    """The script's own SHA-256, at the lengths where padding changes."""
    import hashlib

    page.goto("/submit")
    page.goto("/board")
    for size in (0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 4 * 2**20, 4 * 2**20 + 57):
        wanted = hashlib.sha256(bytes(i % 251 for i in range(size))).hexdigest()
        found = page.evaluate(
            "async (size) => hash(new Blob([Uint8Array.from({length: size}, (_, i) => i % 251)]), () => {})", size
        )
        assert found == wanted, size

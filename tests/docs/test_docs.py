"""The site: it builds strictly, leads nowhere into the void, and loads nothing from the network."""

from __future__ import annotations

import importlib.util
import inspect
import os
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from didact.core import registry
from didact.core.references import import_file

pytest.importorskip("material", reason="the docs extra is not installed")

ROOT = Path(__file__).parents[2]
EXAMPLES = ("own_convnet.py", "own_text_classifier.py", "own_language_model.py")
#: attributes by which a page makes the browser fetch something
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "video": "src"}
#: links that are addresses, not files to fetch
NOT_FETCHED = {"canonical", "next", "prev", "alternate"}


class Page(HTMLParser):
    """Links, loaded files and anchors of a page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file, self.links, self.loads, self.anchors = file, [], [], set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOADING and LOADING[tag] in found and found.get("rel") not in NOT_FETCHED:
            self.loads.append(found[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A warning of mkdocs fails the build."""
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file.resolve(): Page(file) for file in site.rglob("*.html")}


def test_every_method_has_a_page(site: Path) -> None:
    for cls in registry.methods():
        page = site / "methods" / f"{cls.card.slug}.html"
        if cls.__module__.startswith("didact."):
            assert page.is_file(), f"{cls.card.slug} has no page"
            shown = page.read_text(encoding="utf-8")
            for parameter in cls.hyperparameters():
                assert parameter.name in shown, f"{parameter.name} is missing from the page of {cls.card.slug}"


def test_every_claim_is_in_the_table(site: Path) -> None:
    shown = Page(site / "claims.html").anchors
    assert {cls.card.slug for cls in registry.methods() if cls.claim and cls.__module__.startswith("didact.")} <= shown


def test_every_relative_link_resolves(pages: dict[Path, Page]) -> None:
    broken = []
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            # The page for a missing address is served from anywhere, so its links begin at the root.
            start = next(f for f in pages if f.name == "index.html").parent if link.startswith("/") else file.parent
            target = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                broken.append(f"{file.name}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{file.name}: {link} (no such anchor)")
    assert not broken, "\n".join(broken)


def test_nothing_is_loaded_from_the_network(pages: dict[Path, Page], site: Path) -> None:
    outside = [f"{f.name}: {load}" for f, page in pages.items() for load in page.loads if urlsplit(load).netloc]
    assert not outside, "\n".join(outside)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert "url(http" not in text, f"{sheet.name} loads from the network"
        assert "url(//" not in text, f"{sheet.name} loads from the network"
        assert "@import" not in text, f"{sheet.name} loads another sheet"


def test_no_placeholder_and_no_path_of_a_machine_is_left(pages: dict[Path, Page]) -> None:
    for file in pages:
        text = file.read_text(encoding="utf-8")
        places = (str(ROOT), str(Path.home()), tempfile.gettempdir() + "/")
        for word in ("CONVTABLE", "TEXTTABLE", "MORETABLE", "MORECLAIM", *places):
            assert word not in text, f"{file.name} shows {word}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_can_be_imported_and_makes_a_problem(name: str) -> None:
    module = import_file(ROOT / "examples" / name)
    parameters = inspect.signature(module.make).parameters
    assert parameters["seed"].default == 0
    builder, options = registry.find_problem(f"{ROOT / 'examples' / name}:make:epochs=1")
    assert options == {"epochs": 1}
    assert callable(builder.build)


def test_the_example_package_passes_its_own_tests() -> None:
    # In a process of its own: importing the package registers its method.
    package = ROOT / "examples" / "didact_more"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package / "tests")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(package / "src")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "plain, markdown",
    [
        ("a `stored_importance` and a_b", r"a `stored_importance` and a\_b"),
        ("2 * x < y & z", r"2 \* x &lt; y &amp; z"),
        ("see [1]", r"see \[1\]"),
    ],
)
def test_plain_text_stays_as_it_is(plain: str, markdown: str) -> None:
    assert _hooks().text(plain) == markdown


def test_labelled_lines_of_a_docstring_become_paragraphs() -> None:
    made = _hooks().docstring("First line.\n\nMore.\nErrors: none.\nCost: one pass.\n")
    assert made.split("\n\n") == ["First line.", "More.", "**Errors.** none.", "**Cost.** one pass."]


@pytest.mark.parametrize(
    "hint, shown",
    [
        ("float", "float"),
        ("Union[float, Literal['auto']]", "float | 'auto'"),
        ("Optional[Literal['a', 'b']]", "'a' | 'b' | None"),
        ("dict[str, int]", "dict[str, int]"),
    ],
)
def test_types_are_written_as_people_write_them(hint: str, shown: str) -> None:
    assert _hooks().kind_of(hint) == shown


def test_tables_survive_pipes() -> None:
    assert "|" not in _hooks().cell("a | b and `c | d`")
    assert "|" not in _hooks().code("float | None")


def _hooks():
    spec = importlib.util.spec_from_file_location("didact_docs_hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_table_is_that_of_the_results() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/tables.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

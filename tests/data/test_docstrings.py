"""Docstrings of installed packages, on a small package made for the test and on a real one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from didact.core.cache import write_whole
from didact.core.errors import BadInput
from didact.data import docstrings

SOURCE = '''"""The module of the made package, with some words to read."""
import nonexistent_dependency
raise RuntimeError("reading must not run this")

def area(width: float, height: float = 1.0) -> float:
    """Return the area of a rectangle. It is width times height.

    More about made area here.
    """

def twin(a):
    """Return   the AREA of a rectangle. It is width times height.

    More about made area here."""

def _hidden():
    """Nobody should ever read this private text of many words."""

class Shape:
    """A shape in the plane that knows its own size exactly."""

    def grow(self, by, *, twice=False):
        """Make the shape larger by the factor that is given."""

    def tiny(self):
        """Too short."""

try:
    import fast
except ImportError:
    def slow():
        """Do the work slowly because the fast way is missing."""
'''


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A package that fails when imported, on the path; returns its folder."""
    name = f"made_{abs(hash(str(tmp_path))) % 10**9}"
    folder = tmp_path / name
    (folder / "tests").mkdir(parents=True)
    (folder / "sub").mkdir()
    (folder / "__init__.py").write_text(SOURCE)
    (folder / "sub" / "_deep.py").write_text(
        'def deep():\n    r"""A text of a deep module \\d with enough words in it."""\n'
    )
    (folder / "tests" / "test_x.py").write_text('"""A test module is left out, however many words it has."""\n')
    (folder / "broken.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    importlib.invalidate_caches()
    return folder


def test_labels_are_right(made):
    name = made.name
    found = {(d.module, d.name): d for d in docstrings((name,), deduplicate=False)}
    assert {key: d.kind for key, d in found.items()} == {
        (name, ""): "module",
        (name, "area"): "function",
        (name, "twin"): "function",
        (name, "Shape"): "class",
        (name, "Shape.grow"): "method",
        (name, "slow"): "function",
        (f"{name}.sub._deep", "deep"): "function",
    }
    area = found[name, "area"]
    assert area.signature == "(width: float, height: float=1.0) -> float"
    assert found[name, "Shape.grow"].signature == "(self, by, *, twice=False)"
    assert area.package == name
    assert area.summary == "Return the area of a rectangle."
    assert area.body == "It is width times height.\n\nMore about made area here."
    assert found[f"{name}.sub._deep", "deep"].area == f"{name}.sub"
    assert "\\d" in found[f"{name}.sub._deep", "deep"].text
    assert name not in sys.modules


def test_equal_texts_share_a_group_and_are_given_once(made):
    every = docstrings((made.name,), deduplicate=False)
    twins = [d for d in every if d.name in ("area", "twin")]
    assert twins[0].group == twins[1].group
    once = docstrings((made.name,))
    assert [d.name for d in every if d not in once] == ["twin"]
    assert len({d.group for d in once}) == len(once)


def test_masking_hides_the_names(made):
    area = next(d for d in docstrings((made.name,)) if d.name == "area")
    assert area.masked("#") == area.text.replace("area", "#")
    deep = next(d for d in docstrings((made.name,)) if d.name == "deep")
    assert deep.masked("#") == "A text of a # module \\d with enough words in it."


def test_order_limit_and_seed(made):
    plain = docstrings((made.name,))
    assert plain == docstrings((made.name,))
    assert docstrings((made.name,), limit=3) == plain[:3]
    mixed = docstrings((made.name,), seed=1)
    assert mixed == docstrings((made.name,), seed=1) != plain
    assert sorted(d.name for d in mixed) == sorted(d.name for d in plain)
    assert all(len(d.text.split()) >= 12 for d in docstrings((made.name,), min_words=12))


def test_a_limit_is_shared_among_packages(made):
    both = docstrings((made.name, "filelock"), limit=8, seed=0)
    assert [sum(d.package == name for d in both) for name in (made.name, "filelock")] == [4, 4]
    small = docstrings((made.name, "filelock"), limit=30)
    assert sum(d.package == made.name for d in small) == len(docstrings((made.name,))) == 6
    assert len(small) == 30


def test_a_changed_package_is_read_again_and_an_unchanged_one_is_not(made):
    before = docstrings((made.name,))
    store = next((made.parent / "cache" / "docstrings").glob("*.jsonl"))
    record = json.loads(store.read_text(encoding="utf-8").splitlines()[0])
    write_whole(store, [json.dumps({**record, "text": "only this text is in the cache now, as it is read"})])
    assert [d.text[:9] for d in docstrings((made.name,))] == ["only this"]
    (made / "new.py").write_text('"""A new module appears with quite a few words in it."""\n')
    assert len(docstrings((made.name,))) == len(before) + 1


def test_two_processes_build_the_cache_at_once(made):
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1])\n"
        "from didact.data import docstrings\n"
        "found = docstrings((sys.argv[2], 'filelock', 'platformdirs', 'hypothesis'))\n"
        "sys.stdout.write(hashlib.sha256(repr(found).encode()).hexdigest())\n"
    )
    command = [sys.executable, "-c", code, str(made.parent), made.name]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) for _ in range(3)]
    results = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(results) == 1
    files = [path.name for path in (made.parent / "cache" / "docstrings").iterdir()]
    assert not [name for name in files if name.endswith(".part")]
    assert sum(name.endswith(".jsonl") for name in files) == 4


def test_who_comes_second_waits_instead_of_reading_again(made, monkeypatch):
    module = sys.modules["didact.data.docstrings"]
    extract, calls = module._extract, []

    def slow(*arguments):
        calls.append(arguments)
        time.sleep(0.3)
        return extract(*arguments)

    monkeypatch.setattr(module, "_extract", slow)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(docstrings, [(made.name,)] * 3))
    assert found[0] == found[1] == found[2] != []
    assert len(calls) == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_whole(path, ["old"])

    def lines():
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, lines())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_real_package_reads_right(made):
    import filelock

    found = {d.name: d for d in docstrings(("filelock",), deduplicate=False)}
    lock = found["BaseFileLock.acquire"]
    assert lock.kind == "method"
    assert lock.text == __import__("inspect").getdoc(filelock.BaseFileLock.acquire)
    assert Path(filelock.__file__).parent.name == lock.package


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        (("no_such_package",), "'no_such_package' is not installed"),
        (("numpy.linalg",), "no package name"),
        (("this",), "single module"),
        ((), "At least one package"),
    ],
)
def test_bad_packages_are_named(packages, message):
    with pytest.raises(BadInput, match=message):
        docstrings(packages)

"""`didact dock search --columns`: tables with other columns, by the names in a file's header."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from didact.cli.dock.use import Words, run_search
from didact.core.errors import BadInput
from didact.reusing.dock import LocalDock, specify, write_package
from didact.reusing.dock.checking import CheckReport

ANYTHING = Words(None, None, None, (), None)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dock with two tables of three columns, and a user's files with two."""
    folder = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    with LocalDock(folder / "dock", check=lambda path: CheckReport(1, "", "", (3,), (2,))) as dock:
        for i in range(2):
            x = rng.normal(i, 1.0, (30, 3))
            semantic = {
                "name": f"table {i}",
                "data": "Table",
                "task": "Classification",
                "library": "scikit-learn",
                "input": {"dimension": 3, "description": {0: "age", 1: "height", 2: "weight"}},
                "output": {"dimension": 2},
            }
            model = LogisticRegression().fit(x, x[:, 0] > i)
            packed = write_package(
                folder / f"{i}.zip", model, semantic=semantic, specification=specify(x, k=5), input_shape=(3,)
            )
            dock.submit(packed)
    mine = rng.normal(0.0, 1.0, (30, 2))
    rows = "\n".join(f"{a},{b}" for a, b in mine)
    (folder / "mine.csv").write_text(f"age,weight\n{rows}\n")
    np.savez(folder / "mine.npz", x=mine)
    specify(mine, k=5).save(folder / "mine.json")
    (folder / "columns.json").write_text(json.dumps({"0": "age", "1": "weight"}))
    return folder


def search(home, file, columns, across=False, as_json=True):
    where = None if file is None else home / file
    return run_search(
        where, ANYTHING, str(home / "dock"), None, None, None, None, 20, 1, "greedy", columns, across, 0, as_json
    )


def test_columns_by_header_or_file(home, capsys):
    answers = []
    for file, columns in (
        ("mine.csv", "header"),
        ("mine.csv", str(home / "columns.json")),
        ("mine.npz", str(home / "columns.json")),
        ("mine.json", str(home / "columns.json")),
    ):
        assert search(home, file, columns) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert [answer["searched"] for answer in answers] == ["heterogeneous"] * 4
    assert answers[0] == answers[1]
    assert search(home, "mine.csv", "header", as_json=False) == 0
    assert "among tables with other columns" in capsys.readouterr().out


@pytest.mark.parametrize(
    "file, columns, across",
    [("mine.csv", None, False), ("mine.npz", "header", False), (None, "header", False), ("mine.csv", None, True)],
)
def test_what_cannot_be_searched_is_refused(home, file, columns, across):
    with pytest.raises(BadInput):
        search(home, file, columns, across)

"""`didact dock` as people run it: processes of their own, judged by exit code and output."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from didact.cli.dock.data import read_data
from didact.core.errors import BadInput

DIGITS = {"low": "01234", "high": "56789"}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Models, data files and words of a person with digits."""
    folder = tmp_path_factory.mktemp("home")
    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    for name, digits in DIGITS.items():
        mine = np.isin(y, [int(digit) for digit in digits])
        half = np.arange(len(y)) % 2 == 0
        np.savez(folder / f"{name}.npz", x=x[mine & half], y=y[mine & half])
        np.savez(folder / f"{name}-mine.npz", x=x[mine & ~half], y=y[mine & ~half])
        np.savez(folder / f"{name}-few.npz", x=x[mine & ~half][:40], y=y[mine & ~half][:40])
        model = LogisticRegression(max_iter=1000).fit(x[mine & half], y[mine & half])
        skops.io.dump(model, folder / f"{name}.skops")
        words = {
            "name": f"the {name} digits",
            "data": "Table",
            "task": "Classification",
            "library": "scikit-learn",
            "input": {"dimension": 64},
            "output": {"dimension": 5, "description": {str(i): digit for i, digit in enumerate(digits)}},
        }
        (folder / f"{name}.json").write_text(json.dumps(words))
    return folder


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIDACT_DOCK")}
    return {**kept, "DIDACT_CACHE": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}


def dock(home: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "didact.cli", "dock", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=home,
        env=environment(home),
        timeout=300,
    )
    assert done.returncode == code, done.stderr + done.stdout
    return done


def answer(home: Path, *arguments: object, code: int = 0):
    return json.loads(dock(home, *arguments, "--json", code=code).stdout)


def pack(home: Path, name: str, out: Path) -> Path:
    done = answer(home, "pack", f"{name}.skops", "--semantic", f"{name}.json", "--data", f"{name}.npz", "--out", out)
    assert done["bytes"] == out.stat().st_size
    return out


def test_a_dock_in_a_folder(home, tmp_path):
    folder = tmp_path / "dock"
    where = ("--url", folder)
    packages = [pack(home, name, tmp_path / f"{name}.zip") for name in DIGITS]
    low, high = answer(home, "submit", *packages, *where)
    assert [low["status"], high["status"]] == ["SUCCESS", "SUCCESS"]
    found = answer(home, "search", "high-mine.npz", *where)
    assert found["single"][0]["learnware"]["id"] == high["id"]
    assert found["bytes_sent"] == 0
    assert low["id"] in dock(home, "search", "--text", "the low digits", *where).stdout
    listed = dock(home, "status", *where).stdout
    assert all(info["id"] in listed for info in (low, high))
    assert answer(home, "status", low["id"], "--log", *where)["log"]
    made = answer(
        home, "reuse", "high-mine.npz", "--labelled", "high-few.npz", "--classes", "5,6,7,8,9",
        "--out", tmp_path / "out", *where,
    )  # fmt: skip
    assert high["id"] in made["weights"]
    predicted = np.load(tmp_path / "out" / "predictions.npz")
    guessed = predicted["classes"][predicted["scores"].argmax(1)].astype(int)
    assert (guessed == np.load(home / "high-mine.npz")["y"]).mean() > 0.85
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert lines[0] == "prediction,5,6,7,8,9"
    assert [line.split(",")[0] for line in lines[1:]] == [str(name) for name in guessed]
    fetched = answer(home, "download", low["id"], "--to", tmp_path / "copy.zip", *where)
    assert Path(fetched["package"]).read_bytes() == packages[0].read_bytes()
    answer(home, "delete", low["id"], *where)
    assert "no learnware" in dock(home, "status", low["id"], *where, code=2).stderr


def test_a_dock_that_is_served(home, tmp_path):
    command = ["serve", "--folder", tmp_path / "dock", "--port", 0, "--admin", "root", "--json"]
    server = subprocess.Popen(
        [sys.executable, "-m", "didact.cli", "dock", *map(str, command)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(home),
    )
    try:
        begun = json.loads(server.stdout.readline())
        where = ("--url", begun["url"])
        package = pack(home, "low", tmp_path / "low.zip")
        refused = dock(home, "submit", package, *where, code=2)
        assert "didact: " in refused.stderr
        assert "Traceback" not in refused.stderr
        answer(home, "register", "ann", "--email", "a@example.org", "--password", "correct horse", *where)
        (info,) = answer(home, "submit", package, *where)  # with the token that was kept
        assert info["status"] == "SUCCESS"
        kept = home / "config" / "didact" / "dock-tokens.json"
        assert kept.stat().st_mode & 0o077 == 0
        found = answer(home, "search", "low-mine.npz", *where)
        assert found["single"][0]["learnware"]["id"] == info["id"]
        assert found["bytes_sent"] > 0
        answer(home, "login", "root", "--password", begun["password"], *where)
        made = answer(home, "token", "--label", "machine", *where)["token"]
        assert made not in kept.read_text()
        assert answer(home, "status", *where, "--token", made) == []
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0


def test_checking_in_a_process_of_its_own(home, tmp_path):
    from didact.reusing.dock import Dock, DockSettings

    opened = Dock(DockSettings(folder=tmp_path / "dock"))
    id = opened.submit(pack(home, "low", tmp_path / "low.zip")).id
    assert answer(home, "check", "--folder", tmp_path / "dock", "--once") == {"checked": 1}
    assert opened.info(id).usable == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["search", "low.npz"], "--url"),
        (["search", "nothing.npz", "--url", "a-dock"], "no file"),
        (["search", "low.skops", "--url", "a-dock"], "can be read"),
        (["search", "--task", "Divination", "--url", "a-dock"], "task"),
        (["login", "ann", "--password", "x", "--url", "a-dock"], "no accounts"),
        (["search", "low.npz", "--url", "http://127.0.0.1:9"], "does not answer"),
        (
            ["pack", "low.npz", "--semantic", "low.json", "--data", "low.npz", "--out", "x.zip"],
            "Pickles are never read",
        ),
        (["reuse", "low.npz", "--labelled", "low.npz", "--target", "z", "--out", "o", "--url", "a-dock"], "array 'z'"),
        (["digest", "--folder", "a-dock"], "DIDACT_SMTP_HOST"),
        (["serve", "--folder", "a-dock", "--host", "192.0.2.1", "--port", "1"], "--port"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_wrong_calls_get_a_sentence(home, arguments, said):
    done = dock(home, *arguments, code=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_labels_of_a_table_may_be_names(tmp_path):
    file = tmp_path / "few.csv"
    file.write_text("a,b,kind\n1,2,red\n3,4,white\n")
    found = read_data(file, "kind", labels=True)
    assert found.labels.tolist() == ["red", "white"]
    assert found.labels.dtype.kind == "U"
    file.write_text("a,b,kind\n1,2,0\n3,4,1\n")
    assert read_data(file, "kind", labels=True).labels.tolist() == [0, 1]
    file.write_text("a,b,kind\n1,2,red\n3,4,\n")
    with pytest.raises(BadInput, match="1 rows without a label"):
        read_data(file, "kind", labels=True)


def test_help_imports_nothing_heavy():
    script = (
        "import sys; sys.argv = ['didact', 'dock', '--help']\n"
        "from didact.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'fastapi', 'httpx', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in ("serve", "submit", "search", "reuse", "status", "login", "token"):
        assert command in done.stdout

"""A dock in a folder, with real models that are really checked."""

import inspect

import numpy as np
import pytest
from wares import words

from didact.core.errors import BadInput
from didact.reusing.dock import LocalDock, write_package
from didact.reusing.dock.checking import CheckReport
from didact.reusing.dock.client import DockClient
from didact.reusing.dock.errors import BadPackage, Conflict, DockError
from didact.reusing.dock.semantics import SemanticQuery
from didact.reusing.dock.specification import specify

GOOD = CheckReport(1, "", "all is well", (4,), (3,))


@pytest.fixture
def quick(tmp_path):
    """A dock whose checks say yes at once."""
    with LocalDock(tmp_path / "dock", check=lambda path: GOOD) as dock:
        yield dock


def rows(centre: float, n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, 1.0, (n, 4))


def forest(folder, name: str, centre: float, labels=(0, 1, 2)):
    """A package with a real classifier of rows around `centre`."""
    from sklearn.tree import DecisionTreeClassifier

    X = rows(centre)
    model = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, np.resize(labels, len(X)))
    return write_package(
        folder / f"{name}.zip",
        model,
        semantic=words(name, library="scikit-learn"),
        specification=specify(X, "Table", k=10, gamma=0.1),
        input_shape=(4,),
    )


def test_submit_check_search_download(tmp_path):
    dock = LocalDock(tmp_path / "dock")
    near, far = (dock.submit(forest(tmp_path, name, centre)) for name, centre in (("near", 0.0), ("far", 4.0)))
    assert (near.status, near.usable, near.reason) == ("SUCCESS", 1, ""), dock.log(near.id)
    found = dock.search(rows(4.0, seed=1))
    assert found.searched == "statistical"
    assert found.single[0].info.id == far.id
    assert dock.search(query=SemanticQuery(text="near")).single[0].info.id == near.id
    assert dock.search(query={"data": "Image"}).total == 0
    copy = dock.download(near.id, tmp_path / "copy.zip")
    assert copy.read_bytes() == (tmp_path / "near.zip").read_bytes()
    assert dock.download(near.id, tmp_path).name == f"{near.id}.zip"
    dock.close()
    with LocalDock(tmp_path / "dock") as again:
        assert [info.id for info in again.mine().items] == [far.id, near.id]
        assert again.search(specification=again.specify(rows(4.0, seed=1))).single[0].info.id == far.id


def test_a_model_that_cannot_be_loaded_is_kept_with_its_log(tmp_path, package):
    with LocalDock(tmp_path / "dock") as dock:
        info = dock.submit(package())
        assert (info.status, info.usable) == ("FAIL", 0)
        assert info.reason in dock.log(info.id)
        assert dock.search().total == 0
        assert dock.list(status="FAIL").total == 1
        assert dock.recheck(info.id).status == "FAIL"
        dock.delete(info.id)
        assert dock.list().total == 0


def test_submitting_again_looks_it_up(quick, package):
    steps = []
    first = quick.submit(package(), lambda done, size: steps.append((done, size)))
    assert quick.submit(package()) == first
    assert steps == [(first.size, first.size)]


def test_what_a_kill_left_unchecked_is_checked_when_submitted_again(tmp_path, package):
    with LocalDock(tmp_path / "dock", check=lambda path: GOOD) as dock:
        info = dock.dock.submit(package())
        assert dock.info(info.id).status == "QUEUE"
        assert dock.submit(package()).status == "SUCCESS"


def test_words_change(quick, package):
    id = quick.submit(package()).id
    assert quick.update(id, words("better")).semantic.name == "better"
    with pytest.raises(Conflict, match="stay as they are"):
        quick.update(id, words(task="Regression"))
    assert quick.wait(id).id == id
    assert "vocabulary" not in quick.semantics()
    assert "Table" in quick.semantics()["data"]


def test_bad_input_is_refused(quick, tmp_path, package):
    with pytest.raises(BadInput, match="no file"):
        quick.submit(tmp_path / "nothing.zip")
    (tmp_path / "text.zip").write_text("not a zip")
    with pytest.raises(BadPackage, match="zip file"):
        quick.submit(tmp_path / "text.zip")
    with pytest.raises(BadInput, match="is a file"):
        LocalDock(package())
    with pytest.raises(BadInput, match="not with both"):
        quick.search(rows(0.0), specification=quick.specify(rows(0.0)))
    with pytest.raises(DockError) as caught:
        quick.search(query={"data": "Sound"})
    assert caught.value.code == "unknown-tag"
    with pytest.raises(DockError, match="no learnware"):
        quick.download("nothing")


def test_it_answers_to_what_a_client_answers_to():
    """One can be put in the other's place: the same methods with the same parameters."""
    network = {"register", "login", "issue_token", "me", "url", "token", "bytes_sent"}
    for name, method in inspect.getmembers(DockClient, inspect.isfunction):
        if name.startswith("_") or name in network:
            continue
        own = list(inspect.signature(getattr(LocalDock, name)).parameters)
        assert own == list(inspect.signature(method).parameters), name

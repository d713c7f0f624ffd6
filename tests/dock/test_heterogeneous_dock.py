"""Tables with other columns, found through a dock: in a folder, over HTTP, and reused by alignment."""

import io
import json
import socket
import threading
import time
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
import uvicorn
from sklearn.linear_model import LogisticRegression
from starlette.testclient import TestClient

from didact.core.recipe import seeded
from didact.reusing.dock import LocalDock, write_package
from didact.reusing.dock.checking import CheckReport
from didact.reusing.dock.client import DockClient, wire
from didact.reusing.dock.errors import BadSpecification, Conflict
from didact.reusing.dock.queue import Checker
from didact.reusing.dock.search.heterogeneous import HeterogeneousIndex, Table
from didact.reusing.dock.semantics import SemanticQuery, SemanticSpecification
from didact.reusing.dock.service import Dock, DockSettings, across
from didact.reusing.dock.specification import RKME, Specification
from didact.reusing.dock.specification.heterogeneous import FitTableMap, TableMap
from didact.reusing.learnware_dock import DockFeatureAlignment
from didact.web.app import create_app
from didact.web.settings import WebSettings

MEASURES = ["age", "blood pressure", "body mass", "serum sugar", "ldl level", "hdl level", "heart rate", "sleep hours"]
SMALL = FitTableMap(epochs=8, width=32, layers=1, heads=4, learning_rate=1e-3)
GOOD = CheckReport(1, "", "all is well", (5,), (2,))


def patients(kind: int, columns: list[int], seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a hospital that measures these columns, and who is ill. The kinds of hospital see other people."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(2, 8))
    hidden = rng.normal(size=(n, 2)) * 0.3 + 2.0 * np.eye(2)[kind]
    rows = hidden @ mixing + 0.2 * rng.normal(size=(n, 8))
    return rows[:, columns], (hidden[:, 0] > hidden[:, 0].mean()).astype(int)


def names(columns: list[int]) -> list[str]:
    return [MEASURES[i] for i in columns]


def hospital(folder, number: int, columns: list[int] | None = None, described: bool = True):
    """The package of a hospital, of kind number % 2, that measures five columns."""
    rng = np.random.default_rng(50 + number)
    columns = columns or sorted(rng.choice(8, 5, replace=False).tolist())
    x, y = patients(number % 2, columns, number)
    meaning = dict(enumerate(names(columns))) if described else {}
    semantic = {
        "name": f"hospital {number} of kind {number % 2}",
        "data": "Table",
        "task": "Classification",
        "library": "scikit-learn",
        "input": {"dimension": len(columns), "description": meaning},
        "output": {"dimension": 2, "description": {0: "well", 1: "ill"}},
    }
    return write_package(
        folder / f"hospital-{number}.zip",
        LogisticRegression().fit(x, y),
        semantic=semantic,
        specification=RKME(15).fit(x),
        input_shape=(len(columns),),
        output_shape=(2,),
    )


def filled(dock, folder, numbers=range(8), **options) -> list[str]:
    return [dock.submit(hospital(folder, number, **options)).id for number in numbers]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A dock with eight hospitals, four of each kind, one whose columns are not described, and a map of its own."""
    folder = tmp_path_factory.mktemp("local")
    with LocalDock(folder / "dock", check=lambda path: GOOD, table_map=SMALL) as dock:
        filled(dock, folder)
        filled(dock, folder, [100], described=False)
        yield dock


MINE = [0, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_table_with_other_columns_finds_its_like(local, kind):
    x, _ = patients(kind, MINE, 1000 + kind)
    with pytest.raises(BadSpecification) as refused:
        local.search(x)
    assert refused.value.code == "incompatible"
    found = local.search(x, columns=names(MINE), mixture=None)
    assert found.searched == "heterogeneous"
    assert found.total == len(found.single) >= 1
    assert found.single[0].info.semantic.name.endswith(f"of kind {kind}")
    assert all(hit.info.semantic.input.description for hit in found.single)
    assert found.to_json() == local.search(x, columns=dict(enumerate(names(MINE))), mixture=None).to_json()
    only = local.search(x, columns=names(MINE), query={"text": f"of kind {1 - kind}"}, limit=1)
    assert only.single[0].info.semantic.name.endswith(f"of kind {1 - kind}")


def test_equal_columns_are_searched_as_ever_unless_asked_otherwise(local):
    columns = [0, 1, 2, 3, 5]
    x, _ = patients(0, columns, 7)
    assert local.search(x, columns=names(columns)).searched == "statistical"
    assert local.search(x, columns=names(columns), across=True).searched == "heterogeneous"


@pytest.mark.parametrize(
    "columns, code",
    [
        (["age"], "wrong-shape"),
        ({9: "age"}, "bad-semantic"),
        ({"first": "age"}, "bad-semantic"),
        ({0: 3}, "bad-semantic"),
        ({0: "x" * 501}, "bad-semantic"),
        (5, "bad-semantic"),
        ("age", "bad-semantic"),
        ({}, "missing"),
        (["", " ", "", "", "", ""], "missing"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(local, columns, code):
    with pytest.raises(BadSpecification) as refused:
        local.search(patients(0, MINE, 3)[0], columns=columns)
    assert refused.value.code == code


def test_what_has_no_columns_is_refused(local):
    x, _ = patients(0, MINE, 3)
    rng = np.random.default_rng(0)
    for code, search in {
        "missing": lambda: local.search(x, across=True),
        "wrong-type": lambda: local.search(["a text"] * 9 + ["another"], kind="Text", columns=["words"]),
        "too-large": lambda: local.search(rng.normal(size=(9, 300)), columns=["a column"] * 300),
    }.items():
        with pytest.raises(BadSpecification) as refused:
            search()
        assert refused.value.code == code
    with pytest.raises(BadSpecification) as refused:
        local.search(query={"data": "Table"}, columns=["age"])
    assert refused.value.code == "missing"
    with pytest.raises(BadSpecification) as refused:
        local.search(rng.normal(size=(9, 3)) * 1e12, columns=["a", "b", "c"])
    assert refused.value.code == "too-large"


def test_a_dock_without_described_tables_says_what_it_has(tmp_path):
    with LocalDock(tmp_path / "dock", check=lambda path: GOOD, table_map=SMALL) as dock:
        filled(dock, tmp_path, [0], described=False)
        x, _ = patients(0, MINE, 3)
        with pytest.raises(BadSpecification, match="dimension 6"):
            dock.search(x, columns=names(MINE))
        assert dock.search(x, columns=names(MINE), across=True).total == 0
        assert not (dock.path / "table-map").exists()


def test_the_map_is_kept_and_made_again_only_when_the_tables_changed(tmp_path, monkeypatch):
    trained = []
    real = across.fitted
    monkeypatch.setattr(across, "fitted", lambda tables, *rest: trained.append(set(tables)) or real(tables, *rest))
    x, _ = patients(1, MINE, 3)
    quick = FitTableMap(epochs=1, width=16, layers=1, heads=2)

    def opened(how=quick):
        return LocalDock(tmp_path / "dock", check=lambda path: GOOD, table_map=how)

    with opened() as dock:
        ids = filled(dock, tmp_path, range(11))
        assert trained == []
        first = dock.search(x, columns=names(MINE), limit=50, mixture=None)
        again = dock.search(x, columns=names(MINE), limit=50, mixture=None)
        assert first.to_json() == again.to_json()
        assert trained == [set(ids)]
    saved = sorted(path.name for path in (tmp_path / "dock" / "table-map").glob("*/*"))
    assert saved == ["map.json", "map.safetensors", "tables.json"]
    with opened() as dock:
        assert dock.search(x, columns=names(MINE), limit=50, mixture=None).to_json() == first.to_json()
        assert len(trained) == 1
        # One of eleven is within a tenth: it is seen through the map that is there, and can be found at once.
        ids += filled(dock, tmp_path, [11])
        twin = dock.dock.across
        assert dock.search(x, columns=names(MINE)).searched == "heterogeneous"
        assert len(twin._state.index) == 12
        assert len(trained) == 1
        dock.delete(ids[0])
        assert ids[0] not in {hit.info.id for hit in dock.search(x, columns=names(MINE)).single}
        assert len(trained) == 2
        assert trained[1] == set(ids[1:])
        # Other words about a learnware change what is asked in words, and nothing for the map.
        words = dock.info(ids[5]).semantic.to_json()
        dock.update(ids[5], {**words, "name": "a house by the sea"})
        named = dock.search(x, columns=names(MINE), query={"text": "a house by the sea"})
        assert [hit.info.id for hit in named.single] == [ids[5]]
        assert len(trained) == 2
    with opened(FitTableMap(epochs=2, width=16, layers=1, heads=2)) as dock:
        dock.search(x, columns=names(MINE))
        assert len(trained) == 3
    for file in (tmp_path / "dock" / "table-map").glob("*/map.safetensors"):
        file.write_bytes(b"spoiled")
    with opened(FitTableMap(epochs=2, width=16, layers=1, heads=2)) as dock:
        assert dock.search(x, columns=names(MINE)).total > 0
        assert len(trained) == 4
    assert len(list((tmp_path / "dock" / "table-map").glob("*/map.json"))) == 1


def test_an_index_across_columns_follows_what_comes_goes_and_changes():
    def table(number: int, meaning: list[str], name: str) -> Table:
        words = {"name": name, "data": "Table", "task": "Others", "library": "Others"}
        described = {**words, "input": {"dimension": 5, "description": dict(enumerate(meaning))}}
        return Table(SemanticSpecification.parse(described), RKME(10).fit(patients(0, [0, 1, 2, 3, 4], number)[0]))

    def distances(index: HeterogeneousIndex, tables: dict[str, Table]) -> dict[str, float]:
        found = {}
        for each in tables.values():
            hit = index.search(asked, dict(enumerate(names(MINE))), SemanticQuery(text=each.semantic.name)).single[0]
            found[hit.id] = hit.distance
        return found

    own, other = names([0, 1, 2, 3, 4]), names([3, 4, 5, 6, 7])
    asked = RKME(10).fit(patients(0, MINE, 9)[0])
    before = {"stays": table(1, own, "sun"), "goes": table(2, own, "moon"), "changes": table(3, own, "earth")}
    after = {"stays": table(1, own, "venus"), "changes": table(3, other, "earth"), "comes": table(4, own, "jupiter")}
    with seeded(0):
        index = HeterogeneousIndex(TableMap(16, 1, 2).eval())
    for tables in (before, after):
        index.follow(tables)
        anew = HeterogeneousIndex(index.table_map)
        for id, each in tables.items():
            anew.add(id, each.semantic, each.specification)
        assert len(index) == 3
        found = distances(index, tables)
        assert found.keys() == tables.keys()
        assert found == pytest.approx(distances(anew, tables), abs=1e-9)
    assert index.search(asked, {0: "age"}, SemanticQuery(text="moon")).ids == []


def test_a_table_of_absurd_values_does_not_spoil_the_map(tmp_path):
    with LocalDock(tmp_path / "dock", check=lambda path: GOOD, table_map=SMALL) as dock:
        filled(dock, tmp_path, range(4))
        x, y = patients(0, [0, 1, 2, 3, 4], 1)
        for scale in (1e8, 1e30):
            package = write_package(
                tmp_path / f"{scale}.zip",
                LogisticRegression().fit(x, y),
                semantic={**dock.list().items[-1].semantic.to_json(), "name": f"scaled by {scale:g}"},
                specification=RKME(15).fit(x * scale),
                input_shape=(5,),
                output_shape=(2,),
            )
            dock.submit(package)
        found = dock.search(patients(0, MINE, 3)[0], columns=names(MINE), limit=50)
        assert np.isfinite([hit.distance for hit in found.single]).all()
        assert not found.single[0].info.semantic.name.startswith("scaled")


class Slow:
    """Training that lasts until it is let go."""

    def __init__(self, monkeypatch) -> None:
        self.go, self.calls, self.fails = threading.Event(), 0, False
        real = across.fitted

        def fitted(tables, *rest):
            self.calls += 1
            assert self.go.wait(30)
            if self.fails:
                raise RuntimeError("no luck")
            return real(tables, *rest)

        monkeypatch.setattr(across, "fitted", fitted)


@pytest.fixture
def slow(monkeypatch):
    slow = Slow(monkeypatch)
    yield slow
    slow.go.set()


@pytest.fixture
def dock(tmp_path):
    quick = FitTableMap(epochs=1, width=16, layers=1, heads=2)
    dock = Dock(DockSettings(folder=tmp_path / "dock", table_map=quick, map_wait=0.01, queue_per_owner=100))
    yield dock
    dock.close()


def judged(dock: Dock) -> None:
    checker = Checker(dock, lambda path: GOOD)
    while checker.run_once():
        pass


def until(true) -> None:
    deadline = time.monotonic() + 30
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_nobody_waits_for_training(dock, slow, tmp_path):
    asked = RKME(15).fit(patients(0, MINE, 3)[0])
    filled(dock, tmp_path, range(4))
    judged(dock)
    for _ in range(3):
        with pytest.raises(Conflict) as refused:
            dock.search(None, asked, columns=names(MINE))
        assert refused.value.code == "map-not-ready"
        assert refused.value.retry_after > 0
    assert slow.calls == 1
    slow.go.set()
    dock.across._thread.join(30)
    assert dock.search(None, asked, columns=names(MINE)).searched == "heterogeneous"
    slow.go.clear()
    new = filled(dock, tmp_path, [4])[0]
    judged(dock)
    before = dock.search(None, asked, columns=names(MINE), limit=50)
    assert before.total > 0
    assert new not in {hit.info.id for hit in before.single}
    until(lambda: slow.calls == 2)
    slow.go.set()
    dock.across._thread.join(30)
    assert len(dock.across._state.index) == 5


def test_training_that_fails_is_said_and_tried_again_when_tables_change(dock, slow, tmp_path, capfd):
    asked = RKME(15).fit(patients(0, MINE, 3)[0])
    filled(dock, tmp_path, range(3))
    judged(dock)
    slow.fails = True
    slow.go.set()
    dock.across.refresh()
    dock.across._thread.join(30)
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            dock.search(None, asked, columns=names(MINE))
        assert refused.value.code == "no-table-map"
    assert slow.calls == 1
    assert "no luck" in capfd.readouterr().err
    slow.fails = False
    filled(dock, tmp_path, [3])
    judged(dock)
    dock.across.refresh()
    dock.across._thread.join(30)
    assert dock.search(None, asked, columns=names(MINE)).total > 0


def test_the_checker_has_the_map_made(dock, tmp_path):
    ids = filled(dock, tmp_path, range(3))
    stop = threading.Event()
    thread = threading.Thread(target=Checker(dock, lambda path: GOOD).run_forever, args=(stop,))
    thread.start()
    until(lambda: dock.across._state is not None and len(dock.across._state.index) == 3)
    stop.set()
    thread.join(10)
    other = Dock(dock.settings)  # another server on the same folder reads what was trained
    try:
        other.across.prepare()
        assert other.across._state.index.table_map.id == dock.across._state.index.table_map.id
        assert set(other.across._state.learned) == set(ids)
    finally:
        other.close()


@contextmanager
def served(dock: Dock):
    """A client of a dock behind real HTTP."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(dock, settings=WebSettings(checker=False))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        with DockClient(f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


@pytest.fixture
def client(dock, monkeypatch):
    monkeypatch.setattr(wire, "FIRST_WAIT", 0.01)
    with served(dock) as client:
        yield client


def test_over_http(dock, client, slow, tmp_path):
    filled(dock, tmp_path)
    judged(dock)
    x, _ = patients(1, MINE, 5)
    with pytest.raises(BadSpecification) as refused:
        client.search(x)
    assert refused.value.code == "incompatible"
    threading.Timer(0.3, slow.go.set).start()
    found = client.search(x, columns=names(MINE), mixture=None)  # asks until the map is there
    assert found.searched == "heterogeneous"
    assert found.to_json() == dock.search(None, client.specify(x), columns=names(MINE), mixture=None).to_json()
    assert client.search(x, columns={0: "age"}, across=True).searched == "heterogeneous"
    with pytest.raises(BadSpecification) as refused:
        client.search(x, columns=["age"])
    assert refused.value.code == "wrong-shape"


def test_over_http_what_is_not_json_is_refused(dock, tmp_path):
    http = TestClient(create_app(dock, settings=WebSettings(checker=False)))
    stat = json.dumps(RKME(15).fit(patients(0, MINE, 3)[0]).to_json()).encode()
    for columns, code in (("{", "not-json"), ("3", "bad-semantic"), ('{"0": "\\ud800"}', "bad-semantic")):
        files = {"specification": ("stat.json", io.BytesIO(stat))}
        answer = http.post("/v1/search", data={"columns": columns}, files=files)
        assert (answer.status_code, answer.json()["error"]) == (422, code)
    answer = http.post("/v1/search", data={"across": "true"})
    assert (answer.status_code, answer.json()["error"]) == (422, "missing")


@pytest.mark.parametrize("where", ["folder", "http"])
def test_what_was_found_is_reused_by_alignment(local, where):
    x, _ = patients(1, MINE, 3)
    with nullcontext(local) if where == "folder" else served(local.dock) as dock:
        found = dock.search(x, columns=names(MINE), limit=2, mixture=None)
        aligner = DockFeatureAlignment(epochs=3, hidden=16, most=1)
        answer = dock.reuse(x, how=aligner, columns=names(MINE), limit=2)
    # The learnwares nearest across columns are those that are aligned with, by the reuser that was given.
    assert set(answer.ranking) == {hit.info.id for hit in found.single}
    assert set(answer.weights) < set(answer.ranking)
    assert answer.cost["training_steps"] == 3 * len(found.single)
    scores = answer.predict(x)
    assert scores.shape == (len(x), 2)
    assert np.allclose(scores.sum(axis=1), 1.0, atol=1e-5)


def test_labels_make_more_of_what_was_found(local):
    x, y = patients(1, MINE, 3)
    labelled = x[:40], y[:40]
    answer = local.reuse(x, labelled, columns=names(MINE), limit=2, classes=("well", "ill"))
    assert len(answer.ranking) == 2
    assert (answer.predict(x[40:]).argmax(axis=1) == y[40:]).mean() > 0.8


@pytest.mark.parametrize("points, drawn", [(1000, 30), (12, 12), (2, 4)])
def test_a_large_dock_trains_on_some_of_its_points_in_each_pass(points, drawn):
    seen = []

    class Counting(FitTableMap):
        def loss(self, mapping, descriptions, rows):
            seen.append(len(rows))
            return super().loss(mapping, descriptions, rows)

    tables = []
    for columns in ([0, 1, 2], [3, 4]):
        z = np.random.default_rng(0).normal(size=(15, len(columns)))
        table = Specification("rkme-table", 0.1, "", z, np.full(15, 1 / 15))
        tables.append((table, dict(enumerate(names(columns)))))
    Counting(epochs=1, width=16, layers=1, heads=2, points=points).fit(tables)
    assert sum(seen) == drawn

"""The check of a submitted package: what works is usable, what does not has a named reason, nothing else is touched."""

import json
import os
import textwrap
import threading

import numpy as np
import parcels
import pytest
from parcels import BAIT

from didact.core.recipe import seeded
from didact.reusing.dock.checking import check_package
from didact.reusing.dock.package import load_package, open_package
from didact.reusing.dock.sandbox import Limits, Sandbox

LIMITS = Limits(timeout=60.0, cpu=30, memory=2**30, files=2**22, processes=32)
SANDBOX = Sandbox(LIMITS, allow_weak_sandbox=True)
HERE = SANDBOX.strength


def check(path, sandbox=SANDBOX, **options):
    return check_package(path, sandbox=sandbox, **options)


def convnet():
    from didact.models import small

    with seeded(0):
        return small.convnet(outputs=3, channels=(4,), dense=8).eval()


def reader():
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    return make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good", "bad", "so so"] * 3, parcels.labels(9))


def outputs(model, x):
    """What the model itself says, before it was packaged."""
    import onnxruntime
    import torch

    if isinstance(model, bytes):
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    if isinstance(model, torch.nn.Module):
        with torch.no_grad():
            return model(torch.from_numpy(x)).numpy()
    return model.predict_proba(x)


IMAGES = {
    "semantic": parcels.words(data="Image", input=None, library="PyTorch"),
    "specification": parcels.statistics("rkme-image", 8, "some-encoder"),
    "input_shape": (1, 8, 8),
}
TEXTS = {
    "semantic": parcels.words(data="Text", input=None, library="scikit-learn"),
    "specification": parcels.statistics("rkme-text", 8, "some-encoder"),
    "input_shape": (),
}


@pytest.mark.parametrize(
    "make, about",
    [(parcels.mlp, {}), (convnet, IMAGES), (parcels.linear_graph, {}), (parcels.forest, {}), (reader, TEXTS)],
)
def test_safe_packages_go_the_whole_way(tmp_path, make, about):
    """Written, opened, checked, loaded: the outputs are those of the model before."""
    model = make()
    path = parcels.package(tmp_path / "x.zip", model, **about)
    report = check(path)
    assert (report.usable, report.reason) == (1, ""), report.log
    assert report.log.endswith("Usable.")
    package = open_package(path)
    assert (report.input_shape, report.output_shape) == (package.input_shape, package.output_shape)
    x = np.random.default_rng(0).random((9, *package.input_shape), dtype=np.float32)
    x = ["a good one", "bad"] if about is TEXTS else x
    assert np.array_equal(load_package(package).predict(x), outputs(model, x))


def test_code_goes_the_whole_way(tmp_path):
    report = check(parcels.code(tmp_path))
    assert (report.usable, report.input_shape, report.output_shape) == (1, (6,), (3,)), report.log


def test_code_is_refused_where_it_could_look_around(tmp_path):
    report = check(parcels.code(tmp_path), Sandbox(LIMITS, isolation="limits"))
    assert (report.usable, report.reason) == (0, "no-sandbox")
    assert "namespaces" in report.log


def test_shapes_that_only_code_knows_are_reported(tmp_path):
    path = parcels.code(tmp_path, output_shape=None)
    manifest = {name: value for name, value in parcels.manifest(path).items() if name != "input_shape"}
    bare = parcels.respoil(path, tmp_path / "bare.zip", learnware__yaml=json.dumps(manifest))
    assert open_package(bare).input_shape is None
    report = check(bare)
    assert (report.usable, report.input_shape, report.output_shape) == (1, (6,), (3,)), report.log


def test_the_same_check_twice_says_the_same(tmp_path):
    path = parcels.code(tmp_path, "print(x.sum())\nreturn x[:, :3]")
    first, second = check(path, seed=3), check(path, seed=3)
    printed = [[line for line in report.log.splitlines() if "|" in line] for report in (first, second)]
    assert printed[0] == printed[1] != []
    assert printed[0] != [line for line in check(path, seed=4).log.splitlines() if "|" in line]


@pytest.mark.parametrize(
    "predict, reason",
    [
        ("return x[:, :2]", "wrong-output-shape"),
        ("return x[:5, :3]", "wrong-output-shape"),
        ("return x[0, 0]", "wrong-output-type"),
        ("return x[:, :3] * np.nan", "non-finite-output"),
        ("return np.full((len(x), 3), np.inf)", "non-finite-output"),
        ("return [['a'] * 3] * len(x)", "wrong-output-type"),
        ("return None", "wrong-output-type"),
        ("return x[:, :3] + 1j", "wrong-output-type"),
        ("raise RuntimeError('no')", "predict-error"),
        ("return np.ones(10 * 2**30, dtype=np.uint8)", "out-of-memory"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "network"),
        ("import os; os._exit(3)", "crashed"),
        ("open('x', 'wb').write(bytes(2**24))", "file-too-large"),
    ],
)
def test_models_that_do_not_do_what_they_say(tmp_path, predict, reason):
    report = check(parcels.code(tmp_path, predict))
    assert (report.usable, report.reason) == (0, reason), report.log
    assert f"({reason})" in report.log


@pytest.mark.parametrize(
    "predict, reason",
    [
        ("return np.full(len(x), 3)", "label-out-of-range"),
        ("return np.full(len(x), -1)", "label-out-of-range"),
        ("return np.full(len(x), 0.5)", "wrong-output-type"),
        ("return np.full(len(x), 2)", ""),
        ("return np.full((len(x), 1), 2.0)", ""),
    ],
)
def test_labels_are_within_the_classes(tmp_path, predict, reason):
    source = textwrap.dedent(parcels.CONSTANT).replace("(6,), (3,)", "(6,), ()").replace("{predict}", predict)
    report = check(parcels.code(tmp_path, source=source, output_shape=()))
    assert report.reason == reason, report.log


@pytest.mark.parametrize(
    "source, reason",
    [
        ("while True: pass", "timeout"),
        ("import time; time.sleep(600)", "timeout"),
        ("raise ImportError('no')", "load-error"),
        ("import not_installed_anywhere", "missing-requirement"),
        ("x = bytes(10 * 2**30)", "out-of-memory"),
        ("import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)", "network"),
        ("Model = 3", "load-error"),
        ("class Other: pass", "load-error"),
        ("def f(:", "load-error"),
        ("class Model:\n    input_shape, output_shape = (5,), (3,)", "wrong-input-shape"),
        ("class Model:\n    input_shape, output_shape = (6,), (4,)", "wrong-output-shape"),
        ("class Model:\n    input_shape, output_shape = 'ab', (3,)", "wrong-input-shape"),
        ("class Model:\n    def __init__(self, missing): pass", "load-error"),
        ("import os; os._exit(0)", "crashed"),
        ("import sys; sys.exit(0)", "crashed"),
        ("import ctypes; ctypes.string_at(0)", "crashed"),
    ],
)
def test_code_that_cannot_be_loaded(tmp_path, source, reason):
    sandbox = Sandbox(Limits(timeout=4.0, memory=2**30), allow_weak_sandbox=True) if reason == "timeout" else SANDBOX
    report = check(parcels.code(tmp_path, source=source), sandbox)
    assert (report.usable, report.reason) == (0, reason), report.log


def hostile(tmp_path, kind):
    """The uploads of the list that are refused before anything runs."""
    import pickle
    import stat
    import zipfile

    good = parcels.package(tmp_path / "good.zip", parcels.linear_graph())
    path = parcels.respoil(good, tmp_path / f"{kind}.zip")
    if kind == "not-a-zip":
        path.write_bytes(os.urandom(1000))
    elif kind == "bad-specification":
        statistics = {**parcels.statistics().to_json(), "z": [[float("inf")] * 6] * 4}
        parcels.respoil(good, path, stat__json=json.dumps(statistics))
    else:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            if kind == "zip-bomb":
                archive.writestr("README", bytes(200 * 2**20))
            elif kind == "path-traversal":
                archive.writestr(f"../../../..{BAIT}", "x")
            elif kind == "absolute-path":
                archive.writestr(str(BAIT), "x")
            elif kind == "link":
                entry = zipfile.ZipInfo("README")
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(entry, "/etc/passwd")
            elif kind == "pickle":
                archive.writestr("weights.pkl", pickle.dumps({"w": 1}))
    return path


@pytest.mark.parametrize(
    "kind", ["not-a-zip", "zip-bomb", "path-traversal", "absolute-path", "link", "pickle", "bad-specification"]
)
def test_hostile_uploads_are_invalid(tmp_path, kind):
    path = hostile(tmp_path, kind)
    before = sorted(p.name for p in tmp_path.iterdir())
    report = check(path)
    assert (report.usable, report.reason) == (-1, kind)
    assert report.log
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert not BAIT.exists()


def test_a_missing_file_is_a_verdict_too(tmp_path):
    assert check(tmp_path / "nothing.zip").usable == -1


def test_weights_that_do_not_fit_are_named(tmp_path):
    good = parcels.package(tmp_path / "good.zip", parcels.mlp())
    report = check(parcels.respoil(good, tmp_path / "x.zip", model__safetensors=b"\x02" + bytes(7) + b"{}"))
    assert (report.usable, report.reason) == (0, "bad-weights"), report.log


def expanding_graph(gigabytes: int) -> bytes:
    """An ONNX model of a few hundred bytes that asks for much memory when it runs."""
    from onnx import TensorProto, helper, numpy_helper

    size = numpy_helper.from_array(np.array([gigabytes * 2**28], dtype=np.int64), "size")
    graph = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["size"], ["huge"], value=helper.make_tensor("v", 1, [1], [1.0])),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["x", "W"], ["product"]),
            helper.make_node("Add", ["product", "sum"], ["scores"]),
        ],
        "huge",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [size, numpy_helper.from_array(np.ones((6, 3), dtype=np.float32), "W")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def test_a_graph_that_asks_for_ten_gigabytes_hurts_nobody(tmp_path):
    good = parcels.package(tmp_path / "good.zip", parcels.linear_graph())
    report = check(parcels.respoil(good, tmp_path / "x.zip", model__onnx=expanding_graph(10)))
    assert report.usable == 0
    assert report.reason in ("out-of-memory", "bad-graph"), report.log


def test_checks_may_run_side_by_side_and_do_not_disturb_each_other(tmp_path):
    bodies = ["return x[:, :3]", "raise ValueError('no')", "import time; time.sleep(1); return x[:, :3]"]
    paths = [parcels.code(tmp_path / str(i), body) for i, body in enumerate(bodies)]
    reports = {}
    threads = [threading.Thread(target=lambda i=i: reports.update({i: check(paths[i])})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reports[i].usable for i in range(3)] == [1, 0, 1]


def test_the_log_shows_what_the_model_said_without_control_characters(tmp_path):
    report = check(parcels.code(tmp_path, "print('training\\x1b[31m set\\r')\nraise ValueError('too cold')"))
    assert "training" in report.log
    assert "ValueError: too cold" in report.log
    assert "\x1b" not in report.log
    assert "\r" not in report.log


def test_a_log_cannot_grow_without_end(tmp_path):
    report = check(parcels.code(tmp_path, "for _ in range(10000): print('x' * 1000)\nreturn x[:, :3]"))
    assert report.usable == 1
    assert len(report.log) < 2**17


def test_a_broken_sandbox_is_not_blamed_on_the_package(tmp_path):
    report = check(parcels.package(tmp_path / "x.zip", parcels.linear_graph()), Sandbox(isolation="none"))
    assert (report.usable, report.reason) == (0, "no-sandbox")

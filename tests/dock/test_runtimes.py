"""What is loaded predicts what was packaged, and only what each runtime may hold is loaded."""

import io
import json
import zipfile

import numpy as np
import parcels
import pytest
import torch
from safetensors.torch import save

from didact.core.errors import BadInput, NotApplicable
from didact.core.recipe import seeded
from didact.models import small
from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.package import load_package, open_package, write_package


def refusal(path):
    with pytest.raises(BadPackage) as caught:
        load_package(path)
    return caught.value.code


def test_a_network_predicts_the_same(tmp_path):
    model = parcels.mlp()
    learnware = load_package(parcels.package(tmp_path / "x.zip", model))
    with torch.no_grad():
        wanted = model(torch.from_numpy(parcels.rows())).numpy()
    assert np.array_equal(learnware.predict(parcels.rows()), wanted)
    assert learnware.module is not None
    assert not learnware.module.training


def test_a_convnet_predicts_the_same(tmp_path):
    with seeded(0):
        model = small.convnet(outputs=3, size=8, channels=(4,), dense=8).eval()
    images = np.random.default_rng(0).random((300, 1, 8, 8), dtype=np.float32)  # more than one batch
    path = write_package(
        tmp_path / "x.zip",
        model,
        semantic=parcels.words(data="Image", input=None),
        specification=parcels.statistics("rkme-image", 8, "some-encoder"),
        input_shape=(1, 8, 8),
    )
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    assert np.allclose(load_package(path).predict(images), wanted, atol=1e-6)
    assert open_package(path).output_shape == (3,)


def test_the_callers_model_is_left_alone(tmp_path):
    model = parcels.mlp().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    learnware = load_package(parcels.package(tmp_path / "x.zip", model))
    learnware.finetune(parcels.rows(), parcels.labels(), epochs=1)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_finetuning_goes_on_and_fitting_starts_anew(tmp_path):
    def loss(learnware):
        scores = torch.from_numpy(learnware.predict(parcels.rows()))
        return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(parcels.labels())))

    learnware = load_package(parcels.package(tmp_path / "x.zip", parcels.mlp()))
    first = loss(learnware)
    learnware.finetune(parcels.rows(), parcels.labels(), epochs=30, lr=1e-2)
    tuned = loss(learnware)
    assert tuned < first - 0.1
    learnware.fit(parcels.rows(), parcels.labels())
    assert loss(learnware) != tuned


@pytest.mark.parametrize(
    "y", [np.full(40, 3), np.full(40, -1), np.zeros(39, int), np.zeros(40), np.zeros((40, 1), int)]
)
def test_labels_must_be_numbers_of_classes(tmp_path, y):
    learnware = load_package(parcels.package(tmp_path / "x.zip", parcels.mlp()))
    with pytest.raises(BadInput):
        learnware.finetune(parcels.rows(), y)


@pytest.mark.parametrize("x", [np.zeros((2, 5)), np.zeros(6), np.zeros((2, 6, 1)), np.array([["a"] * 6]), "text"])
def test_inputs_of_another_kind_are_refused(tmp_path, x):
    learnware = load_package(parcels.package(tmp_path / "x.zip", parcels.mlp()))
    with pytest.raises(BadInput):
        learnware.predict(x)


def test_no_inputs_give_no_outputs(tmp_path):
    learnware = load_package(parcels.package(tmp_path / "x.zip", parcels.mlp()))
    assert learnware.predict(np.zeros((0, 6))).shape == (0, 3)


def network(path, weights=None, **model):
    good = parcels.package(path / "good.zip", parcels.mlp())
    entry = {**parcels.manifest(good)["model"], **model}
    changed = parcels.with_manifest(good, path / "changed.zip", model=entry)
    return changed if weights is None else parcels.respoil(changed, path / "weights.zip", model__safetensors=weights)


@pytest.mark.parametrize(
    "model",
    [
        {"architecture": "no-such-network"},
        {"options": {"inputs": 6}},
        {"options": {"inputs": 6, "outputs": 3, "hidden": "wide"}},
        {"options": {"inputs": 6, "outputs": 3, "hidden": [-1]}},
        {"options": {"name": "convnet"}},
        {"options": {"inputs": 6, "outputs": 3, "surprise": 1}},
        {"options": {"inputs": 6, "outputs": 3, "hidden": [1] * 5000}},
    ],
)
def test_architectures_that_cannot_be_built(tmp_path, model):
    assert refusal(network(tmp_path, **model)) == "bad-architecture"


def test_a_network_larger_than_its_weights_is_never_built(tmp_path):
    """Ten thousand billion parameters: refused by comparing shapes, before any memory is asked for."""
    huge = {"inputs": 6, "outputs": 3, "hidden": [10**6, 10**7]}
    assert refusal(network(tmp_path, options=huge)) == "bad-weights"


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"x" * 100,
        (10**12).to_bytes(8, "little") + b"{}",
        save({"other": torch.zeros(2)}),
        b"\x02" + bytes(7) + b"[]",
    ],
)
def test_weights_that_do_not_fit(tmp_path, weights):
    assert refusal(network(tmp_path, weights)) == "bad-weights"


def test_weights_whose_header_promises_more_than_the_file_holds(tmp_path):
    header = {"body.0.weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    assert refusal(network(tmp_path, len(text).to_bytes(8, "little") + text)) == "bad-weights"


def test_an_onnx_model_predicts_the_same(tmp_path):
    import onnxruntime

    graph = parcels.linear_graph()
    learnware = load_package(parcels.package(tmp_path / "x.zip", graph))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert np.array_equal(learnware.predict(parcels.rows()), session.run(None, {"x": parcels.rows()})[0])
    assert learnware.output_shape == (3,)
    assert learnware.module is None
    with pytest.raises(NotApplicable):
        learnware.finetune(parcels.rows(), parcels.labels())


def test_an_onnx_model_may_be_a_file(tmp_path):
    (tmp_path / "m.onnx").write_bytes(parcels.linear_graph())
    assert open_package(parcels.package(tmp_path / "x.zip", tmp_path / "m.onnx")).manifest.runtime == "onnx"


def test_an_onnx_model_for_a_fixed_number_of_inputs(tmp_path):
    import onnx

    free = load_package(parcels.package(tmp_path / "free.zip", parcels.linear_graph()))
    model = onnx.load_model_from_string(parcels.linear_graph())
    for node in (model.graph.input[0], model.graph.output[0]):
        node.type.tensor_type.shape.dim[0].dim_value = 4
    fixed = load_package(parcels.package(tmp_path / "fixed.zip", model))
    for n in (1, 4, 7):
        assert np.allclose(fixed.predict(parcels.rows(n)), free.predict(parcels.rows(n)), atol=1e-6)


def external(graph: bytes, where: str) -> bytes:
    import onnx

    model = onnx.load_model_from_string(graph)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", where
    return model.SerializeToString()


@pytest.mark.parametrize("where", ["/etc/passwd", "../../secret", "beside.bin"])
def test_onnx_models_may_not_read_other_files(tmp_path, where):
    graph = external(parcels.linear_graph(), where)
    with pytest.raises(BadPackage, match="other files"):
        parcels.package(tmp_path / "x.zip", graph)
    good = parcels.package(tmp_path / "good.zip", parcels.linear_graph())
    assert refusal(parcels.respoil(good, tmp_path / "bad.zip", model__onnx=graph)) == "bad-graph"


@pytest.mark.parametrize("graph", [b"", b"hello", b"\x08\x09"])
def test_what_is_no_onnx_model(tmp_path, graph):
    good = parcels.package(tmp_path / "good.zip", parcels.linear_graph())
    assert refusal(parcels.respoil(good, tmp_path / "bad.zip", model__onnx=graph)) == "bad-graph"


def test_onnx_operators_of_others_are_refused(tmp_path):
    import onnx

    model = onnx.load_model_from_string(parcels.linear_graph())
    model.graph.node[0].domain = "my.operators"
    model.opset_import.add().domain = "my.operators"
    good = parcels.package(tmp_path / "good.zip", parcels.linear_graph())
    bad = parcels.respoil(good, tmp_path / "bad.zip", model__onnx=model.SerializeToString())
    assert refusal(bad) == "bad-graph"


def test_a_forest_predicts_the_same(tmp_path):
    forest = parcels.forest()
    learnware = load_package(parcels.package(tmp_path / "x.zip", forest))
    assert np.array_equal(learnware.predict(parcels.rows()), forest.predict_proba(parcels.rows()))
    labelled = load_package(parcels.package(tmp_path / "y.zip", forest, output_shape=()))
    assert np.array_equal(labelled.predict(parcels.rows()), forest.predict(parcels.rows()))


def test_labels_are_positions_of_classes(tmp_path):
    from sklearn.svm import LinearSVC

    names = np.array(["red", "green", "blue"])[parcels.labels()]
    classifier = LinearSVC(random_state=0).fit(parcels.rows(), names)
    learnware = load_package(parcels.package(tmp_path / "x.zip", classifier))
    assert learnware.output_shape == ()
    labels = learnware.predict(parcels.rows())
    assert np.array_equal(classifier.classes_[labels], classifier.predict(parcels.rows()))


def test_regression_and_text(tmp_path):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline

    ridge = Ridge().fit(parcels.rows(), parcels.rows()[:, :2])
    words = parcels.words(task="Regression", output={"dimension": 2})
    learnware = load_package(parcels.package(tmp_path / "r.zip", ridge, semantic=words))
    assert np.array_equal(learnware.predict(parcels.rows()), ridge.predict(parcels.rows()))

    texts = ["good film", "bad film", "so so film"] * 5
    reader = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, parcels.labels(15))
    words = parcels.words(data="Text", input=None)
    statistics = parcels.statistics("rkme-text", 8, "some-encoder")
    path = parcels.package(tmp_path / "t.zip", reader, semantic=words, specification=statistics, input_shape=())
    learnware = load_package(path)
    assert np.allclose(learnware.predict(texts), reader.predict_proba(texts))
    with pytest.raises(BadInput):
        learnware.predict("one text, not a list")


@pytest.mark.parametrize(
    "name",
    ["GradientBoostingClassifier", "AdaBoostClassifier", "BaggingClassifier", "ExtraTreesClassifier", "MLPClassifier",
     "GaussianNB", "SVC", "KNeighborsClassifier", "LogisticRegression", "CalibratedClassifierCV",
     "DecisionTreeClassifier", "GaussianProcessClassifier", "LinearDiscriminantAnalysis"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_common_classifiers_go_through(tmp_path, name):
    from sklearn.utils import all_estimators

    classifier = dict(all_estimators(type_filter="classifier"))[name]().fit(parcels.rows(), parcels.labels())
    learnware = load_package(parcels.package(tmp_path / "x.zip", classifier, output_shape=()))
    assert np.array_equal(learnware.predict(parcels.rows()), classifier.predict(parcels.rows()))


def test_an_estimator_can_be_fitted_anew(tmp_path):
    learnware = load_package(parcels.package(tmp_path / "x.zip", parcels.forest(), output_shape=()))
    learnware.fit(parcels.rows(), 2 - parcels.labels())
    assert (learnware.predict(parcels.rows()) == 2 - parcels.labels()).mean() > 0.7
    with pytest.raises(NotApplicable):
        learnware.finetune(parcels.rows(), parcels.labels())


def function_of_another_module(x):
    return x


def test_estimators_with_foreign_parts_are_refused(tmp_path):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    foreign = make_pipeline(FunctionTransformer(function_of_another_module), parcels.forest())
    with pytest.raises(BadPackage) as caught:
        parcels.package(tmp_path / "x.zip", foreign)
    assert caught.value.code == "pickle"


def edited(data: bytes, edit) -> bytes:
    """A skops file whose schema went through `edit`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, edit(content.decode()).encode() if name == "schema.json" else content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "edit, code",
    [
        (lambda s: s.replace('"sklearn.ensemble._forest"', '"os"'), "pickle"),
        (lambda s: s.replace('"sklearn.ensemble._forest"', '"subprocess"'), "pickle"),
        (lambda s: s.replace('"sklearn.ensemble._forest"', '"sklearnevil"'), "pickle"),
        (lambda s: s.replace("RandomForestClassifier", "NoSuchForest"), "pickle"),
        (lambda s: "{", "bad-estimator"),
        (lambda s: "[]", "bad-estimator"),
    ],
)
def test_edited_estimators_are_refused(tmp_path, edit, code):
    from didact.reusing.dock.runtimes.scikit_learn import dump

    good = parcels.package(tmp_path / "good.zip", parcels.forest())
    bad = parcels.respoil(good, tmp_path / "bad.zip", model__skops=edited(dump(parcels.forest()), edit))
    assert refusal(bad) == code


@pytest.mark.parametrize("field, value", [("left_child", 10**6), ("left_child", 0), ("feature", 6), ("feature", -7)])
def test_trees_that_point_outside_themselves_are_refused(tmp_path, field, value):
    from didact.reusing.dock.runtimes.scikit_learn import dump

    good = parcels.package(tmp_path / "good.zip", parcels.forest())
    forest = parcels.forest()
    tree = forest.estimators_[2].tree_
    state = tree.__getstate__()
    state["nodes"] = state["nodes"].copy()
    state["nodes"][field][0] = value
    tree.__setstate__(state)
    bad = parcels.respoil(good, tmp_path / "bad.zip", model__skops=dump(forest))
    assert refusal(bad) == "bad-estimator"


@pytest.mark.parametrize("which, index, value", [(1, 0, 10**6), (1, 0, 1), (2, "idx_end", 10**6), (2, "is_leaf", 0)])
def test_neighbour_trees_that_point_outside_themselves_are_refused(tmp_path, which, index, value):
    from sklearn.neighbors import KNeighborsClassifier

    from didact.reusing.dock.runtimes.scikit_learn import dump

    good = parcels.package(tmp_path / "good.zip", parcels.forest())
    x = parcels.rows(200)
    neighbours = KNeighborsClassifier(algorithm="kd_tree").fit(x.astype(float), np.arange(200) % 3)
    state = list(neighbours._tree.__getstate__())
    state[which] = state[which].copy()
    state[which][index] = value
    neighbours._tree.__setstate__(tuple(state))
    bad = parcels.respoil(good, tmp_path / "bad.zip", model__skops=dump(neighbours))
    assert refusal(bad) == "bad-estimator"


def test_an_ensemble_of_trees_for_wider_tables_is_refused(tmp_path):
    from sklearn.ensemble import RandomForestClassifier

    from didact.reusing.dock.runtimes.scikit_learn import dump

    good = parcels.package(tmp_path / "good.zip", parcels.forest())
    forest = parcels.forest()
    wide = RandomForestClassifier(5, max_depth=4, random_state=0).fit(parcels.rows(40, 60), parcels.labels())
    forest.estimators_[1:] = wide.estimators_[1:]
    bad = parcels.respoil(good, tmp_path / "bad.zip", model__skops=dump(forest))
    assert refusal(bad) == "bad-estimator"


def test_a_bomb_inside_an_estimator(tmp_path):
    good = parcels.package(tmp_path / "good.zip", parcels.forest())
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(60 * 2**20))
    assert refusal(parcels.respoil(good, tmp_path / "bad.zip", model__skops=stream.getvalue())) == "zip-bomb"


def test_importing_packages_imports_no_library():
    import subprocess
    import sys

    source = (
        "import sys\nimport didact.reusing.dock.package, didact.reusing.dock.checking, didact.reusing.dock.runtimes\n"
        "own = [n for n in ('onnx', 'onnxruntime', 'skops') if n in sys.modules]\nprint(own)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

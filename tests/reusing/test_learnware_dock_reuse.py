"""Reusing from a dock in a folder: what a user's `reuse` does, with everything real but the sandbox of the check."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from didact.core.errors import BadInput, NotApplicable
from didact.models.small import mlp
from didact.reusing import ReuseResult
from didact.reusing.dock import LocalDock, write_package
from didact.reusing.dock.checking import CheckReport
from didact.reusing.dock.semantics import Input, Output, SemanticSpecification
from didact.reusing.learnware_dock import DockJobSelector, reuse_from

CENTRES = {"north": (0.0, 4.0), "east": (4.0, 0.0), "south": (0.0, -4.0), "west": (-4.0, 0.0)}
GAMMA = 0.5


def cloud(names, each=60, seed=0):
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(CENTRES[name], 0.5, size=(each, 2)) for name in names])
    return x.astype(np.float32), np.repeat(np.arange(len(names)), each)


def nearest_centre(names) -> nn.Module:
    model = mlp(2, len(names), ())
    centres = torch.tensor([CENTRES[name] for name in names])
    with torch.no_grad():
        model.head.weight.copy_(2 * centres)
        model.head.bias.copy_(-centres.square().sum(1))
    return model.eval()


def words(name, names=(), columns=2, task="Classification", library="PyTorch", described=True):
    output = Output(dimension=max(1, len(names)), description=dict(enumerate(names)) if described else {})
    return SemanticSpecification(
        name=name, data="Table", task=task, library=library, input=Input(dimension=columns), output=output
    )


def passed(path):
    return CheckReport(1, "", "taken as it is, for a test")


@pytest.fixture(scope="module")
def dock(tmp_path_factory):
    """Two networks and a scikit-learn model of two columns; one of three; one that regresses five columns."""
    folder = tmp_path_factory.mktemp("dock")
    with LocalDock(folder / "dock", gamma=GAMMA, check=passed) as dock:
        for name, names in (("a", ["north", "east"]), ("b", ["south", "west"])):
            x, _ = cloud(names, seed=len(name))
            submit(dock, folder / f"{name}.zip", nearest_centre(names), words(name, names), x)
        x, y = cloud(["east", "south"], seed=3)
        model = LogisticRegression().fit(x, y)
        submit(dock, folder / "c.zip", model, words("c", ["east", "south"], library="scikit-learn"), x)
        rows = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
        plane = LinearRegression().fit(rows, rows.sum(1))
        about = words("sum", columns=5, task="Regression", library="scikit-learn", described=False)
        submit(dock, folder / "sum.zip", plane, about, rows)
        yield dock


def submit(dock, path, model, semantic, x):
    package = write_package(path, model, semantic=semantic, specification=dock.specify(x), input_shape=x.shape[1:])
    return dock.submit(package)


def accuracy(answer, names):
    x, y = cloud(names, seed=70)
    return float((answer.predict(x).argmax(1) == y).mean())


def names_of(dock, answer):
    return sorted(dock.info(id).semantic.name for id in answer.weights)


def test_without_labels_models_without_a_common_class_share_the_samples_out(dock):
    wanted = ("north", "south", "west")
    answer = reuse_from(dock, cloud(wanted)[0], classes=wanted, query={"library": "PyTorch"})
    assert names_of(dock, answer) == ["a", "b"]
    assert answer.predictor.kind == "dock-routed"
    assert accuracy(answer, wanted) > 0.95


@pytest.mark.parametrize("how", ["job-selector", "feature-augmentation", "auto"])
def test_every_reuser_works_on_a_dock(dock, how):
    wanted = ("north", "south", "west")
    answer = dock.reuse(cloud(wanted)[0], cloud(wanted, each=6, seed=4), how=how, classes=wanted)
    assert accuracy(answer, wanted) > 0.9


def test_pruning_votes_over_all_that_fit(dock):
    wanted = ("east", "south")
    answer = dock.reuse(cloud(wanted)[0], cloud(wanted, each=6, seed=4), how="ensemble-pruning", classes=wanted)
    assert "c" in names_of(dock, answer)
    assert accuracy(answer, wanted) > 0.95


def test_top1_is_the_nearest(dock):
    answer = dock.reuse(cloud(["south", "west"])[0], how="top1", classes=("west", "south"))
    assert names_of(dock, answer) == ["b"]
    assert accuracy(answer, ["west", "south"]) == 1.0
    assert answer.cost["bytes_sent"] == 0  # nothing leaves for a folder
    assert answer.cost["stored_parameters"] == 6


def test_a_reuser_with_hyperparameters_of_ones_own(dock):
    wanted = ("north", "south", "west")
    answer = reuse_from(dock, cloud(wanted)[0], how=DockJobSelector(points=100), classes=wanted)
    assert answer.predictor.kind == "dock-routed"


def test_classes_are_those_of_the_labels_or_of_the_models(dock):
    x, y = cloud(["north", "west"], each=6)
    named = np.array(["north", "west"])[y]
    assert reuse_from(dock, cloud(["north", "west"])[0], (x, named)).predictor.classes == ("north", "west")
    found = reuse_from(dock, cloud(["south", "west"])[0], how="top1")
    assert found.predictor.classes == ("south", "west")


def test_a_regression_is_reused_too(dock):
    x = np.random.default_rng(1).normal(size=(50, 5))
    answer = reuse_from(dock, x, how="averaging")
    assert answer.predict(x)[:, 0] == pytest.approx(x.sum(1), abs=1e-4)
    with_labels = reuse_from(dock, x, (x[:20], x[:20].sum(1)))
    assert with_labels.predict(x)[:, 0] == pytest.approx(x.sum(1), abs=1e-2)


def test_other_columns_are_aligned_when_nothing_is_alike(dock):
    x, y = cloud(["north", "east"], seed=5)
    wide = np.stack([x[:, 1], np.ones(len(x)), 3 * x[:, 0]], axis=1)
    answer = reuse_from(dock, wide, (wide[::6], y[::6]), classes=("north", "east"))
    assert all(source.mapper is not None for source in answer.predictor.sources)
    assert float((answer.predict(wide).argmax(1) == y).mean()) > 0.9


def test_an_answer_from_packages_is_the_same_after_saving(dock, tmp_path):
    wanted = ("north", "east", "south", "west")
    answer = dock.reuse(cloud(wanted)[0], cloud(wanted, each=6, seed=4), how="feature-augmentation", classes=wanted)
    loaded = ReuseResult.open(answer.save(tmp_path))
    x, _ = cloud(wanted, seed=6)
    assert np.array_equal(loaded.predict(x), answer.predict(x))


def test_a_ranker_looks_at_the_labels(dock):
    wanted = ("south", "west")
    few = cloud(wanted, each=8, seed=4)
    answer = reuse_from(dock, cloud(wanted)[0], few, how="top1", identify="best-single", classes=wanted,
                        query={"library": "PyTorch"})  # fmt: skip
    assert names_of(dock, answer) == ["b"]


def test_words_narrow_the_search(dock):
    wanted = ("east", "south")
    answer = reuse_from(dock, cloud(wanted)[0], classes=wanted, query={"library": "PyTorch"})
    assert "c" not in names_of(dock, answer)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"how": "magic"}, BadInput, "how is auto"),
        ({"classes": ("up", "down")}, NotApplicable, "knows any of the classes"),
        ({"labelled": (np.zeros((2, 2)), np.array(["north", "up"])), "classes": ("north",)}, BadInput, "up came too"),
        ({"labelled": (np.zeros((2, 2)), np.array([0, 7])), "classes": ("north", "east")}, BadInput, "from 0 to 1"),
        ({"labelled": (np.zeros((2, 2)), np.zeros((2, 2), int)), "classes": ("north",)}, BadInput, "one for each"),
        ({"data": np.zeros(5)}, BadInput, "an array of"),
        ({"data": ["some", "texts"]}, NotApplicable, "no learnware that can be compared"),
        ({"how": "feature-augmentation"}, NotApplicable, "labelled samples"),
        ({"query": {"library": "ONNX"}}, NotApplicable, "no learnware"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_reason(dock, change, error, says):
    given = {"data": cloud(["north", "east"])[0], **change}
    with pytest.raises(error, match=says):
        reuse_from(dock, given.pop("data"), **given)

"""The dock's reusers on a plane with four clouds of points, where every right answer can be worked out by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from torch import nn
from torch.utils.data import TensorDataset

from didact.core import registry
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Regression
from didact.models.small import mlp
from didact.reusing import Budget, ModelRecord, Request, ReuseResult, Task, Truth
from didact.reusing.dock import specify
from didact.reusing.learnware_dock import (
    Crowd,
    CrowdProblem,
    DockAveraging,
    DockEnsemblePruning,
    DockFeatureAlignment,
    DockFeatureAugmentation,
    DockJobSelector,
    DockTop1,
    EachUser,
    LearnwareDock,
    gamma_by_reuse,
    identify,
)
from didact.reusing.learnware_dock.case import Case, vectors_of
from didact.reusing.learnware_dock.crowd import CrowdTruth
from didact.reusing.learnware_dock.ensemble_pruning import _Votes, margins
from didact.reusing.learnware_dock.feature_alignment import mmd2
from didact.reusing.learnware_dock.feature_augmentation import cross_validated
from didact.reusing.learnware_dock.linear import Linear
from didact.reusing.learnware_dock.predictors import Averaged, votes
from didact.reusing.learnware_dock.problem import SHARES, dock_digits
from didact.reusing.learnware_dock.sources import Source

CENTRES = {"north": (0.0, 4.0), "east": (4.0, 0.0), "south": (0.0, -4.0), "west": (-4.0, 0.0)}
GAMMA = 0.5


def cloud(names, each=60, seed=0):
    """Points about the centres of some names, with their labels: places in `names`."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(CENTRES[name], 0.5, size=(each, 2)) for name in names])
    return torch.from_numpy(x).float(), torch.arange(len(names)).repeat_interleave(each)


def nearest_centre(names) -> nn.Module:
    """A network that names the nearest centre: logits 2 c.x - |c|^2."""
    model = mlp(2, len(names), ())
    centres = torch.tensor([CENTRES[name] for name in names])
    with torch.no_grad():
        model.head.weight.copy_(2 * centres)
        model.head.bias.copy_(-centres.square().sum(1))
    return model.eval()


def record(id, names, seed=0, gammas=(GAMMA,), **known):
    x, _ = cloud(names, seed=seed)
    specifications = tuple(specify(x.numpy(), gamma=gamma, k=20, seed=seed) for gamma in gammas)
    settings = {"classes": tuple(names), "input_shape": (2,), "specification": specifications, **known}
    return ModelRecord.of(nearest_centre(names), id, **settings)


@pytest.fixture(scope="module")
def hub():
    return (record("a", ["north", "east"], 1), record("b", ["south", "west"], 2), record("c", ["east", "south"], 3))


def request(hub, wanted=("north", "south", "west"), labelled=None, seed=0):
    x, _ = cloud(wanted, seed=9)
    few = None
    if labelled:
        lx, ly = cloud(wanted, each=labelled, seed=10)
        few = TensorDataset(lx, ly)
    return Request(hub, Task(TensorDataset(x), few, tuple(wanted)), seed=seed)


def accuracy(answer, wanted):
    x, y = cloud(wanted, seed=77)
    return float((answer.predict(x).argmax(1) == y.numpy()).mean())


class Says:
    """A model that answers the same whatever it is asked."""

    def __init__(self, answers):
        self.answers = np.asarray(answers)

    def predict(self, inputs):
        return self.answers[: len(inputs)]


# -- identification ---------------------------------------------------------------------------------------------------


def test_the_ranking_is_minus_the_distance_and_the_mixture_that_of_the_search(hub):
    case = Case.of(request(hub, ["north", "south", "west"]))
    found = identify(case, hub)
    asked = specify(case.inputs, gamma=GAMMA, seed=0)
    for each in hub:
        assert found.ranking[each.id] == pytest.approx(-asked.distance(each.specification[0]))
    assert [r.id for r in found.records] == sorted(found.ranking, key=lambda id: -found.ranking[id])
    assert set(found.shares) == {"a", "b"}
    assert found.shares["b"] > found.shares["a"]
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_a_single_search_gives_the_nearest_alone(hub):
    assert identify(Case.of(request(hub, ["south", "west"])), hub, "single").shares == {"b": 1.0}


def test_models_that_know_no_class_of_the_task_are_left_out(hub):
    found = identify(Case.of(request(hub, ["south", "west"])), hub)
    assert "a" not in found.ranking
    assert set(found.ranking) == {"b", "c"}


def test_gamma_chooses_among_specifications_and_the_first_is_the_docks(hub):
    both = tuple(record(r.id, r.classes, i, gammas=(0.25, 2.0)) for i, r in enumerate(hub))
    case = Case.of(request(both))
    assert identify(case, both).specification.gamma == 0.25
    assert identify(case, both, gamma=2.0).specification.gamma == 2.0
    with pytest.raises(NotApplicable, match="at gamma 7"):
        identify(case, both, gamma=7.0)


def test_a_specification_may_be_a_function_that_is_called_late(hub):
    late = tuple(replace(r, specification=lambda r=r: r.specification[0]) for r in hub)
    assert identify(Case.of(request(late)), late).ranking == identify(Case.of(request(hub)), hub).ranking


def test_records_without_specifications_are_refused(hub):
    bare = tuple(replace(r, specification=None) for r in hub)
    with pytest.raises(NotApplicable, match="carries a statistical specification"):
        LearnwareDock().solve(request(bare))


@pytest.mark.filterwarnings("ignore:.*below the floor")
def test_a_ranker_can_identify(hub):
    answer = LearnwareDock(identify="tmi", how="top1").solve(request(hub, labelled=8))
    assert len(answer.weights) == 1
    with pytest.raises(BadInput, match="ranks no models"):
        DockTop1(identify="uniform-ensemble").solve(request(hub, labelled=8))


# -- sources ----------------------------------------------------------------------------------------------------------


def test_outputs_that_are_probabilities_stay_and_others_are_softmaxed():
    x = np.zeros((1, 2))
    assert Source("p", Says([[0.25, 0.75]]), ("a", "b")).probabilities(x).tolist() == [[0.25, 0.75]]
    assert Source("l", Says([[0.0, np.log(3.0)]]), ("a", "b")).probabilities(x)[0] == pytest.approx([0.25, 0.75])


def test_labels_become_rows_and_one_number_for_two_classes_is_of_the_second():
    x = np.zeros((2, 2))
    assert Source("n", Says([1, 0]), ("a", "b")).outputs(x).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert Source("s", Says([0.25, 1.0]), ("a", "b")).outputs(x).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert Source("r", Says([3.5, 1.0])).outputs(x).tolist() == [[3.5], [1.0]]


def test_an_answer_of_the_wrong_length_is_refused():
    with pytest.raises(BadInput, match="one row each"):
        Source("x", Says([[1.0, 2.0, 3.0]]), ("a", "b", "c")).outputs(np.zeros((2, 2)))


# -- averaging --------------------------------------------------------------------------------------------------------


def test_averaging_counts_each_class_over_those_that_know_it():
    x = np.zeros((1, 2))
    sources = [
        Source("p", Says([[0.6, 0.4]]), ("a", "b")),
        Source("q", Says([[0.2, 0.8]]), ("b", "c")),
    ]
    # b: known by both, (0.25 * 0.4 + 0.75 * 0.2) / 1; a and c by one each; d by nobody.
    found = Averaged(sources, ("c", "b", "a", "d"), [0.25, 0.75]).predict(x)
    assert found[0] == pytest.approx([0.8, 0.25, 0.6, 0.0])


def test_votes_are_weighed_and_cast_among_the_classes_that_are_wanted():
    x = np.zeros((1, 2))
    sources = [
        Source("p", Says([[0.1, 0.9]]), ("a", "x")),  # likes x best, which nobody wants
        Source("q", Says([[0.2, 0.8]]), ("a", "b")),
        Source("r", Says([[0.3, 0.7]]), ("a", "b")),
    ]
    assert votes(sources, ("a", "b"), x, [0.5, 0.3, 0.1])[0] == pytest.approx([0.5, 0.4])
    assert Averaged(sources, ("a", "b"), [0.5, 0.3, 0.1], "vote").predict(x)[0] == pytest.approx([0.5, 0.4])


def test_nobody_votes_for_a_class_it_does_not_know():
    unsure = Source("p", Says([[0.0, 1.0]]), ("b", "x"))  # of the classes wanted it knows b only, and doubts it
    assert votes([unsure], ("a", "b"), np.zeros((1, 2))).tolist() == [[0.0, 1.0]]


def test_the_mean_of_outputs_is_of_the_raw_ones():
    sources = [Source("p", Says([[4.0, 0.0]]), ("a", "b")), Source("q", Says([[0.0, 2.0]]), ("a", "b"))]
    assert Averaged(sources, ("a", "b"), mode="mean").predict(np.zeros((1, 2))).tolist() == [[2.0, 1.0]]


def test_numbers_are_averaged_with_their_weights():
    sources = [Source("p", Says([1.0])), Source("q", Says([5.0]))]
    assert Averaged(sources, (), [0.75, 0.25]).predict(np.zeros((1, 2))).tolist() == [[2.0]]


# -- the reusers on the clouds ----------------------------------------------------------------------------------------


def test_top1_knows_what_its_model_knows(hub):
    answer = DockTop1().solve(request(hub, ["north", "south", "west"]))
    assert answer.top == "b"
    assert answer.weights == {"b": 1.0}
    assert accuracy(answer, ["north", "south", "west"]) == pytest.approx(2 / 3, abs=0.02)
    assert answer.predict(cloud(["north"])[0])[:, 0].max() == 0.0


@pytest.mark.parametrize("method", [DockJobSelector(points=200), DockFeatureAugmentation(), LearnwareDock()])
def test_a_mixture_serves_the_whole_task(hub, method):
    wanted = ["north", "south", "west"]
    assert accuracy(method.solve(request(hub, wanted, labelled=8)), wanted) > 0.98


def test_the_selector_sends_every_cloud_to_the_model_that_knows_it(hub):
    answer = DockJobSelector(points=200).solve(request(hub, ["north", "south", "west"]))
    ids = [source.id for source in answer.predictor.sources]
    assert {ids[place] for place in answer.predictor.route(cloud(["north"])[0])} == {"a"}
    assert {ids[place] for place in answer.predictor.route(cloud(["west"])[0])} == {"b"}


def test_points_are_herded_by_share_and_never_too_few(hub):
    found = identify(Case.of(request(hub)), hub)
    found = replace(found, shares={"b": 0.99, "a": 0.01})
    points, places = DockJobSelector(points=300, fewest=20).herded(found)
    assert np.bincount(places).tolist() == [297, 20]
    assert points.shape == (317, 2)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_feature_augmentation_is_logistic_regression_on_values_and_outputs(hub):
    asked = request(hub, labelled=6)
    answer = DockFeatureAugmentation().solve(asked)
    x, y = asked.task.labelled.tensors
    sources = answer.predictor.sources
    both = np.concatenate([x.numpy(), *(s.outputs(x) for s in sources)], axis=1)
    model = LogisticRegressionCV(Cs=10, cv=5, scoring="accuracy", max_iter=3000, random_state=0).fit(both, y)
    test, _ = cloud(["north", "south", "west"], seed=5)
    features = np.concatenate([test.numpy(), *(s.outputs(test) for s in sources)], axis=1)
    assert answer.predict(test) == pytest.approx(model.predict_proba(features), abs=1e-6)


def test_cross_validation_judges_every_label_by_a_fit_without_it(hub):
    x, y = (part.numpy() for part in cloud(["north", "south", "west"], each=8, seed=2))
    sources = [Source.of(r) for r in hub[:2]]
    assert cross_validated(sources, Case(x, ("north", "south", "west"), x, y), "") == 1.0
    noise = np.random.default_rng(0).integers(0, 3, size=len(y))
    assert cross_validated(sources, Case(x, ("north", "south", "west"), x, noise), "") < 0.7


def test_auto_keeps_the_mixture_as_it_is_where_labels_teach_nothing_better(hub):
    wanted = ("north", "south", "west")
    asked = request(hub, wanted, labelled=1)  # one label a class: nothing to validate with
    assert LearnwareDock().solve(asked).predictor.kind != "dock-augmented"


def test_ridge_regression_for_numbers():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    found = Linear.regressor(x, y).predict(x)
    assert found[:, 0] == pytest.approx(RidgeCV(alphas=(0.01, 0.1, 1.0, 10.0, 100.0)).fit(x, y).predict(x))


def test_two_classes_keep_their_sides_and_absent_ones_get_nothing():
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    found = Linear.classifier(x, np.array([1, 1, 3, 3]), 4).predict(x)
    assert found[:, [0, 2]].max() == 0.0
    assert found.argmax(1).tolist() == [1, 1, 3, 3]
    assert found.sum(1) == pytest.approx(np.ones(4))
    assert Linear.classifier(x, np.array([2, 2, 2, 2]), 4).predict(x).argmax(1).tolist() == [2] * 4


def test_missing_features_count_as_the_mean():
    x = np.array([[0.0, 1.0], [2.0, np.nan], [4.0, 3.0], [6.0, 5.0]])
    model = Linear.regressor(x, np.arange(4.0))
    assert model.middle.tolist() == [3.0, 3.0]
    assert model.predict(np.array([[np.nan, np.inf]])) == pytest.approx(model.predict(np.array([[3.0, 3.0]])))


@pytest.mark.parametrize("method", [DockFeatureAugmentation(), DockEnsemblePruning()])
def test_reusers_that_learn_from_labels_ask_for_them(hub, method):
    with pytest.raises(NotApplicable, match="labelled samples"):
        method.solve(request(hub))


def test_the_answer_tells_what_it_was_made_from_and_what_it_cost(hub):
    answer = DockAveraging().solve(request(hub))
    assert answer.provenance["ids"] == list(answer.weights)
    assert answer.provenance["digests"] == [next(r.digest for r in hub if r.id == id) for id in answer.weights]
    assert answer.cost["stored_parameters"] == 2 * 6
    asked = specify(cloud(["north", "south", "west"], seed=9)[0].numpy(), gamma=GAMMA, seed=0)
    assert answer.cost["bytes_sent"] == len(json.dumps(asked.to_json(), separators=(",", ":")))
    assert "a (" in answer.explain()


# -- ensemble pruning -------------------------------------------------------------------------------------------------


def test_margins_by_hand():
    counts = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 1.0], [0.0, 0.0, 4.0]])
    assert margins(counts, np.array([0, 0, 2])).tolist() == [0.5, -0.25, 1.0]


def test_the_three_criteria_by_hand():
    # Two samples, truth 0 and 1; voters: always right, always 0, always wrong.
    criteria = _Votes(np.array([[0, 1], [0, 0], [1, 0]]), np.array([0, 1]), 2)
    both = np.array([True, True, False])
    # Margins: sample 0: (2 - 0) / 2 = 1; sample 1: (1 - 1) / 2 = 0. A tie goes to class 0, so sample 1 is an error.
    assert criteria(both) == [pytest.approx(0.5 / 0.5), 1.0, 2.0]
    assert criteria(np.array([False, True, True]))[0] == 1e5  # mean margin below zero


def test_pruning_finds_the_two_that_are_always_right():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, size=40)
    voted = rng.integers(0, 3, size=(8, 40))
    voted[2] = voted[5] = truth
    assert DockEnsemblePruning().prune(_Votes(voted, truth, 3), 8) == [2, 5]


def test_fewer_errors_count_before_a_smaller_size():
    # Each errs on a sample of its own: any two tie there, and a tie goes to the wrong class 0; all three are right.
    voted = np.array([[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]])
    assert DockEnsemblePruning().prune(_Votes(voted, np.ones(4, dtype=int), 2), 3) == [0, 1, 2]


def test_pruning_drops_the_models_that_mislead(hub):
    wrong = ModelRecord.of(nearest_centre(["east", "north"]), "liar", classes=("north", "east"), input_shape=(2,),
                           specification=hub[0].specification)  # fmt: skip
    twin = record("twin", ["north", "east"], 5)
    answer = DockEnsemblePruning().solve(request((hub[0], wrong, twin), ["north", "east"], labelled=10))
    assert set(answer.weights) == {"a", "twin"}
    assert answer.cost["evaluations"] == 40 * 60


# -- feature alignment ------------------------------------------------------------------------------------------------


def test_the_training_loss_is_the_distance_of_specifications():
    x, _ = cloud(["north", "east"])
    one, other = specify(x.numpy(), gamma=GAMMA, k=9, seed=0), specify(x.numpy() + 1.0, gamma=GAMMA, k=7, seed=1)
    parts = [torch.tensor(part) for part in (one.z, one.beta, other.z, other.beta)]
    assert float(mmd2(*parts, GAMMA)) == pytest.approx(one.distance(other), abs=1e-12)


def test_a_map_is_trained_towards_the_models_data():
    other = record("a", ["north", "east"], 1)
    wide = torch.cat([cloud(["north", "east"], seed=4)[0], torch.ones(120, 1)], 1)
    case = Case(wide.numpy(), ("north", "east"))
    short = DockFeatureAlignment(epochs=1).aligned(other, case)[1]
    source, long = DockFeatureAlignment(epochs=150).aligned(other, case)
    assert long < short / 2
    assert source.outputs(wide).shape == (120, 2)


def test_alignment_serves_users_with_other_columns_from_their_labels():
    """Three columns in another order and scale: what the models say is a feature beside the user's own values."""
    hub = (record("a", ["north", "east"], 1), record("b", ["south", "west"], 2))
    x, y = cloud(["north", "east"], seed=4)
    wide = torch.stack([x[:, 1], torch.zeros(len(x)), 3 * x[:, 0]], 1)
    asked = Request(hub, Task(TensorDataset(wide), TensorDataset(wide[::6], y[::6]), ("north", "east")))
    answer = LearnwareDock().solve(asked)
    assert answer.predictor.sources[0].mapper is not None
    assert float((answer.predict(wide).argmax(1) == y.numpy()).mean()) > 0.95
    assert answer.cost["training_steps"] == 50 * 2
    unlabelled = LearnwareDock().solve(replace(asked, task=replace(asked.task, labelled=None)))
    assert list(unlabelled.weights) == ["a"]  # the other knows none of the classes


def test_nothing_to_align_with_is_said(hub):
    with pytest.raises(NotApplicable, match="nothing to align with"):
        DockFeatureAlignment().solve(request(hub))


# -- regression -------------------------------------------------------------------------------------------------------


class Plane:
    """Predicts the sum of the columns, plus something."""

    def __init__(self, offset):
        self.offset = offset

    def predict(self, inputs):
        return np.asarray(inputs).sum(1) + self.offset


@pytest.mark.parametrize(
    "how", ["auto", "top1", "averaging", "job-selector", "feature-augmentation", "ensemble-pruning"]
)
def test_numbers_are_predicted_too(how):
    x, _ = cloud(["north", "south"], seed=1)
    specification = specify(x.numpy(), gamma=GAMMA, k=10)
    hub = tuple(ModelRecord(f"p{o}", lambda o=o: Plane(o), input_shape=(2,), specification=specification)
                for o in (-1.0, 0.0, 1.0))  # fmt: skip
    y = x.sum(1, keepdim=True)
    task = Task(TensorDataset(x), TensorDataset(x[::5], y[::5]), objective=Regression())
    found = LearnwareDock(how=how).solve(Request(hub, task)).predict(x)
    assert found.shape == (120, 1)
    assert np.abs(found - y.numpy()).max() <= 1.0 + 1e-6


# -- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [DockTop1(), DockAveraging(), DockJobSelector(points=100), DockFeatureAugmentation(), DockEnsemblePruning()],
    ids=lambda m: m.card.slug,
)
@pytest.mark.parametrize("wanted", [("north", "south", "west"), ("north", "east", "south", "west")])
def test_an_answer_is_the_same_after_saving(hub, method, wanted, tmp_path):
    answer = method.solve(request(hub, wanted, labelled=6))
    loaded = ReuseResult.open(answer.save(tmp_path))
    x, _ = cloud(wanted, seed=8)
    assert np.array_equal(loaded.predict(x), answer.predict(x))
    assert not [f for f in tmp_path.rglob("*") if f.suffix in (".pkl", ".pt", ".joblib", ".bin")]


def test_an_aligned_answer_is_the_same_after_saving(tmp_path):
    x = torch.cat([cloud(["north", "east"], seed=4)[0], torch.ones(120, 1)], 1)
    task = Task(TensorDataset(x), None, ("north", "east"))
    answer = DockFeatureAlignment().solve(Request((record("a", ["north", "east"]),), task))
    assert np.array_equal(ReuseResult.open(answer.save(tmp_path)).predict(x), answer.predict(x))


def test_a_model_that_only_predicts_cannot_be_stored(hub, tmp_path):
    only = replace(hub[0], load=lambda: Says(np.ones((999, 2)) / 2))
    with pytest.raises(NotApplicable, match="cannot be stored"):
        DockTop1().solve(request((only,), ["north", "east"])).save(tmp_path)


# -- the kernel width -------------------------------------------------------------------------------------------------


def test_a_width_is_fixed_that_tells_the_models_apart(hub):
    fixed = gamma_by_reuse(hub, (1e4, GAMMA), points=20, users=10)
    assert fixed == GAMMA
    assert fixed == gamma_by_reuse(hub, (1e4, GAMMA), points=20, users=10)


def test_a_width_needs_models_that_name_their_classes(hub):
    with pytest.raises(BadInput, match="name their classes"):
        gamma_by_reuse([replace(hub[0], classes=()), hub[1]], points=5)
    with pytest.raises(BadInput, match="two models or more"):
        gamma_by_reuse(hub[:1], points=5)


# -- many users -------------------------------------------------------------------------------------------------------


def crowd(hub):
    tasks = [("north", "east"), ("south", "west"), ("north", "south", "west")]
    users = tuple(request(hub, wanted, labelled=6) for wanted in tasks)
    tests = [TensorDataset(*cloud(wanted, seed=50)) for wanted in tasks]
    truth = CrowdTruth(tuple(Truth(test, {"a": 0.5, "b": 0.25, "c": 0.0}) for test in tests))
    given = Crowd(hub, users[0].task, budget=Budget(steps=5), users=users)
    return CrowdProblem(given, lambda: truth)


def test_a_crowd_is_scored_by_the_mean_over_its_users(hub):
    problem = crowd(hub)
    answer = DockTop1().solve(problem.given)
    alone = [DockTop1().solve(user) for user in problem.given.users]
    scores = [accuracy_on(a, t.test) for a, t in zip(alone, problem.reveal().users, strict=True)]
    found = problem.score(answer)
    assert found["test_score"] == pytest.approx(np.mean(scores))
    assert found["learnwares_used"] == 1.0
    assert found["best_single"] == 0.5
    assert len(answer.extras["users"]) == 3


def accuracy_on(answer, test):
    x, y = test.tensors
    return float((answer.predict(x).argmax(1) == y.numpy()).mean())


def test_other_methods_join_through_each_user(hub):
    problem = crowd(hub)
    answer = EachUser(method="uniform-ensemble").solve(problem.given)
    assert 0.5 < problem.score(answer)["test_score"] <= 1.0
    assert "each-user" in problem.lacks(("models", "classes"), ())
    assert problem.lacks(DockTop1.card.needs, DockTop1.card.tasks) is None
    assert problem.lacks(EachUser.card.needs, ()) is None
    with pytest.raises(NotApplicable, match="several"):
        problem.score(ReuseResult())
    with pytest.raises(NotApplicable, match="one user only"):
        EachUser().solve(request(hub))


def test_a_crowds_answers_are_kept_apart(hub, tmp_path):
    problem = crowd(hub)
    problem.keep(DockTop1().solve(problem.given), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["user-00", "user-01", "user-02"]


def test_dock_digits_is_what_it_says():
    problem = dock_digits(0, learnwares=4, users=2, labelled=30, unlabelled=150)
    given = problem.given
    assert isinstance(given, Crowd)
    assert [len(r.classes) for r in given.models] == [4] * 4
    for user, truth in zip(given.users, problem.reveal().users, strict=True):
        parts = [user.task.data.tensors[0], user.task.labelled.tensors[0], truth.test.tensors[0]]
        rows = np.concatenate([part.numpy() for part in parts])
        assert len(np.unique(rows, axis=0)) == len(rows) == 380
        shares = np.bincount(truth.test.tensors[1].numpy()) / 200
        assert sorted(shares.tolist()) == pytest.approx(sorted(SHARES))
    widths = [s.gamma for s in given.models[0].specification]
    assert len(widths) == len(set(widths)) >= 3
    assert problem.about["gamma"] == widths[0]


def test_the_methods_are_registered_under_their_slugs():
    slugs = {cls.card.slug for cls in registry.methods("reusing")}
    assert {"learnware-dock", "dock-top1", "dock-averaging", "dock-job-selector", "dock-feature-augmentation",
            "dock-ensemble-pruning", "dock-feature-alignment", "dock-over-http", "each-user"} <= slugs  # fmt: skip


def test_vectors_are_flattened_values_and_texts_need_an_encoder():
    assert vectors_of(np.ones((2, 3, 4))).shape == (2, 12)
    with pytest.raises(BadInput, match="text encoder"):
        vectors_of(["a", "b"])

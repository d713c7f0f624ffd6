"""Transferability measures against their cards' worked values, brute force, and the definitions of their papers."""

import warnings

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from torch.utils.data import DataLoader, TensorDataset

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.models.small import mlp
from didact.reusing import ModelRecord, Task
from didact.reusing.features import kept_features, read
from didact.reusing.tmi import (
    GBC,
    LEEP,
    NCE,
    TMI,
    HScore,
    LinearProbe,
    LogME,
    NearestNeighbours,
    ParameterCount,
    RandomRanking,
    class_entropies,
)

LINE = np.array([0.0, 1, 2, 3, 10, 14, 18, 22])[:, None]
HALVES = np.repeat([0, 1], 4)
BY_FEATURES = (TMI(), TMI(normalise="rms"), LogME(), HScore(), GBC(), NearestNeighbours(), LinearProbe())
BY_PROBABILITIES = (LEEP(), NCE())


@pytest.fixture(scope="module")
def clouds():
    """Features (90, 5) of three overlapping classes."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    return rng.normal(size=(90, 5)) + 1.5 * np.eye(5)[labels], labels


@pytest.fixture(scope="module")
def target():
    rng = np.random.default_rng(1)
    labels = torch.arange(60) % 3
    x = torch.from_numpy(rng.normal(size=(60, 6))).float() + 2 * torch.eye(6)[labels]
    return TensorDataset(x, labels)


def network(seed, outputs=4, hidden=(16, 8)):
    torch.manual_seed(seed)
    return mlp(6, outputs, hidden).eval()


# -- the card's worked values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "entropies", "score"), [(1, (2.526481, 3.912775), 1.609814), (3, (1.922360, 3.308655), 1.307754)]
)
def test_worked_values(k, entropies, score):
    found = class_entropies(LINE - LINE.mean(0), HALVES, k, min_dist=1.0)
    assert (found[0], found[1]) == pytest.approx(entropies, abs=1e-6)
    assert TMI(k=k)(LINE, HALVES) == pytest.approx(score, abs=1e-6)


def test_doubling_one_dimension_adds_half_of_log_two():
    method = TMI(min_dist=1e-9)
    assert method(2 * LINE, HALVES) - method(LINE, HALVES) == pytest.approx(0.346574, abs=1e-6)


@pytest.mark.parametrize("norm", ["max", "euclidean"])
def test_entropies_of_known_densities(norm):
    rng = np.random.default_rng(0)
    uniform, normal = rng.random((4000, 1)), rng.normal(size=(4000, 2))
    one_class = np.zeros(4000, dtype=int)
    assert class_entropies(uniform, one_class, 3, 0.0, norm)[0] == pytest.approx(0.0, abs=0.05)
    assert class_entropies(normal, one_class, 3, 0.0, norm)[0] == pytest.approx(2.8379, abs=0.05)


@pytest.mark.parametrize("norm", ["max", "euclidean"])
def test_entropies_by_brute_force(clouds, norm):
    z, labels = clouds
    found = class_entropies(z, labels, 3, 1e-3, norm)
    from math import gamma, log, pi

    for c in range(3):
        own = z[labels == c]
        gaps = own[:, None] - own[None]
        distances = np.sort(np.abs(gaps).max(-1) if norm == "max" else np.linalg.norm(gaps, axis=-1), axis=1)[:, 3]
        n, d = own.shape
        volume = 2.0**d if norm == "max" else pi ** (d / 2) / gamma(d / 2 + 1)  # of the unit ball of radius 1
        psi_n, psi_k = (-0.5772156649015329 + sum(1 / i for i in range(1, m)) for m in (n, 3))
        assert found[c] == pytest.approx(psi_n - psi_k + log(volume) + d * np.log(distances).mean(), abs=1e-9)


@pytest.mark.parametrize("method", BY_FEATURES, ids=lambda m: f"{m.card.slug}-{getattr(m, 'normalise', '')}")
def test_order_of_rows_and_names_of_classes_change_nothing(method, clouds):
    z, labels = clouds
    if isinstance(method, LinearProbe):
        pytest.skip("its folds are drawn by place")
    order = np.random.default_rng(3).permutation(len(z))
    before = method(z, labels)
    assert method(z[order], labels[order]) == pytest.approx(before, abs=1e-9)
    assert method(z, labels * 7 - 3) == pytest.approx(before, abs=1e-9)


def test_rms_makes_scale_and_shift_irrelevant(clouds):
    z, labels = clouds
    for method in (TMI(normalise="rms"), TMI(normalise="rms", per_dimension=True)):
        assert method(100 * z + 5, labels) == pytest.approx(method(z, labels), abs=1e-9)
    # H(aZ) = H(Z) + d ln a; three classes of equal size share (1/3) sum (1/3) H.
    raw = TMI(min_dist=1e-12)
    assert raw(2 * z, labels) - raw(z, labels) == pytest.approx(5 * np.log(2) / 3, abs=1e-9)
    assert TMI(per_dimension=True, min_dist=1e-12)(z, labels) == pytest.approx(raw(z, labels) / 5)


def test_wide_features_are_reduced_to_their_principal_components(clouds):
    z, labels = clouds
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(300, 5)))[0].T
    narrow = TMI(norm="euclidean", min_dist=1e-6, components=5)
    assert narrow(z @ turn, labels) == pytest.approx(narrow(z, labels), abs=1e-6)
    assert TMI(components=None, min_dist=1e-6)(z @ turn, labels) < 5 * narrow(z, labels)


def test_small_and_repeated_classes():
    z = np.concatenate([LINE, [[50.0]], [[70.0], [71.0]]])
    labels = np.concatenate([HALVES, [2], [3, 3]])
    with pytest.warns(UserWarning, match="1 classes have no more than k=3"):
        score = TMI(k=3)(z, labels)  # classes 0, 1 and the single sample (0) count; class 3 does not
    assert score == pytest.approx((4 / 11 * 1.922360 + 4 / 11 * 3.308655) / 3, abs=1e-6)
    with pytest.warns(UserWarning, match="min_dist=1"):
        TMI(k=1)(np.tile(LINE, (2, 1)), np.tile(HALVES, 2))  # every sample twice: all distances are 0
    with pytest.raises(BadInput, match="k=1 neighbours"):
        TMI(k=1, min_dist=0.0)(np.zeros((8, 2)), HALVES)


# -- the rivals against brute force ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [5, 40])
def test_logme_is_the_largest_evidence(clouds, width):
    """By search over both precisions with the full covariance; 40 dimensions are more than the 30 samples."""
    z, labels = clouds[0][:30], clouds[1][:30]
    if width > 5:
        z = np.random.default_rng(0).normal(size=(30, width))
    best = []
    for c in range(3):
        y = (labels == c).astype(float)

        def minus(logs, y=y):
            alpha, beta = np.exp(logs)
            return -multivariate_normal(np.zeros(30), z @ z.T / alpha + np.eye(30) / beta).logpdf(y)

        best.append(-min(minimize(minus, start, method="Nelder-Mead").fun for start in ((0, 0), (3, 3), (3, 1))) / 30)
    assert LogME()(z, labels) == pytest.approx(np.mean(best), abs=1e-4)


def test_leep_and_nce_are_their_sums():
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]])
    labels = np.array([0, 1, 1, 0])
    total = 0.0
    for i in range(4):
        inner = 0.0
        for z in range(3):
            joint = sum(rows[j, z] for j in range(4) if labels[j] == labels[i]) / 4
            inner += joint / (sum(rows[j, z] for j in range(4)) / 4) * rows[i, z]
        total += np.log(inner)
    assert LEEP()(rows, labels) == pytest.approx(total / 4, abs=1e-12)
    # Predicted classes 0, 1, 2, 1: classes 0 and 2 tell the label, class 1 leaves one bit for half of the samples.
    assert NCE()(rows, labels) == pytest.approx(-0.5 * np.log(2), abs=1e-12)
    one_hot = np.eye(3)[labels]
    assert LEEP()(one_hot, labels) == pytest.approx(0.0, abs=1e-12)
    assert NCE()(one_hot, labels) == pytest.approx(0.0, abs=1e-12)


def test_h_score_is_invariant_and_explains_at_most_everything(clouds):
    z, labels = clouds
    mix = np.random.default_rng(0).normal(size=(5, 5))
    assert HScore()(z @ mix + 3, labels) == pytest.approx(HScore()(z, labels), abs=1e-8)
    means = np.stack([z[labels == c].mean(0) for c in labels]) - z.mean(0)
    expected = np.trace(np.linalg.solve(np.cov(z.T, bias=True), means.T @ means / 90))
    assert HScore()(z, labels) == pytest.approx(expected, abs=1e-9)
    assert HScore()(np.eye(2)[HALVES], HALVES) == pytest.approx(1.0, abs=1e-9)
    assert 0 < HScore(shrinkage=True)(z, labels) < HScore()(z, labels)


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_gbc_is_the_overlap_of_the_classes(covariance):
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(40, 2)) * [1, 3], np.repeat([0, 1], 20)
    z[20:] += [2.0, 0.0]
    found = GBC(covariance=covariance)(z, labels)
    # The same by numerical integration of sqrt(p q) over a grid, in the turned space.
    c = z - z.mean(0)
    c = c @ np.linalg.svd(c, full_matrices=False)[2].T
    grid = np.stack(np.meshgrid(np.linspace(-25, 25, 501), np.linspace(-25, 25, 501)), -1)
    densities = []
    for label in (0, 1):
        variance = c[labels == label].var(0)
        if covariance == "spherical":
            variance = np.full(2, variance.mean())
        densities.append(multivariate_normal(c[labels == label].mean(0), np.diag(variance)).pdf(grid))
    assert found == pytest.approx(-2 * np.sqrt(densities[0] * densities[1]).sum() * 0.1**2, abs=1e-4)


def test_neighbours_and_probe_tell_apart_what_is_apart(clouds):
    far = 100 * np.eye(3)[np.arange(90) % 3] + clouds[0][:, :3]
    shuffled = np.random.default_rng(0).permutation(clouds[1])
    for method in (NearestNeighbours(), LinearProbe()):
        assert method(far, clouds[1]) == 1.0
        assert method(far, shuffled) < 0.6
    # Each of four points on a line votes with its nearest: 0-1 agree, 2-3 agree; a single far point is outvoted.
    assert NearestNeighbours(neighbours=1)([[0.0], [1.0], [10.0], [11.0], [12.5]], [0, 0, 1, 1, 0]) == 0.8


# -- ranking models and layers -----------------------------------------------------------------------------------------


def test_it_ranks_models_in_one_pass_each(target):
    models = [network(seed) for seed in range(3)]
    for method in (*BY_FEATURES, *BY_PROBABILITIES):
        with Meter() as meter, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = method.reuse(models, Task(labelled=target))
        assert set(result.ranking) == {"model-00", "model-01", "model-02"}
        assert meter.forward == 3 * 60
        assert meter.backward == 0
        assert result.cost["evaluations"] == 3
        assert result.cost["training_steps"] == 0
    sizes = [network(0, hidden=(4,)), network(0, hidden=(32,))]
    assert ParameterCount().reuse(sizes, Task(labelled=target)).top == "model-01"
    orders = {tuple(RandomRanking().reuse(models, Task(labelled=target), seed=s).ranking.values()) for s in range(8)}
    assert len(orders) > 1


def test_a_ranking_saves_and_loads(target, tmp_path):
    result = LogME().reuse([network(0), network(1)], Task(labelled=target))
    result.save(tmp_path / "answer")
    assert type(result).open(tmp_path / "answer").ranking == result.ranking


def test_layers_are_scored_as_features_of_their_own(target):
    model = network(0)
    found = TMI(min_dist=1e-3).rank([model], target, layers=["body.0", "body.2"])
    assert list(found) == ["model-00/body.0", "model-00/body.2"]
    by_hand = model.body[0](target.tensors[0]).detach()
    assert found["model-00/body.0"] == pytest.approx(TMI(min_dist=1e-3)(by_hand, target.tensors[1]), rel=1e-5)
    batches = DataLoader(target, 7)
    assert TMI(min_dist=1e-3).rank([model], batches, layers=["body.0"])["model-00/body.0"] == pytest.approx(
        found["model-00/body.0"], rel=1e-4
    )
    with pytest.raises(BadInput, match="no layer 'nowhere'"):
        TMI().rank([model], target, layers=["nowhere"])


def test_the_penultimate_features_are_what_enters_the_head(target):
    model = network(0)
    found = read(model, target, Classification())
    assert torch.allclose(found.features[None], model.body(target.tensors[0]), atol=1e-6)
    assert torch.allclose(found.outputs, model(target.tensors[0]), atol=1e-6)


def test_features_are_read_in_evaluation_mode(target):
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)).train()
    found = read(model, target, Classification(), ["0", None])
    assert torch.equal(found.features["0"], found.features[None])
    assert model[1].training


def test_kept_features_are_read_once(target):
    models = [network(0), network(1)]
    task = Task(labelled=target)
    alone = LogME().reuse(models, task).ranking
    with kept_features(), Meter() as meter:
        HScore().reuse(models, task)
        together = LogME().reuse(models, task).ranking
        assert meter.forward == 2 * 60
        changed = TensorDataset(target.tensors[0] + 1, target.tensors[1])
        assert LogME().reuse(models, Task(labelled=changed)).ranking != alone
    assert together == alone


def test_a_model_that_can_only_predict_is_ranked_by_its_predictions(target):
    class Box:
        def predict(self, inputs):
            return network(0)(torch.as_tensor(inputs)).detach().numpy()

    task = Task(labelled=target)
    record = ModelRecord("box", Box)
    assert LEEP().reuse([record], task).ranking["box"] == pytest.approx(
        LEEP().reuse([network(0)], task).ranking["model-00"], abs=1e-6
    )
    predictions = Box().predict(target.tensors[0])
    assert LogME().reuse([record], task).ranking["box"] == pytest.approx(LogME()(predictions, target.tensors[1]))
    with pytest.raises(NotApplicable, match="no layers"):
        LogME(layer="body.0").reuse([record], task)


def test_a_ranking_gives_the_hits_of_a_dock_another_order(target):
    from didact.reusing.dock.search import Hit, SearchResult

    records = [ModelRecord.of(network(seed), f"m{seed}", input_shape=(6,)) for seed in range(3)]
    task = Task(labelled=target)
    found = SearchResult([Hit("m2", 0.9), Hit("gone", 0.8), Hit("m0", 0.7)])
    plug = LogME().reorder(records, task)
    scores = LogME().reuse(records, task).ranking
    assert plug(found.ids) == {id: scores[id] for id in ("m2", "m0")}
    assert found.reordered(plug(found.ids)).ids == [*sorted(("m0", "m2"), key=lambda id: -scores[id]), "gone"]
    assert plug(["gone"]) == {}


def test_models_of_another_input_are_left_out(target):
    other = ModelRecord.of(mlp(9, 3), "other", input_shape=(9,))
    mine = ModelRecord.of(network(0), "mine", input_shape=(6,))
    assert set(LogME().reuse([other, mine], Task(labelled=target)).ranking) == {"mine"}
    with pytest.raises(NotApplicable, match="input"):
        LogME().reuse([other], Task(labelled=target))


def test_with_few_labels_k_is_lowered(target):
    few = TensorDataset(target.tensors[0][:9], target.tensors[1][:9])  # three a class: no third neighbour
    with pytest.raises(BadInput, match="k=3 neighbours"), pytest.warns(UserWarning, match="left out"):
        TMI().rank([network(0)], few)
    with Meter() as meter:
        found = TMI(normalise="rms").reuse([network(0)], Task(labelled=few)).ranking["model-00"]
    assert meter.log["k"] == 2
    assert found == TMI(k=2, normalise="rms").rank([network(0)], few)["model-00"]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*BY_FEATURES, *BY_PROBABILITIES], ids=lambda m: m.card.slug)
def test_bad_input_is_refused(method):
    rows = np.tile([0.5, 0.25, 0.25], (8, 1))
    with pytest.raises(BadInput, match="whole numbers"):
        method(rows, HALVES + 0.5)
    with pytest.raises(BadInput, match="single class"):
        method(rows, np.zeros(8, dtype=int))
    with pytest.raises(BadInput, match="NaN"):
        method(np.where(np.arange(8)[:, None] == 2, np.nan, rows), HALVES)
    with pytest.raises(BadInput, match="One row"):
        method(rows[:5], HALVES)


def test_errors_name_the_model_and_the_way_out(target):
    broken = network(0)
    with torch.no_grad():
        broken.body[0].weight.fill_(float("nan"))
    with pytest.raises(BadInput, match="model model-00 cannot be ranked"):
        LogME().reuse([broken], Task(labelled=target))
    with pytest.raises(BadInput, match="k=4"), pytest.warns(UserWarning, match="left out"):
        TMI(k=4)(LINE, HALVES)
    with pytest.raises(BadInput, match="probabilities"):
        LEEP()([[0.5, 0.7], [0.2, 0.8]], [0, 1])
    with pytest.raises(NotApplicable, match="labelled"):
        LogME().reuse([network(0)], Task(data=target))
    with pytest.raises(BadInput, match="at least two samples"):
        LinearProbe()(np.eye(3), [0, 1, 2])
    for wrong in ({"k": 0}, {"norm": "city"}, {"min_dist": -1}, {"normalise": "std"}, {"components": 0}):
        with pytest.raises(BadInput, match="tmi"):
            TMI(**wrong)

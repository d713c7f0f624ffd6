"""Specifications against the card's worked values, plain sums, finite differences and brute force."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize

from didact.core.errors import BadInput
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification import (
    RKME,
    Gamma,
    HashedNgrams,
    RandomConvnets,
    Specification,
    specify,
    tuned_gamma,
)
from didact.reusing.dock.specification.herding import candidates, chosen
from didact.reusing.dock.specification.heterogeneous import FitTableMap, TableMap, contrast, partitions
from didact.reusing.dock.specification.kernel import gaussian, mean_kernel
from didact.reusing.dock.specification.languages import recognised
from didact.reusing.dock.specification.rkme import weights_for
from didact.reusing.dock.specification.simplex import simplex_value, simplex_weights


def made(z, beta=None, gamma=0.1, type="rkme-table", encoder="", languages=()):
    z = np.asarray(z, dtype=float)
    beta = np.full(len(z), 1 / len(z)) if beta is None else np.asarray(beta, dtype=float)
    return Specification(type, gamma, encoder, z, beta, languages)


def at(place):
    return made([[place]])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(90, 3)) + 3.0])


# -- the kernel and the quadratic programme ----------------------------------------------------------------------------


def test_the_cards_quadratic_programme():
    x, z = np.array([[0.0], [0.0], [1.0]]), np.array([[0.0], [1.0]])
    kernel, near = gaussian(z, z, 0.1), gaussian(z, x, 0.1).mean(axis=1)
    beta = simplex_weights(kernel, near)
    assert kernel[0, 1] == pytest.approx(0.904837, abs=1e-6)
    assert beta == pytest.approx([2 / 3, 1 / 3], abs=1e-7)
    assert simplex_value(kernel, near, beta) == pytest.approx(-0.478853, abs=1e-6)


def test_the_cards_distances():
    assert at(0.0).distance(at(2.0)) == pytest.approx(0.659360, abs=1e-6)
    assert at(0.0).distance(at(1.0)) == pytest.approx(0.190325, abs=1e-6)
    assert at(0.0).distance(at(0.0)) == 0.0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 8), gamma=st.sampled_from([0.01, 0.1, 1.0]))
def test_simplex_weights_meet_the_optimality_conditions(seed, n, gamma):
    rng = np.random.default_rng(seed)
    z, x = rng.normal(size=(n, 2)), rng.normal(size=(20, 2)) + 1.0
    kernel, near = gaussian(z, z, gamma), gaussian(z, x, gamma).mean(axis=1)
    beta = simplex_weights(kernel, near)
    slope = kernel @ beta - near
    level = slope @ beta
    assert beta.min() >= 0.0
    assert beta.sum() == pytest.approx(1.0, abs=1e-9)
    assert slope.min() >= level - 1e-6  # nothing outside would lower the value
    assert np.abs(slope[beta > 0] - level).max() <= 1e-6


def test_simplex_weights_equal_a_general_solver():
    rng = np.random.default_rng(3)
    z, x = rng.normal(size=(6, 2)) * 2, rng.normal(size=(30, 2))
    kernel, near = gaussian(z, z, 1.0), gaussian(z, x, 1.0).mean(axis=1)
    found = minimize(
        lambda b: 0.5 * b @ kernel @ b - b @ near,
        np.full(6, 1 / 6),
        jac=lambda b: kernel @ b - near,
        bounds=[(0, 1)] * 6,
        constraints={"type": "eq", "fun": lambda b: b.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert simplex_weights(kernel, near) == pytest.approx(found.x, abs=1e-5)


def test_equal_points_do_not_break_the_solve():
    z = np.zeros((5, 2))
    beta = simplex_weights(gaussian(z, z, 0.1), np.full(5, 0.7))
    assert beta.sum() == pytest.approx(1.0)
    assert beta.min() >= 0.0


def test_inner_product_and_distance_are_the_plain_sums():
    rng = np.random.default_rng(1)
    p, q = made(rng.normal(size=(4, 2)), [0.1, 0.2, 0.3, 0.4]), made(rng.normal(size=(3, 2)), [0.5, 0.2, 0.3])

    def plain(a, b):
        return sum(
            wa * wb * np.exp(-0.1 * np.sum((x - y) ** 2))
            for wa, x in zip(a.beta, a.z, strict=True)
            for wb, y in zip(b.beta, b.z, strict=True)
        )

    assert p.inner(q) == pytest.approx(plain(p, q), rel=1e-12)
    assert p.distance(q) == pytest.approx(plain(p, p) - 2 * plain(p, q) + plain(q, q), rel=1e-9)
    assert p.distance(q) == pytest.approx(q.distance(p), rel=1e-12)


def test_distances_survive_large_offsets():
    near, far = made([[0.0], [2.0]]), made([[1e7], [1e7 + 2.0]])
    assert far.self_product == pytest.approx(near.self_product, rel=1e-9)


# -- the reduced set ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("released", [False, True])
def test_the_gradient_against_finite_differences(released):
    rng = np.random.default_rng(2)
    x, z = rng.normal(size=(12, 2)), rng.normal(size=(4, 2))
    beta = np.array([0.4, 0.3, 0.2, 0.1])

    def squared_distance(points):
        return beta @ gaussian(points, points, 0.3) @ beta - 2 * beta @ gaussian(points, x, 0.3).mean(axis=1)

    numeric = np.zeros_like(z)
    for i in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[i] = 1e-6
        numeric[i] = (squared_distance(z + step) - squared_distance(z - step)) / 2e-6
    gradient = RKME(gamma=0.3, released=released).gradient(x, z, beta)
    if released:  # half of the first term is missing there, on purpose
        pairs = beta[:, None] * gaussian(z, z, 0.3) * beta
        first = -2 * 0.3 * (z * pairs.sum(axis=1, keepdims=True) - pairs @ z)
        assert gradient == pytest.approx(numeric - first, abs=1e-8)
    else:
        assert gradient == pytest.approx(numeric, abs=1e-8)


def test_rounds_are_steps_and_solves(rows):
    start = rows[:10] + 0.1
    z, beta = RKME(10, steps=2, step_size=0.5).refine(rows, start)
    expected, weights = start, weights_for(rows, start, 0.1)
    for _ in range(2):
        expected = expected - 0.5 * RKME(10).gradient(rows, expected, weights)
        weights = weights_for(rows, expected, 0.1)
    assert z == pytest.approx(expected)
    assert beta == pytest.approx(weights)


def test_the_reduced_set_is_nearer_than_as_many_rows(rows):
    reduced = RKME(10).fit(rows)
    near = gaussian(rows, rows, 0.1).mean()
    assert reduced.z.shape == (10, 3)

    def to_data(spec):
        return spec.self_product - 2 * spec.beta @ gaussian(spec.z, rows, 0.1).mean(axis=1) + near

    assert to_data(reduced) < 0.2 * to_data(made(rows[:: len(rows) // 10][:10]))


def test_few_rows_get_two_thirds_as_many_points():
    reduction = RKME(100)
    assert reduction.points_for(60, 3) == 40
    assert reduction.points_for(100, 3) == 66
    assert reduction.points_for(101, 3) == 100
    assert reduction.points_for(2, 3) == 1
    assert len(RKME(100).fit(np.random.default_rng(0).normal(size=(60, 2)) * 0.1).z) <= 40


def test_the_same_seed_gives_the_same_set(rows):
    assert RKME(10).fit(rows, seed=3).digest == RKME(10).fit(rows, seed=3).digest
    assert RKME(10).fit(rows, seed=3).digest != RKME(10).fit(rows, seed=4).digest


def test_missing_values_become_the_columns_mean_and_the_data_is_left_alone(rows):
    broken = rows.copy()
    broken[0, 1], broken[5, 1], broken[7, 2] = np.nan, np.inf, -np.inf
    filled = broken.copy()
    filled[~np.isfinite(broken)] = np.nan
    for column in (1, 2):
        filled[np.isnan(filled[:, column]), column] = np.nanmean(filled[:, column])
    before = broken.copy()
    assert RKME(10).fit(broken).z == pytest.approx(RKME(10).fit(filled).z)
    assert np.array_equal(broken, before, equal_nan=True)


@pytest.mark.parametrize("gamma", [0.1, 10.0])
def test_no_point_lies_on_a_row(gamma):
    """At gamma 10 in 10 dimensions nothing moves the points: those of one-row clusters would stay rows."""
    x = np.random.default_rng(0).normal(size=(90, 10)) * 5
    for data in (x, np.repeat(x[:20], 5, axis=0), np.round(x)):
        z = RKME(60, gamma=gamma).fit(data).z
        assert min(np.linalg.norm(data - point, axis=1).min() for point in z) >= 1e-6


def test_the_cards_three_rows_give_one_point_between_them():
    reduced = RKME(2).fit([[0.0], [0.0], [1.0]])
    assert len(reduced.z) == 1
    assert 1e-6 <= reduced.z[0, 0] <= 1 - 1e-6


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (np.ones((10, 2)), "raw-rows"),
        (np.zeros((1, 2)), "too-few-rows"),
        (np.zeros((5, 0)), "too-few-rows"),
        ([["a", "b"]], "wrong-shape"),
        ([[1.0], [1.0, 2.0]], "wrong-shape"),
        (np.array([[1.0, np.nan], [2.0, np.inf]]), "non-finite"),
    ],
)
def test_data_that_cannot_be_specified(data, code):
    with pytest.raises(BadSpecification) as caught:
        RKME().fit(data)
    assert caught.value.code == code


@pytest.mark.parametrize("options", [{"k": 0}, {"gamma": 0.0}, {"gamma": float("nan")}, {"steps": -1}])
def test_bad_hyperparameters(options):
    with pytest.raises(ValidationError):
        RKME(**options)


# -- the document ------------------------------------------------------------------------------------------------------


def test_json_comes_back_bit_for_bit(tmp_path, rows):
    before = RKME(10).fit(rows, languages=("en",))
    after = Specification.load(before.save(tmp_path / "stat.json"))
    assert after.digest == before.digest
    assert np.array_equal(after.z, before.z)
    assert after.languages == ("en",)
    assert after.distance(before) == pytest.approx(0.0, abs=1e-12)


def test_the_digest_sees_every_field():
    base = made([[0.0, 1.0], [2.0, 3.0]])
    others = [
        made([[0.0, 1.0], [2.0, 3.1]]),
        made(base.z, [0.4, 0.6]),
        made(base.z, gamma=0.2),
        made(base.z, encoder="e"),
        made(base.z, type="rkme-text"),
        made(base.z, languages=("en",)),
    ]
    assert len({base.digest, *(each.digest for each in others)}) == 7


GOOD = {"type": "rkme-table", "gamma": 0.1, "encoder": "", "z": [[0.0], [1.0]], "beta": [0.5, 0.5]}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"type": "other"}, "wrong-type"),
        ({"type": 3}, "wrong-type"),
        ({"encoder": None}, "wrong-type"),
        ({"languages": "en"}, "wrong-type"),
        ({"languages": [3]}, "wrong-type"),
        ({"gamma": 0.0}, "bad-gamma"),
        ({"gamma": "0.1"}, "bad-gamma"),
        ({"gamma": True}, "bad-gamma"),
        ({"gamma": float("inf")}, "bad-gamma"),
        ({"gamma": 10**400}, "bad-gamma"),
        ({"z": [[0.0], [float("nan")]]}, "non-finite"),
        ({"z": [[0.0], [1e300]]}, "non-finite"),
        ({"beta": [0.5, float("inf")]}, "non-finite"),
        ({"z": [[0.0], ["1.0"]]}, "wrong-shape"),
        ({"z": [[0.0], [1.0, 2.0]]}, "wrong-shape"),
        ({"z": [[0.0], None]}, "wrong-shape"),
        ({"z": [0.0, 1.0]}, "wrong-shape"),
        ({"z": [[], []]}, "wrong-shape"),
        ({"z": [], "beta": []}, "wrong-shape"),
        ({"z": "many"}, "wrong-shape"),
        ({"z": [[True], [False]]}, "wrong-shape"),
        ({"beta": [1.0]}, "wrong-shape"),
        ({"beta": [[0.5, 0.5]]}, "wrong-shape"),
        ({"beta": [1.5, -0.5]}, "bad-weights"),
        ({"beta": [0.5, 0.6]}, "bad-weights"),
        ({"z": [[0.0]] * 513, "beta": [1 / 513] * 513}, "too-large"),
        ({"z": [[0.0] * 1_310_721], "beta": [1.0]}, "too-large"),
        ({"rows": [[0.0]]}, "unknown-field"),
    ],
)
def test_bad_documents_are_refused_by_name(changes, code):
    with pytest.raises(BadSpecification) as caught:
        Specification.from_json({**GOOD, **changes})
    assert caught.value.code == code
    assert caught.value.status == 422


@pytest.mark.parametrize("field", ["type", "gamma", "z", "beta"])
def test_missing_fields_are_named(field):
    with pytest.raises(BadSpecification, match=field) as caught:
        Specification.from_json({key: value for key, value in GOOD.items() if key != field})
    assert caught.value.code == "missing"


@pytest.mark.parametrize("text", ["", "{", "\xff".encode("latin-1"), "[" * 100_000])
def test_what_is_not_json(text):
    with pytest.raises(BadSpecification) as caught:
        Specification.loads(text)
    assert caught.value.code == "not-json"


def test_lists_in_json_are_not_specifications():
    with pytest.raises(BadSpecification) as caught:
        Specification.loads("[1, 2]")
    assert caught.value.code == "wrong-type"


def test_documents_of_the_learnware_package_are_read():
    table = {"type": "RKMETableSpecification", "gamma": 0.1, "z": [[0.0], [1.0]], "beta": [0.5, 0.5], "num_points": 9}
    assert Specification.from_json(table).digest == Specification.from_json(GOOD).digest
    text = Specification.from_json({**table, "type": "RKMETextSpecification", "language": ["en"]})
    assert (text.type, text.languages) == ("rkme-text", ("en",))
    with pytest.raises(BadSpecification):
        Specification.from_json({**table, "type": "RKMEImageSpecification"})


def test_the_arrays_cannot_be_changed_and_are_copies():
    z = np.zeros((2, 1))
    specification = made(z)
    z[0] = 5.0
    assert specification.z[0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        specification.z[0] = 1.0


@pytest.mark.parametrize(
    "other",
    [
        made([[0.0, 0.0]]),
        made([[0.0]], gamma=0.2),
        made([[0.0]], encoder="e"),
        made([[0.0]], type="rkme-text"),
    ],
)
def test_other_spaces_do_not_compare(other):
    assert not at(0.0).compatible(other)
    with pytest.raises(BadSpecification) as caught:
        at(0.0).distance(other)
    assert caught.value.code == "incompatible"


# -- herding, gamma ----------------------------------------------------------------------------------------------------


def test_candidates_spread_by_a_quarter_about_the_points():
    drawn = candidates(np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([0.25, 0.75]), 20_000, seed=0)
    upper = drawn[:, 0] > 4.5
    assert upper.mean() == pytest.approx(0.75, abs=0.01)
    assert drawn[upper].mean(axis=0) == pytest.approx([9.0, 9.0], abs=0.01)
    assert drawn[upper].std(axis=0) == pytest.approx([0.25, 0.25], abs=0.01)


def test_herding_takes_the_greedy_candidates():
    rng = np.random.default_rng(5)
    z, beta, among = rng.normal(size=(3, 2)), np.array([0.5, 0.3, 0.2]), rng.normal(size=(40, 2))
    picks: list[int] = []
    for t in range(8):
        values = [
            (t + 1) * mean_kernel(z, beta, x[None], 0.1)[0]
            - sum(np.exp(-0.1 * np.sum((among[s] - x) ** 2)) for s in picks)
            for x in among
        ]
        picks.append(int(np.argmax(values)))
    assert chosen(among, z, beta, 0.1, 8).tolist() == picks


def test_herded_points_follow_the_weights():
    specification = made([[0.0, 0.0], [5.0, 5.0]], [0.8, 0.2])
    points = specification.herd(50, seed=1)
    assert points.shape == (50, 2)
    assert np.mean(points[:, 0] > 2.5) == pytest.approx(0.2, abs=0.05)
    assert np.array_equal(points, specification.herd(50, seed=1))
    with pytest.raises(BadInput):
        specification.herd(0)


def test_a_docks_gammas():
    gammas = Gamma({("rkme-table", ""): 0.5})
    assert gammas.of("rkme-table") == 0.5
    assert gammas.of("rkme-text", "other") == 0.1
    assert Gamma().of("rkme-table") == 0.1
    assert Gamma.from_json(json.loads(json.dumps(gammas.to_json()))).of("rkme-table") == 0.5
    gammas.check(made([[0.0]], gamma=0.5))
    with pytest.raises(BadSpecification) as caught:
        gammas.check(made([[0.0]], gamma=0.1))
    assert caught.value.code == "wrong-gamma"
    for bad in ({("rkme-table", ""): 0.0}, {("other", ""): 1.0}):
        with pytest.raises(BadInput):
            Gamma(bad)


def test_gamma_is_tuned_to_what_tells_learnwares_apart():
    """Clouds 2 apart on a line look like one at a tiny gamma, and every point like no other at a huge one."""
    rng = np.random.default_rng(0)
    shelf = [RKME(20).fit(rng.normal(size=(200, 1)) * 0.2 + 2.0 * i) for i in range(5)]
    assert tuned_gamma(shelf, (1e-7, 1.0, 1e9)) == 1.0
    with pytest.raises(BadInput):
        tuned_gamma(shelf[:1])


# -- images and texts --------------------------------------------------------------------------------------------------


def test_images_are_specified_through_random_networks():
    rng = np.random.default_rng(0)
    stripes = np.tile(np.arange(8) % 2, (40, 8, 1)) + 0.1 * rng.normal(size=(40, 8, 8))
    lines = np.swapaxes(stripes, 1, 2)[::-1] + 0.1 * rng.normal(size=(40, 8, 8))
    a, b, c = (specify(images, "Image", k=8) for images in (stripes[:20], stripes[20:], lines))
    assert a.type == "rkme-image"
    assert a.encoder == RandomConvnets().id
    assert a.distance(b) < 0.3 * a.distance(c)


def test_image_layouts_agree_and_brightness_does_not_count():
    images = np.random.default_rng(0).random((5, 12, 12))
    encoded = RandomConvnets().encode(images)
    assert encoded.shape == (5, 128)
    assert RandomConvnets().encode(images[:, None]) == pytest.approx(encoded)
    assert RandomConvnets().encode(images[..., None]) == pytest.approx(encoded)
    assert RandomConvnets().encode(3.0 * images + 7.0) == pytest.approx(encoded, abs=1e-3)


def test_raw_images_when_asked():
    raw = specify(np.random.default_rng(0).random((30, 1, 4, 4)), "Image", encoder="", gamma=0.1)
    assert (raw.encoder, raw.dimension) == ("", 16)


CATS = [f"The cat number {i} sleeps on the warm red sofa near the window and it purrs" for i in range(30)]
TAXES = [f"Quarterly revenue of company {i} exceeded what analysts forecast, taxes included" for i in range(30)]


def test_texts_are_specified_by_their_wording():
    a, b, c = specify(CATS[:15], "Text"), specify(CATS[15:], "Text"), specify(TAXES, "Text")
    assert (a.type, a.encoder, a.languages) == ("rkme-text", HashedNgrams().id, ("en",))
    assert a.distance(b) < 0.1 * a.distance(c)


def test_hashed_ngrams_are_unit_vectors_and_fixed_for_ever():
    vectors = HashedNgrams().encode(["hello world", "", "Hello World"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 0.0, 1.0])
    assert vectors[0] == pytest.approx(vectors[2])
    # Specifications made on different machines and years compare only if these never change.
    assert vectors[0, :3] == pytest.approx([-0.028847372493, -0.072062428898, -0.055226922194], abs=1e-9)


def test_a_users_own_encoder():
    class Lengths:
        id = "mine/lengths"

        def encode(self, data):
            return np.array([[len(text), text.count("a")] for text in data], dtype=float)

    made_by = specify(CATS + TAXES, "Text", encoder=Lengths(), k=2)
    assert (made_by.encoder, made_by.dimension) == ("mine/lengths", 2)


@pytest.mark.parametrize(
    ("data", "kind", "options", "error"),
    [
        (CATS, "Sound", {}, BadInput),
        (CATS, "Text", {"encoder": ""}, BadInput),
        (np.zeros((4, 8, 8)), "Image", {"encoder": "resnet"}, BadInput),
        ("one text", "Text", {}, BadSpecification),
        ([1, 2], "Text", {}, BadSpecification),
        ([], "Text", {}, BadSpecification),
        (np.zeros((4, 8)), "Image", {}, BadSpecification),
        (np.zeros((4, 2, 8, 8)), "Image", {}, BadSpecification),
        (np.full((4, 8, 8), np.nan), "Image", {}, BadSpecification),
    ],
)
def test_what_cannot_be_specified(data, kind, options, error):
    with pytest.raises(error):
        specify(data, kind, **options)


@pytest.mark.parametrize(
    ("texts", "languages"),
    [
        (CATS, ("en",)),
        (["Der Hund ist nicht auf dem Sofa, und die Katze wird mit ihm spielen"], ("de",)),
        (["Le chat est sur la table et les chiens sont dans le jardin avec nous"], ("fr",)),
        (["今天天气很好"], ("zh",)),
        (["これは日本語の文章です"], ("ja",)),
        (["Это русский текст"], ("ru",)),
        (
            [*CATS[:3], "Der Hund ist nicht auf dem Sofa und die Katze ist mit ihm auf dem Weg zu der Frau"],
            ("de", "en"),
        ),
        (["12345 !!"], ()),
    ],
)
def test_languages_are_recognised(texts, languages):
    assert recognised(texts) == languages


# -- tables with other columns -----------------------------------------------------------------------------------------


def test_columns_are_cut_into_overlapping_parts():
    assert partitions(6, 3, 0.5) == [[0, 1, 2], [2, 3, 4], [4, 5, 3]]
    assert partitions(7, 3, 0.5) == [[0, 1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 3, 4]]
    assert partitions(2, 3, 0.5) == [[0, 1], [1, 0]]
    assert partitions(6, 3, 0.0) == [[0, 1], [2, 3], [4, 5]]


def test_the_contrast_is_the_plain_sum():
    views = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    flat = [(row, views[row, view]) for view in range(3) for row in range(4)]
    losses = []
    for i, (row, anchor) in enumerate(flat):
        others = [(r, torch.exp(anchor @ v / 10.0)) for j, (r, v) in enumerate(flat) if j != i]
        total = sum(share for _, share in others)
        losses.append(-sum(torch.log(share / total) for r, share in others if r == row) / 2)
    assert float(contrast(views, 10.0)) == pytest.approx(float(sum(losses) / len(losses)), rel=1e-9)


def hospital(kind, columns, seed):
    """Rows of patients of one kind, seen through some of eight measurements."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(2, 8))
    hidden = rng.normal(size=(120, 2)) * 0.3 + 2.0 * np.eye(2)[kind]
    return (hidden @ mixing + 0.2 * rng.normal(size=(120, 8)))[:, columns]


MEASURES = ["age", "blood pressure", "body mass", "serum sugar", "ldl level", "hdl level", "heart rate", "sleep hours"]


@pytest.fixture(scope="module")
def hospitals():
    rng = np.random.default_rng(1)
    tables = []
    for i in range(8):
        columns = sorted(rng.choice(8, 5, replace=False).tolist())
        specification = RKME(20).fit(hospital(i % 2, columns, i))
        tables.append((i % 2, specification, {j: MEASURES[c] for j, c in enumerate(columns)}))
    return tables


def test_a_table_map_saves_loads_and_is_seeded(tmp_path, hospitals):
    tables = [(table, columns) for _, table, columns in hospitals]
    fitted = FitTableMap(epochs=1, width=16, layers=1, heads=2).fit(tables, seed=0)
    again = FitTableMap(epochs=1, width=16, layers=1, heads=2).fit(tables, seed=0)
    other = FitTableMap(epochs=1, width=16, layers=1, heads=2).fit(tables, seed=1)
    loaded = TableMap.load(fitted.save(tmp_path / "map"))
    assert fitted.id == again.id == loaded.id != other.id
    table, columns = tables[0]
    assert loaded.embed(table, columns).digest == fitted.embed(table, columns).digest
    assert not fitted.embed(table, columns).compatible(other.embed(table, columns))


def test_training_lowers_the_contrast(hospitals):
    tables = [(table, columns) for _, table, columns in hospitals]
    how = FitTableMap(epochs=1, width=16, layers=1, heads=2, learning_rate=1e-2)
    rows, names = torch.tensor(tables[0][0].z).float(), list(tables[0][1].values())
    losses = []
    for epochs in (1, 20):
        fitted = how.model_copy(update={"epochs": epochs}).fit(tables)
        losses.append(float(how.loss(fitted, names, rows).detach()))
    assert losses[1] < losses[0] - 0.1


def test_only_raw_described_tables_are_mapped(hospitals):
    _, table, _ = hospitals[0]
    mapping = TableMap(16, 1, 2)
    with pytest.raises(BadSpecification):
        mapping.embed(table, {9: "beyond"})
    with pytest.raises(BadSpecification):
        mapping.embed(made([[0.0, 1.0]], type="rkme-text", encoder="e"), {0: "a"})
    with pytest.raises(BadInput):
        FitTableMap().fit([])

"""Search against the card's worked values and plain loops."""

import json
import math
from threading import Thread

import numpy as np
import pytest

from didact.core.errors import BadInput, NotApplicable
from didact.reusing.dock import Hit, Identifier, Index, Mixture, SearchResult
from didact.reusing.dock.errors import BadSpecification, NotFound
from didact.reusing.dock.search.heterogeneous import HeterogeneousIndex
from didact.reusing.dock.search.identifiers import reorder
from didact.reusing.dock.search.index import scored
from didact.reusing.dock.search.mixture import auto, greedy
from didact.reusing.dock.search.scores import kept, scores_of
from didact.reusing.dock.search.single import Space, Stack
from didact.reusing.dock.semantics import Input, Output, SemanticQuery, SemanticSpecification
from didact.reusing.dock.specification import RKME, Specification
from didact.reusing.dock.specification.heterogeneous import FitTableMap


def made(z, beta=None, gamma=0.1, type="rkme-table", encoder="", languages=()):
    z = np.asarray(z, dtype=float)
    beta = np.full(len(z), 1 / len(z)) if beta is None else np.asarray(beta, dtype=float)
    return Specification(type, gamma, encoder, z, beta, languages)


def words(name="a model", **changes):
    given = {
        "name": name,
        "data": "Table",
        "task": "Regression",
        "library": "PyTorch",
        "input": {"dimension": 1},
        "output": {"dimension": 1},
    }
    return SemanticSpecification.model_validate({**given, **changes})


def index_of(**specifications):
    index = Index()
    for id, specification in specifications.items():
        index.add(id, words(id), specification)
    return index


@pytest.fixture
def three():
    """The card's learnwares at 0, 2 and 1."""
    return index_of(zero=made([[0.0]]), two=made([[2.0]]), one=made([[1.0]]))


USER = made([[0.0], [2.0]])  # half at 0, half at 2


def inner_products(shelf, user):
    return np.array([[a.inner(b) for b in shelf] for a in shelf]), np.array([user.inner(a) for a in shelf])


# -- scores ------------------------------------------------------------------------------------------------------------


def test_the_cards_scores():
    assert scores_of([0.02, 0.1, 0.3]) == pytest.approx([0.9790, 0.7, 0.0], abs=1e-4)


def test_the_best_score_is_lifted_to_092():
    assert scores_of([0.2, 0.25, 0.3]) == pytest.approx([0.92, min(math.sqrt(0.46), 0.7), 0.0])


def test_eps_falls_to_a_minimum_below_it():
    assert scores_of([0.001, 0.1, 0.3]) == pytest.approx([1.0, 0.7, 0.0])


def test_equal_distances_all_score_one():
    assert scores_of([0.3, 0.3]) == [1.0, 1.0]
    assert scores_of([]) == []


def test_scores_below_06_are_dropped_except_the_first():
    assert kept([0.9, 0.7, 0.6, 0.59, 0.2]) == 3
    assert kept([0.3, 0.2]) == 1
    assert kept([]) == 0


# -- mixtures ----------------------------------------------------------------------------------------------------------


def test_the_cards_single_distances(three):
    found = {hit.id: hit.distance for hit in three.search(None, USER, mixture=None).single}
    assert found == pytest.approx({"one": 0.025485}, abs=1e-6)  # the others score 0 and are dropped
    assert made([[0.0]]).distance(USER) == pytest.approx(0.164840, abs=1e-6)
    assert made([[2.0]]).distance(USER) == pytest.approx(0.164840, abs=1e-6)


def test_the_cards_greedy_steps():
    shelf = [made([[1.0]]), made([[0.0]]), made([[2.0]])]
    among, toward = inner_products(shelf, USER)
    first = greedy(among, toward, USER.self_product, most=1)
    assert (first[0], first[2]) == ([0], pytest.approx(0.025485, abs=1e-6))
    second = greedy(among, toward, USER.self_product, most=2)
    assert second[2] == pytest.approx(0.022073, abs=1e-6)
    assert sorted(second[1]) == pytest.approx([0.134, 0.866], abs=1e-3)
    assert second[2] / first[2] == pytest.approx(0.866, abs=1e-3)
    third = greedy(among, toward, USER.self_product)
    assert sorted(third[0]) == [0, 1, 2]
    assert third[2] == pytest.approx(0.0, abs=1e-9)
    assert dict(zip(*third[:2], strict=True)) == pytest.approx({0: 0.0, 1: 0.5, 2: 0.5}, abs=1e-4)


def test_the_pair_of_the_card_is_exact():
    among, toward = inner_products([made([[0.0]]), made([[2.0]])], USER)
    chosen, weights, distance = greedy(among, toward, USER.self_product)
    assert sorted(chosen) == [0, 1]
    assert weights == pytest.approx([0.5, 0.5], abs=1e-6)
    assert distance == pytest.approx(0.0, abs=1e-12)


def test_greedy_stops_where_a_further_learnware_brings_little():
    """The second brings the distance to 0.98 of what it was: that is not worth it."""
    among, own = np.array([[1.0, 0.0], [0.0, 1.0]]), 2.0
    toward = np.array([0.9, 0.2])
    one = own - 2 * 0.9 + 1.0
    weights = np.array([0.85, 0.15])  # of the equal-cost solution w1 - w2 = .9 - .2
    two = own - 2 * weights @ toward + weights @ weights
    assert 0.95 < two / one < 1.0
    assert greedy(among, toward, own)[0] == [0]
    assert greedy(among, np.array([0.9, 0.6]), own)[0] == [0, 1]


def test_greedy_takes_five_at_most():
    among = np.eye(9)
    toward = np.full(9, 1.0 / 9)
    assert len(greedy(among, toward, 1.0 / 9)[0]) == 5


def test_auto_keeps_the_largest_weights_within_098():
    truth = np.array([0.5, 0.3, 0.17, 0.03])
    chosen, weights, distance = auto(np.eye(4), truth, float(truth @ truth))
    assert chosen == [0, 1, 2]  # .5 + .3 + .17 = .97; the fourth would make 1
    assert weights == pytest.approx([0.51, 0.31, 0.18], abs=1e-6)
    assert distance == pytest.approx(3 * 0.01**2 + 0.03**2, abs=1e-9)
    alone = auto(np.eye(2), np.array([0.995, 0.0]), 1.0)
    assert (alone[0], alone[1].tolist()) == ([0], [1.0])


def test_a_search_finds_the_mixture(three):
    three.remove("one")
    found = three.search(None, USER).mixture
    assert sorted(found.ids) == ["two", "zero"]
    assert found.weights == pytest.approx((0.5, 0.5), abs=1e-5)
    assert found.distance == pytest.approx(0.0, abs=1e-9)
    assert found.score == pytest.approx(1.0)
    # `auto` keeps one of two equal halves, since both together are more than 0.98: no mixture.
    assert three.search(None, USER, mixture="auto").mixture is None


def test_a_mixture_no_better_than_the_best_single_is_left_out(three):
    assert three.search(None, made([[0.0]])).mixture is None
    assert three.search(None, made([[0.0]])).single[0].id == "zero"
    assert three.search(None, USER, mixture=None).mixture is None


def test_a_mixture_must_score_another_percent():
    def found(distance):
        mixture = ["a", "b"], np.array([0.5, 0.5]), distance
        return scored(["a", "b"], np.array([0.03, 0.3]), mixture, "statistical")

    room = 0.3 - 0.1 * (0.03 + 0.3 + 0.015) / 3  # max - eps
    assert found(0.015).mixture == Mixture(("a", "b"), (0.5, 0.5), pytest.approx(0.285 / room), 0.015)
    assert found(0.015).single[0].score == pytest.approx(0.27 / room)
    assert found(0.0299).mixture is None  # .9379 beside the single's .9375


def test_mixtures_are_sought_among_the_25_nearest():
    """28 learnwares near the user's first half crowd out the one at its second half."""
    shelf = {f"near{i}": made([[0.001 * i]]) for i in range(28)}
    user = made([[0.0], [9.0]], [0.9, 0.1])
    assert "far" not in (index_of(**shelf, far=made([[9.0]])).search(None, user).mixture or Mixture((), (), 0, 0)).ids
    few = index_of(**{f"near{i}": made([[0.001 * i]]) for i in range(20)}, far=made([[9.0]]))
    assert "far" in few.search(None, user).mixture.ids


# -- the index ---------------------------------------------------------------------------------------------------------


def random_shelf(count, rng, dimension=3):
    shelf = {}
    for i in range(count):
        k = int(rng.integers(1, 7))
        shelf[f"id{i}"] = made(rng.normal(size=(k, dimension)) + rng.normal(size=dimension), rng.dirichlet(np.ones(k)))
    return shelf


def test_stacked_distances_are_the_plain_ones():
    rng = np.random.default_rng(0)
    shelf, user = random_shelf(40, rng), made(rng.normal(size=(5, 3)), rng.dirichlet(np.ones(5)))
    index = index_of(**shelf)
    expected = sorted(shelf, key=lambda id: shelf[id].distance(user))
    result = index.search(None, user, limit=1000, mixture=None)
    assert result.ids == expected[: len(result.ids)]
    assert [hit.distance for hit in result.single] == pytest.approx(
        [shelf[id].distance(user) for id in result.ids], abs=1e-12
    )
    everything = scores_of([shelf[id].distance(user) for id in expected])
    assert [hit.score for hit in result.single] == pytest.approx(everything[: kept(everything)])


def test_mixtures_of_the_index_are_those_of_plain_inner_products():
    rng = np.random.default_rng(1)
    for trial in range(10):
        shelf = random_shelf(12, rng)
        user = made(np.concatenate([shelf["id0"].z, shelf["id1"].z + 0.1]))
        nearest = sorted(shelf, key=lambda id: shelf[id].distance(user))
        among, toward = inner_products([shelf[id] for id in nearest], user)
        chosen, weights, distance = greedy(among, toward, user.self_product)
        found = index_of(**shelf).search(None, user).mixture
        if found is None:
            assert len(chosen) == 1 or trial
            continue
        assert found.ids == tuple(nearest[i] for i in chosen)
        assert found.weights == pytest.approx(weights, abs=1e-6)
        assert found.distance == pytest.approx(distance, abs=1e-9)


def test_search_after_many_additions_and_removals_equals_a_fresh_index():
    rng = np.random.default_rng(2)
    shelf, user = random_shelf(60, rng), made(rng.normal(size=(4, 3)))
    grown = Index()
    for i, (id, specification) in enumerate(shelf.items()):
        grown.add(id, words(id), specification)
        grown.search(None, user)
        if i % 3:
            grown.remove(id)
    left = {id: each for i, (id, each) in enumerate(shelf.items()) if i % 3 == 0}
    assert len(grown) == len(left)
    assert grown.ids() == list(left)
    old, fresh = grown.search(None, user), index_of(**left).search(None, user)
    assert old.ids == fresh.ids
    assert [hit.distance for hit in old.single] == pytest.approx([hit.distance for hit in fresh.single], abs=1e-12)


def test_adding_again_replaces(three):
    three.add("zero", words("renamed"), made([[7.0]]))
    assert len(three) == 3
    assert three.semantic("zero").name == "renamed"
    assert three.search(None, made([[7.0]])).ids == ["zero"]


def test_removing_what_is_not_there():
    with pytest.raises(NotFound):
        Index().remove("x")
    Index().remove("x", missing_ok=True)
    with pytest.raises(BadInput):
        Index().add("", words(), None)


def test_an_empty_index_finds_nothing():
    assert Index().search().single == []
    assert Index().search(None, USER) == SearchResult(searched="statistical")


def test_words_filter_before_distances():
    index = Index()
    index.add("right", words("house prices", licence="MIT"), made([[5.0]]))
    index.add("near", words("flowers"), made([[0.0]]))
    index.add("wordless", words("house numbers"), None)
    user = made([[0.0]])
    assert index.search(None, user).ids[0] == "near"
    assert index.search(SemanticQuery(licence="MIT"), user).ids == ["right"]
    assert index.search(SemanticQuery(text="house"), user).ids == ["right"]
    assert index.search(SemanticQuery(text="house")).ids == ["right", "wordless"]
    assert index.search(SemanticQuery(text="house")).searched == "semantic"
    assert index.search(SemanticQuery(data="Image"), user).ids == []


def test_rough_text_is_searched_only_when_nothing_fits_word_for_word():
    index = Index()
    index.add("exact", words("flower shapes"), None)
    index.add("rough", words("flowxr shapes"), None)
    assert index.search(SemanticQuery(text="flower")).ids == ["exact"]
    rough = index.search(SemanticQuery(text="flowerz shapes"))
    assert rough.ids == ["exact", "rough"]
    assert 0.75 <= rough.single[1].score < rough.single[0].score < 1.0
    assert index.search(SemanticQuery(text="earthquake magnitudes")).ids == []


def test_only_the_same_space_is_compared():
    index = index_of(plane=made([[0.0, 0.0]]), line=made([[0.0]]), wide=made([[0.0]], gamma=1.0))
    assert index.search(None, made([[0.0]])).ids == ["line"]
    for other in (made([[0.0] * 3]), made([[0.0]], gamma=0.2), made([[0.0]], encoder="e")):
        with pytest.raises(BadSpecification) as caught:
            index.search(None, other)
        assert caught.value.code == "incompatible"
    assert index.search(None, made([[0.0]], type="rkme-text", encoder="e")).single == []


def test_texts_are_found_where_all_their_languages_are_known():
    def text(*languages):
        return made([[0.0]], type="rkme-text", encoder="e", languages=languages)

    index = index_of(english=text("en"), both=text("en", "de"), unknown=text())
    assert index.search(None, text("de")).ids == ["both", "unknown"]
    assert index.search(None, text("en", "de")).ids == ["both", "unknown"]
    assert index.search(None, text("en")).ids == ["english", "both", "unknown"]
    assert index.search(None, text()).ids == ["english", "both", "unknown"]


def test_limit_and_offset_page_through(three):
    user = made([[0.0]], gamma=0.1)
    for id in "abcdef":
        three.add(id, words(id), made([[0.0]]))
    everything = three.search(None, user)
    assert everything.total == len(everything.single)
    page = three.search(None, user, limit=2, offset=3)
    assert page.ids == everything.ids[3:5]
    assert page.total == everything.total


@pytest.mark.parametrize("options", [{"limit": -1}, {"offset": -1}, {"mixture": "best"}])
def test_impossible_searches_are_refused(three, options):
    with pytest.raises(BadInput):
        three.search(None, USER, **options)


def test_searching_while_others_write():
    index = index_of(**random_shelf(30, np.random.default_rng(0)))
    user, failures = made([[0.0, 0.0, 0.0]]), []

    def write():
        for id, specification in random_shelf(60, np.random.default_rng(1)).items():
            index.add(id, words(id), specification)
            if int(id[2:]) % 2:
                index.remove(id)

    def read():
        try:
            for _ in range(60):
                assert index.search(None, user).single
        except BaseException as error:
            failures.append(error)

    threads = [Thread(target=write), Thread(target=read), Thread(target=read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(index) == 30


# -- results and identifiers -------------------------------------------------------------------------------------------


def test_results_come_back_from_json(three):
    result = three.search(None, USER)
    assert result.mixture is not None
    assert SearchResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert SearchResult.from_json({}) == SearchResult()


class ByLength:
    """An identifier that judges ids by their length, and knows nothing of `two`."""

    def rank(self, data, ids):
        return {id: len(id) * data for id in ids if id != "two"}


def test_identifiers_reorder_the_single_list():
    index = Index()
    for id in ("a", "two", "long", "longer"):
        index.add(id, words(id), made([[0.0]]))
    user = made([[0.0]])
    assert index.search(None, user).ids == ["a", "two", "long", "longer"]
    assert index.search(None, user, reorder=lambda ids: {id: len(id) for id in ids}).ids == [
        "longer",
        "long",
        "two",
        "a",
    ]
    assert index.search(None, user, 1, reorder=lambda ids: {id: len(id) for id in ids}).ids == ["longer"]
    assert isinstance(ByLength(), Identifier)
    assert reorder(index.search(None, user), ByLength(), 1.0).ids == ["longer", "long", "a", "two"]
    assert reorder(index.search(None, user), ByLength(), -1.0).ids == ["a", "long", "longer", "two"]


def test_hits_keep_their_scores_when_reordered():
    result = SearchResult([Hit("a", 0.9, 0.1), Hit("b", 0.8, 0.2)])
    assert result.reordered({"b": 1.0}).single == [Hit("b", 0.8, 0.2), Hit("a", 0.9, 0.1)]


# -- tables with other columns -----------------------------------------------------------------------------------------

MEASURES = ["age", "blood pressure", "body mass", "serum sugar", "ldl level", "hdl level", "heart rate", "sleep hours"]


def hospital(kind, columns, seed):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(2, 8))
    hidden = rng.normal(size=(120, 2)) * 0.3 + 2.0 * np.eye(2)[kind]
    return RKME(20).fit((hidden @ mixing + 0.2 * rng.normal(size=(120, 8)))[:, columns])


def described(columns):
    return {j: MEASURES[c] for j, c in enumerate(columns)}


@pytest.fixture(scope="module")
def hospitals():
    rng, index = np.random.default_rng(1), Index()
    for i in range(10):
        columns = sorted(rng.choice(8, 5, replace=False).tolist())
        semantic = words(f"kind {i % 2}", input=Input(dimension=5, description=described(columns)))
        index.add(f"{i % 2}-{i}", semantic, hospital(i % 2, columns, i))
    index.add("undescribed", words("kind 0", input=Input(dimension=5)), hospital(0, [0, 1, 2, 3, 4], 99))
    return index


def test_tables_with_other_columns_are_found(hospitals):
    across = HeterogeneousIndex.built(
        hospitals, FitTableMap(epochs=25, width=32, layers=1, heads=4, learning_rate=1e-3)
    )
    assert len(across) == 10
    right = 0
    for trial in range(12):
        columns = sorted(np.random.default_rng(100 + trial).choice(8, 6, replace=False).tolist())
        result = across.search(hospital(trial % 2, columns, 1000 + trial), described(columns))
        assert result.searched == "heterogeneous"
        right += result.ids[0].startswith(str(trial % 2))
    assert right >= 10  # of 12; by chance 6
    only = across.search(hospital(0, [0, 1], 5), described([0, 1]), SemanticQuery(text="kind 1"), limit=1)
    assert only.ids[0].startswith("1-")


def test_a_table_map_needs_descriptions(hospitals):
    across = HeterogeneousIndex.built(hospitals, FitTableMap(epochs=1, width=16, layers=1, heads=2))
    with pytest.raises(BadInput):
        across.search(hospital(0, [0, 1], 5), {})
    with pytest.raises(NotApplicable):
        across.add("x", words("x", input=Input(dimension=2), output=Output(dimension=1)), hospital(0, [0, 1], 5))
    with pytest.raises(BadInput):
        HeterogeneousIndex.built(Index())


def test_inner_products_are_remembered_and_belong_to_one_learnware_each():
    rng = np.random.default_rng(0)

    def spec() -> Specification:
        return Specification(type="rkme-table", gamma=0.1, encoder="", z=rng.normal(size=(4, 3)), beta=np.full(4, 0.25))

    made = [spec() for _ in range(5)]
    stack = Stack(Space.of(made[0]))
    for i, one in enumerate(made[:4]):
        stack.add(str(i), one)
    first = stack.shelf().among(np.arange(4))
    assert np.allclose(first, [[a.inner(b) for b in made[:4]] for a in made[:4]])
    assert len(stack.shelf().pairs) == 10
    again = stack.shelf().among(np.array([2, 0]))
    assert np.array_equal(again, first[np.ix_([2, 0], [2, 0])])
    stack.remove("1")
    stack.add("1", made[4])  # the same id, another learnware
    positions = np.array([stack.position(id) for id in ("1", "3")])
    assert np.allclose(
        stack.shelf().among(positions), [[a.inner(b) for b in (made[4], made[3])] for a in (made[4], made[3])]
    )
    for id in ("0", "2", "3"):
        stack.remove(id)  # packs the arrays
    assert np.allclose(stack.shelf().among(np.array([stack.position("1")])), made[4].self_product)

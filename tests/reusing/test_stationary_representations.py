"""Stationary representations against the card's worked values, and the promises of every way to upgrade."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from didact.core import registry
from didact.core.errors import BadInput, NotApplicable
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models.small import mlp
from didact.reusing import ModelRecord, ReuseResult, Task
from didact.reusing.stationary_representations import (
    HOC,
    BackwardCompatible,
    CompatibleUpgrade,
    Memory,
    ProcrustesAlignment,
    SimplexClassifier,
    Step,
    Stream,
    UpgradeIndependent,
    UpgradeReplay,
    average_compatibility,
    average_multimodel,
    compatibility,
    embedded,
    retrieval_net,
    rotation,
    simplex_prototypes,
    upgrade_problem,
)
from didact.reusing.stationary_representations.stream import half_from_memory
from didact.reusing.stationary_representations.upgrading import Parts

WORKED = [[70, 0, 0], [72, 75, 0], [71, 74, 73]]


# -- the simplex -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "cosine"), [(2, -1.0), (3, -0.5), (5, -0.25), (32, -1 / 31), (256, -1 / 255)])
def test_prototypes_form_a_regular_simplex(classes, cosine):
    w = simplex_prototypes(classes)
    assert w.shape == (classes, classes - 1)
    gram = w @ w.T
    assert torch.allclose(gram.diagonal(), torch.ones(classes), atol=1e-6)
    assert torch.allclose(gram[~torch.eye(classes, dtype=bool)], torch.tensor(cosine), atol=1e-6)
    assert torch.allclose(w.sum(0), torch.zeros(classes - 1), atol=1e-5)


def test_a_class_uses_the_row_from_the_back():
    classifier = SimplexClassifier(5)
    w = simplex_prototypes(5)
    for label in range(5):
        assert classifier.row_of(label) == 4 - label
        scores = classifier(w[4 - label][None])
        assert int(scores.argmax()) == label
        assert scores[0, label] == pytest.approx(1.0, abs=1e-6)
    for wrong in (5, -1):
        with pytest.raises(BadInput, match="labels go from 0 to 4"):
            classifier.row_of(wrong)


def test_the_classifier_is_not_trained_and_refuses_other_feature_sizes():
    classifier = SimplexClassifier(6)
    assert list(classifier.parameters()) == []
    assert classifier.state_dict() == {}
    with pytest.raises(BadInput, match="features of size 5"):
        classifier(torch.zeros(2, 6))
    with pytest.raises(BadInput, match="at least 2 classes"):
        SimplexClassifier(1)
    with pytest.raises(BadInput, match="takes 5 features"):
        retrieval_net(mlp(4, 2, (3,)), 6, 7)


def test_the_fingerprint_tells_simplexes_apart():
    assert SimplexClassifier(6).fingerprint == SimplexClassifier(6).fingerprint
    assert SimplexClassifier(6).fingerprint != SimplexClassifier(7).fingerprint


# -- the contrast ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "value"), [("exclude", -10.0), ("zero", -9.306853)])
def test_the_contrast_on_the_worked_values(mask, value):
    eye, labels = torch.eye(2), torch.tensor([0, 1])
    assert float(HOC(mask=mask).contrast(eye, eye, labels)) == pytest.approx(value, abs=1e-5)


def plain_contrast(new, old, labels, mu):
    total = 0.0
    for i in range(len(labels)):
        own = mu * float(new[i] @ old[i])
        others = [math.exp(mu * float(old[i] @ new[j])) for j in range(len(labels)) if labels[j] != labels[i]]
        total += -own + math.log(sum(others))
    return total / len(labels)


def test_the_contrast_equals_a_plain_implementation():
    generator = torch.Generator().manual_seed(0)
    new, old = (F.normalize(torch.randn(7, 4, generator=generator), dim=1) for _ in range(2))
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    found = HOC(mu=3.0).contrast(5 * new, 0.1 * old, labels)  # it normalises
    assert float(found) == pytest.approx(plain_contrast(new, old, labels, 3.0), abs=1e-5)


def test_the_loss_mixes_both_terms():
    generator = torch.Generator().manual_seed(0)
    new, old, scores = (torch.randn(6, 4, generator=generator) for _ in range(3))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    contrast, entropy = HOC().contrast(new, old, labels), F.cross_entropy(scores, labels)
    assert float(HOC(0.3)(scores, new, old, labels)) == pytest.approx(float(0.3 * entropy + 0.7 * contrast), abs=1e-5)
    assert float(HOC(1.0)(scores, new, old, labels)) == pytest.approx(float(entropy), abs=1e-5)


def test_a_batch_of_one_class_has_nothing_to_repel():
    new = torch.randn(3, 4, requires_grad=True)
    loss = HOC().contrast(new, torch.randn(3, 4), torch.zeros(3, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(new.grad).all()


def test_wrong_settings_of_the_contrast_are_refused():
    for wrong in ({"lam": 1.5}, {"mu": 0.0}):
        with pytest.raises(BadInput):
            HOC(**wrong)
        with pytest.raises(BadInput, match="stationary-representations"):
            CompatibleUpgrade(**wrong)
    with pytest.raises(BadInput, match="same simplex"):
        HOC().contrast(torch.zeros(2, 3), torch.zeros(2, 4), torch.tensor([0, 1]))


# -- compatibility -----------------------------------------------------------------------------------------------------


def test_ac_and_am_on_the_worked_matrix():
    assert average_compatibility(WORKED) == pytest.approx(2 / 3)
    assert average_multimodel(WORKED) == pytest.approx(72.5)
    assert average_compatibility([[1.0]]) == 0.0


class Fixed(nn.Module):
    """Features by a matrix."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = torch.as_tensor(matrix, dtype=torch.float32)

    def embed(self, x):
        return x @ self.matrix


def clouds(seed, spread=0.3):
    y = torch.arange(60) % 3
    x = 2 * torch.eye(3)[y] + spread * torch.randn(60, 3, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, y)


def test_the_same_model_twice_is_compatible_but_no_better():
    model = Fixed(torch.eye(3))
    found = compatibility([model, model], clouds(0, 1.0), clouds(1, 1.0))
    assert found.matrix[1, 0] == found.matrix[0, 0] == found.matrix[1, 1] > 0.5
    assert math.isnan(found.matrix[0, 1])
    assert found.ac == 0.0
    assert (found.same, found.different) == (1.0, 1.0)


def test_a_turned_model_is_not_compatible():
    turned = Fixed(torch.eye(3).roll(1, 1))
    found = compatibility([Fixed(torch.eye(3)), turned], clouds(0), clouds(1))
    assert found.matrix[0, 0] == found.matrix[1, 1] == 1.0
    assert found.matrix[1, 0] == 0.0
    assert found.across(1) == 0.0
    assert found.am == pytest.approx(2 / 3)
    assert found.same < 0.2


def test_the_definition_counts_pairs():
    """Two samples a class in two dimensions, worked by hand: a better new model and a worse one."""
    y = torch.tensor([0, 0, 1, 1])
    near = torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0], [-0.1, 1.0]])
    exact = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])

    class Table(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def embed(self, x):
            return self.rows[x[:, 0].long()]

    data = TensorDataset(torch.arange(4.0)[:, None], y)
    better = compatibility([Table(near), Table(exact)], data, data)
    assert better.same == 1.0  # each cosine rises from cos(2a) to cos(a)
    worse = compatibility([Table(exact), Table(near)], data, data)
    assert worse.same == 0.0
    assert worse.different == 0.5  # one of two samples of a class leans away from the other class, one towards it


def test_a_gallery_without_a_class_and_other_feature_sizes_are_refused():
    x, y = clouds(0).tensors
    with pytest.raises(BadInput, match="no sample of 2"):
        compatibility([Fixed(torch.eye(3))], TensorDataset(x[y < 2], y[y < 2]), clouds(1))
    with pytest.raises(BadInput, match=r"\[2, 3\]"):
        compatibility([Fixed(torch.eye(3)), Fixed(torch.ones(3, 2))], clouds(0), clouds(1))


# -- upgrading ---------------------------------------------------------------------------------------------------------

ROOM = 8
METHODS = [CompatibleUpgrade, UpgradeReplay, UpgradeIndependent, BackwardCompatible, ProcrustesAlignment]


def recipe(epochs=8):
    return Recipe(lambda: mlp(6, 4, (16,)), Classification(), "tiny", epochs=epochs, batch_size=16, lr=0.05)


def samples(classes, seed=0, count=30):
    y = torch.tensor(classes).repeat_interleave(count)
    noise = torch.randn(len(y), 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(3 * torch.eye(6)[y] + 0.7 * noise, y)


def wide(fixed=True, room=ROOM, **known):
    torch.manual_seed(5)
    model = retrieval_net(mlp(6, 4, (32,)), room, room - 1, fixed)
    return ModelRecord.of(model, "wide-simplex" if fixed else "wide-learnt", **known)


@pytest.fixture
def problem():
    steps = (Step(samples([0, 1, 2])), Step(samples([3])), Step(samples([4, 5]), ("wide-simplex", "wide-learnt")))
    everything = [0, 1, 2, 3, 4, 5]
    return upgrade_problem(
        Stream(steps, ROOM),
        samples(everything, 1, 10),
        samples(everything, 2, 10),
        recipe=recipe(),
        replacements=[wide(), wide(False)],
        validation=(samples(everything, 3, 10), samples(everything, 4, 10)),
    )


@pytest.mark.parametrize("cls", METHODS)
def test_every_upgrade_is_deterministic_leaves_the_models_alone_and_saves(cls, problem, tmp_path):
    before = [copy.deepcopy(r.network().state_dict()) for r in problem.given.models]
    first, second = cls().solve(problem.given), cls().solve(problem.given)
    scores = problem.score(first)
    assert scores == problem.score(second)
    assert scores["am"] == scores["test_score"] > 1 / 6
    assert math.isfinite(scores["across"])
    for record, old in zip(problem.given.models, before, strict=True):
        assert all(torch.equal(v, old[n]) for n, v in record.network().state_dict().items())
    assert len(first.predictor.models) == 3
    assert [m.backbone.body[0].out_features for m in first.predictor.models] == [16, 16, 32]
    first.save(tmp_path / "answer")
    assert problem.score(ReuseResult.open(tmp_path / "answer")) == {
        **scores, "training_steps": first.cost["training_steps"]
    }  # fmt: skip
    assert problem.validate(first)["validation_score"] == first.extras["compatibility"].am
    steps = 8 * (math.ceil(90 / 16) + math.ceil(30 / 8) + math.ceil(60 / 8))
    assert first.cost["training_steps"] == steps


def test_only_the_upgrades_that_share_the_simplex_use_it(problem):
    fixed, learnt = CompatibleUpgrade().solve(problem.given), UpgradeReplay().solve(problem.given)
    assert {m.fingerprint for m in fixed.predictor.models} == {SimplexClassifier(ROOM).fingerprint}
    assert {m.fingerprint for m in learnt.predictor.models} == {""}
    assert fixed.provenance["prototypes"] == SimplexClassifier(ROOM).fingerprint


def test_the_contrast_comes_in_where_there_is_something_to_compare_with(problem):
    hoc, simplex = (CompatibleUpgrade(method=m).solve(problem.given) for m in ("simplex-hoc", "simplex"))
    same = [
        all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in zip(hoc.predictor.models, simplex.predictor.models, strict=True)
    ]
    assert same == [True, False, False]


def test_the_contrast_looks_at_the_replacement_as_it_came(problem):
    seen = []

    class Spy(CompatibleUpgrade):
        def parts(self, started, previous, seen_classes, known):
            seen.append((started, previous, seen_classes, known))
            return super().parts(started, previous, seen_classes, known)

    Spy().solve(problem.given)
    came = problem.given.models[0].network()
    reference = seen[2][0]
    assert all(torch.equal(a, b) for a, b in zip(reference.parameters(), came.parameters(), strict=True))
    assert not any(p.requires_grad for p in reference.parameters())
    assert [(s[2], s[3]) for s in seen] == [(3, 0), (4, 3), (6, 4)]


def test_half_of_each_batch_comes_from_memory():
    new, old = samples([3]).tensors, samples([0, 1]).tensors
    batches = list(half_from_memory(new, old, 16, 0))
    assert [len(y) for _, y in batches] == [16, 16, 16, 12]
    for _, y in batches:
        assert int((y == 3).sum()) == len(y) // 2
    drawn = torch.cat([x[y == 3] for x, y in batches])
    assert torch.equal(drawn.sort(0).values, new[0].sort(0).values)


def test_the_memory_keeps_as_many_of_each_class():
    memory = Memory(5, 0)
    memory.add(samples([0, 1]))
    memory.add(samples([2], count=3))
    labels = torch.stack([memory.data[i][1] for i in range(len(memory))])
    assert torch.bincount(labels).tolist() == [5, 5, 3]


def test_weights_decay_but_biases_do_not(problem):
    """With a rate so small that only the gradient hook shows: compare the first step of two decays."""
    trained = [UpgradeReplay(weight_decay=w, epochs=1, lr=1e-2, momentum=0.0).solve(problem.given) for w in (0.0, 1.0)]
    one, two = (t.predictor.models[0] for t in trained)
    assert two.embedding.weight.norm() < one.embedding.weight.norm()


def test_backward_compatible_training_reads_new_features_with_the_old_classifier():
    torch.manual_seed(0)
    model, old = (retrieval_net(mlp(6, 4, (8,)), ROOM, ROOM - 1, False) for _ in range(2))
    x, y = samples([0, 3], count=2).tensors
    scores = model(x)
    plain = F.cross_entropy(scores[:, :4], y)
    read = F.cross_entropy(old.classifier(model.embed(x[:2]))[:, :3], y[:2])  # only samples of classes it knows
    method = BackwardCompatible(influence=0.5)
    loss = method.loss(model, Parts(4, old_classifier=old.classifier, known=3), (x, y))
    assert loss.item() == pytest.approx((plain + 0.5 * read).item(), abs=1e-6)
    assert method.loss(model, Parts(4), (x, y)).item() == pytest.approx(plain.item(), abs=1e-6)


def test_procrustes_finds_the_rotation():
    generator = torch.Generator().manual_seed(0)
    new = torch.randn(40, 5, generator=generator)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    assert torch.allclose(rotation(new, new @ turn), turn, atol=1e-5)


def test_procrustes_turns_the_features_and_keeps_the_scores(problem):
    torch.manual_seed(0)
    model, old = (retrieval_net(mlp(6, 4, (8,)), ROOM, ROOM - 1, False).eval() for _ in range(2))
    memory = Memory(20, 0)
    memory.add(samples([0, 1, 2]))
    turned = ProcrustesAlignment().finished(model, old, memory)
    x = samples([0, 1, 2]).tensors[0]
    assert torch.allclose(turned(x), model(x), atol=1e-5)
    near, far = ((embedded(m, x) - embedded(old, x)).norm() for m in (turned, model))
    assert near < far


def test_a_stream_that_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="room for 3 classes"):
        Stream((Step(samples([0, 3])),), 3)
    with pytest.raises(BadInput, match="at least one step"):
        Stream(())
    x, y = samples([0]).tensors
    with pytest.raises(BadInput, match="class indices"):
        Stream((Step(TensorDataset(x, y.float())),), 4)


def upgrade(models, stream, **options):
    return CompatibleUpgrade(epochs=1).reuse(models, Task(), recipe=recipe(), extras={"stream": stream}, **options)


def test_replacements_that_share_no_prototypes_are_refused():
    steps = (Step(samples([0, 1])), Step(samples([2]), ("wide-simplex",)))
    stream = Stream(steps, ROOM)
    with pytest.raises(BadInput, match="share no prototypes"):
        upgrade([wide(room=ROOM + 1)], stream)
    with pytest.raises(BadInput, match="Do not use it"):
        upgrade([wide(semantic={"prototypes": "0" * 16})], stream)
    upgrade([wide(semantic={"prototypes": SimplexClassifier(ROOM).fingerprint})], stream)
    with pytest.raises(BadInput, match="RetrievalNet was expected"):
        upgrade([ModelRecord.of(mlp(6, 4), "wide-simplex")], stream)
    with pytest.raises(BadInput, match="names the replacement"):
        upgrade([], stream)
    learnt = Stream((steps[0], Step(samples([2]), ("wide-learnt",))), ROOM)
    with pytest.raises(NotApplicable, match="trained against a simplex"):
        upgrade([wide(False)], learnt)
    with pytest.raises(BadInput, match="Stream of steps"):
        upgrade([], [steps[0]])
    with pytest.raises(NotApplicable, match="stream"):
        CompatibleUpgrade().reuse([], Task(), recipe=recipe())


def test_a_backbone_of_ones_own_and_the_matrix_in_the_answer():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 12), nn.Tanh())
            self.out = nn.Linear(12, 2)

        def forward(self, x):
            return self.out(self.inner(x))

    stream = Stream((Step(samples([0, 1])), Step(samples([2]))), ROOM)
    given = {"stream": stream, "gallery": samples([0, 1, 2], 1, 5), "queries": samples([0, 1, 2], 2, 5)}
    own = Recipe(Own, Classification(), "own", epochs=3, batch_size=16, lr=0.05)
    answer = CompatibleUpgrade().reuse([], Task(), recipe=own, extras=given)
    assert answer.extras["compatibility"].matrix.shape == (2, 2)
    assert answer.module.embed(torch.zeros(4, 6)).shape == (4, ROOM - 1)
    assert np.allclose(np.linalg.norm(answer.predictor.embed(samples([0]).tensors[0]), axis=1), 1)


def test_the_embedded_problem_is_for_upgrades_only():
    made = registry.make_problem("upgraded-digits:epochs=1", 0)
    assert made.lacks(CompatibleUpgrade.card.needs, CompatibleUpgrade.card.tasks) is None
    assert made.lacks(("models", "labelled"), ()) is not None
    assert registry.make_problem("hub:models=1", 0).lacks(CompatibleUpgrade.card.needs, ()) is not None
    assert [len(set(s.data.tensors[1].tolist())) for s in made.given.extras["stream"].steps] == [4, 2, 2, 2]
    assert made.score(CompatibleUpgrade().solve(made.given))["am"] > 0.1
    with pytest.raises(BadInput, match="digits or shapes"):
        registry.make_problem("upgraded-digits:elsewhere=moon", 0)
    with pytest.raises(BadInput, match="before task 1, 2 or 3"):
        registry.make_problem("upgraded-digits:replaced=0", 0)

"""The protocol: worked values of the scorer, the checks before any work, relearning, and the embedded problems."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from didact.core import registry
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import Hooks, fit
from didact.core.objective import CausalLM, Classification, Regression
from didact.core.recipe import Recipe
from didact.forgetting import FineTune, GradientAscent, Original, Retrain, unlearning_problem
from didact.forgetting.relearning import relearning_steps
from didact.forgetting.scoring import METRICS, changed_share, js_divergence, wasserstein
from didact.models.language import gpt_tiny, text_classifier
from didact.models.small import mlp
from didact.parts.membership import judged_unseen, membership_auc


def clouds(n=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    return torch.randn(n, 6, generator=generator) + 3.0 * torch.nn.functional.one_hot(y, 6), y


@pytest.fixture(scope="module")
def parts():
    (x, y), (u, v) = clouds(), clouds(90, seed=1)
    gone, unseen = y == 2, v == 2
    recipe = Recipe(lambda: mlp(6, 3, (32,)), Classification(), "clouds", epochs=30, lr=1e-2)
    return {
        "model": recipe.fit(TensorDataset(x, y), 0),
        "forget": TensorDataset(x[gone], y[gone]),
        "retain": TensorDataset(x[~gone], y[~gone]),
        "test": TensorDataset(u[~unseen], v[~unseen]),
        "holdout": TensorDataset(u[unseen], v[unseen]),
        "recipe": recipe,
    }


def problem(parts, **changes):
    given = {**parts, **changes}
    return unlearning_problem(given.pop("model"), given.pop("forget"), given.pop("retain"), given.pop("test"), **given)


def test_worked_values_of_the_scorer():
    assert membership_auc([0.9, 0.8], [0.8, 0.1]) == 0.875
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert float((p - q).norm()) == pytest.approx(1.414214, abs=1e-6)
    assert float(js_divergence(p, q)) == 1.0
    assert float(js_divergence(p, p)) == 0.0
    assert wasserstein(torch.tensor([0.0, 1, 3]), torch.tensor([5.0, 6, 8])) == 5.0


def test_attacks_say_what_they_should():
    assert membership_auc([2, 3], [0, 1]) == 1.0
    assert membership_auc([1, 1], [1, 1]) == 0.5
    assert math.isnan(membership_auc([], [1]))
    members, others = torch.full((50,), 0.99), torch.full((50,), 0.2)
    assert judged_unseen(torch.full((10,), 0.2), members, others) == 1.0
    assert judged_unseen(torch.full((10,), 0.99), members, others) == 0.0


def test_the_original_has_forgotten_nothing_and_retraining_everything(parts):
    made = problem(parts)
    original = made.score(Original().solve(made.given))
    retrained = made.score(Retrain().solve(made.given))
    assert set(original) == {m.name for m in METRICS} == set(retrained)
    assert original["forget_score"] > 0.9
    assert original["changed"] == 0.0
    assert original["relearn_steps"] == 0.0
    assert original["forget_gap"] > 0.9
    assert retrained["forget_score"] < 0.1
    assert retrained["forget_gap"] < 0.2
    assert retrained["ain"] == pytest.approx(1.0, abs=0.5)
    assert retrained["avg_gap"] < 0.05
    assert retrained["test_score"] > 0.9


def test_a_collapsed_model_is_flagged(parts):
    made = problem(parts)
    ruined = copy.deepcopy(parts["model"])
    with torch.no_grad():
        ruined.head.bias[:] = torch.tensor([0.0, 0.0, 1e6])
    assert made.score(ruined)["collapsed"] == 1.0
    assert made.score(parts["model"])["collapsed"] == 0.0


def test_the_reference_itself_has_no_gap(parts):
    made = problem(parts)
    found = made.score(made.reveal().reference)
    assert [found[f"gap_{name}"] for name in ("forget", "unseen", "retain", "test")] == [0.0] * 4
    assert found["act_dist"] == found["js"] == found["mia_gap"] == 0.0
    assert found["ain"] == 1.0


def test_changed_share_counts_parameters(parts):
    other = copy.deepcopy(parts["model"])
    with torch.no_grad():
        other.head.bias += 1.0
    total = sum(p.numel() for p in other.parameters())
    assert changed_share(parts["model"], other) == 3 / total
    assert math.isnan(changed_share(parts["model"], mlp(6, 3, (8,))))


def test_relearning_counts_updates_until_the_bar(parts):
    recipe, forget = parts["recipe"], parts["forget"]
    fresh = recipe.fresh(5)
    steps = relearning_steps(fresh, forget, recipe, bar=0.05, seed=1)
    seen = copy.deepcopy(fresh)
    losses = []

    def look(model, step):
        losses.append(float(recipe.objective.losses(model, forget).mean()))

    fit(seen, forget, recipe.objective, steps=steps, batch_size=32, lr=recipe.lr, seed=1, hooks=Hooks(after_step=look))
    assert losses[-1] <= 0.05
    assert all(loss > 0.05 for loss in losses[:-1])
    assert relearning_steps(fresh, forget, recipe, bar=-1.0) == recipe.steps_for(forget, 10)
    assert relearning_steps(parts["model"], forget, recipe, bar=1e9) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: {"forget": TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))},
            "forget set is empty",
        ),
        (
            lambda p: {"retain": TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))},
            "retain set is empty",
        ),
        (lambda p: {"retain": p["forget"]}, "in both the forget and the retain set"),
        (lambda p: {"forget": TensorDataset(p["forget"].tensors[0], p["forget"].tensors[1] + 1)}, "outside 0..2"),
        (lambda p: {"forget": TensorDataset(p["forget"].tensors[0], p["forget"].tensors[1] - 9)}, "outside 0..2"),
        (lambda p: {"model": copy.deepcopy(p["model"]).requires_grad_(False)}, "frozen"),
        (lambda p: {"model": poisoned(p["model"])}, "not finite, before any unlearning"),
    ],
)
def test_unusable_requests_are_refused_before_any_work(parts, change, message):
    given = {k: parts[k] for k in ("model", "forget", "retain")} | change(parts)
    with pytest.raises(BadInput, match=message):
        Explodes().unlearn(given["model"], given["forget"], given["retain"], objective=Classification())


class Explodes(Original):
    def edit(self, model, request):
        raise AssertionError("work was done")


def poisoned(model):
    model = copy.deepcopy(model)
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    return model


def test_a_method_without_what_it_needs_says_so(parts):
    with pytest.raises(NotApplicable, match="pass retain="):
        FineTune().unlearn(parts["model"], parts["forget"])


def test_gradient_ascent_stops_at_the_target(parts):
    edited = GradientAscent(epochs=200, lr=1e-3).unlearn(parts["model"], parts["forget"], parts["retain"], target=0.0)
    score = Classification().mean_score(edited, parts["forget"])
    assert score <= 0.05
    # Stopping matters: going on would ruin the rest.
    assert Classification().mean_score(edited, parts["retain"]) > 0.5


class Sentences(Dataset):
    """Token sequences of different lengths with a label that is one of the tokens."""

    def __init__(self, n, labels, seed):
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for i in range(n):
            label = labels[i % len(labels)]
            body = torch.randint(10, 40, (3 + i % 4,), generator=generator)
            self.rows.append((torch.cat([torch.tensor([3 + label]), body]), label))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        ids, label = self.rows[index]
        padded = torch.zeros(8, dtype=torch.long)
        padded[: len(ids)] = ids
        return {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": torch.tensor(label)}


SLUGS = [cls.card.slug for cls in registry.methods("forgetting") if cls.__module__.startswith("didact.")]
#: settings that make the dear methods quick; what they do stays
QUICK = {
    "laf": ["steps=5"],
    "prune-then-unlearn": ["prune=magnitude", "rate=0.3"],
    "masked-retrain": ["prune=magnitude"],
    "influence-unlearning": ["n=10"],
}


@pytest.mark.parametrize("slug", SLUGS)
def test_every_method_serves_a_hugging_face_classifier(slug, hugging_face):
    made, before = hugging_face
    method = registry.make_method(slug)
    if made.lacks(method.card.needs, method.card.tasks):
        pytest.skip("does not apply")
    if slug == "concept-poisoning":  # a method for images says so before any work
        with pytest.raises(NotApplicable, match="changes images"):
            method.solve(made.given)
        return
    answer = registry.make_method(":".join([slug, *QUICK.get(slug, [])])).solve(made.given)
    assert set(made.score(answer)) == {m.name for m in METRICS}
    assert all(torch.equal(a, b) for a, b in zip(before, made.given.model.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def hugging_face():
    recipe = Recipe(lambda: text_classifier(40, 3, hidden=16, layers=1, heads=2), Classification(), epochs=3, lr=3e-3)
    retain, forget = Sentences(40, [0, 1], 0), Sentences(12, [2], 1)
    model = recipe.fit(ConcatDataset([retain, forget]), 0)
    made = unlearning_problem(
        model, forget, retain, Sentences(20, [0, 1], 2), holdout=Sentences(10, [2], 3), recipe=recipe, target=0.0
    )
    return made, [t.clone() for t in model.state_dict().values()]


#: problems on tensors; those on texts, pictures with words and diffusion have tests beside their methods
ON_TENSORS = [p.name for p in registry.problems("forgetting") if Path(p.source).name in ("problems.py", "backdoor.py")]


@pytest.mark.parametrize("name", ON_TENSORS)
def test_embedded_problems_are_what_they_say(name):
    # Training is skipped: one epoch shows all that is asked here.
    made = registry.make_problem(f"{name}:epochs=1", seed=1)
    given, truth = made.given, made.reveal()
    assert made.validation is not None
    sets = [given.forget, given.retain, truth.test, truth.holdout, made.validation, made.validation_holdout]
    assert all(len(s) > 0 for s in sets), [len(s) for s in sets]
    rows = [
        {r.numpy().tobytes() for r in s.tensors[0]} for s in (given.forget, given.retain, truth.test, truth.holdout)
    ]
    if name == "digits-backdoor":  # the trigger makes another image of a test image
        return
    for i, a in enumerate(rows):
        for b in rows[i + 1 :]:
            # Two digits of 1,797 may coincide; drawn shapes and patients do not.
            assert len(a & b) <= 3
    again = registry.make_problem(f"{name}:epochs=1", seed=1)
    assert all(torch.equal(a, b) for a, b in zip(given.forget.tensors, again.given.forget.tensors, strict=True))
    other = registry.make_problem(f"{name}:epochs=1", seed=2)
    assert not torch.equal(given.forget.tensors[0][:5], other.given.forget.tensors[0][:5])
    if isinstance(given.objective, Regression):
        assert given.forget.tensors[1].is_floating_point()


def test_a_class_problem_forgets_exactly_that_class():
    made = registry.make_problem("digits-class:forget=8:epochs=1")
    assert set(made.given.forget.tensors[1].tolist()) == {8}
    assert 8 not in made.given.retain.tensors[1].tolist()
    assert 8 not in made.reveal().test.tensors[1].tolist()
    assert set(made.reveal().holdout.tensors[1].tolist()) == {8}
    with pytest.raises(BadInput, match=r"0\.\.9"):
        registry.make_problem("digits-class:forget=11")
    with pytest.raises(BadInput, match="has no option"):
        registry.make_problem("digits-class:forgetting=3")


def test_label_noise_reaches_training_data_alone_and_in_the_share_asked_for():
    clean, noisy = (registry.make_problem(f"digits-random:epochs=1:noise={n}", seed=1) for n in (0.0, 0.2))
    for name in ("forget", "retain"):
        a, b = getattr(clean.given, name).tensors, getattr(noisy.given, name).tensors
        assert torch.equal(a[0], b[0])
    wrong = sum(
        int((getattr(clean.given, n).tensors[1] != getattr(noisy.given, n).tensors[1]).sum())
        for n in ("forget", "retain")
    )
    assert wrong == 200
    assert torch.equal(clean.reveal().test.tensors[1], noisy.reveal().test.tensors[1])
    with pytest.raises(BadInput, match="wrong labels"):
        registry.make_problem("digits-random:noise=2")


def test_a_causal_language_model_of_ones_own_is_served():
    """Sequences of different lengths with prompts that are no targets: methods run, every metric is a number."""
    generator = torch.Generator().manual_seed(0)
    facts = []
    for i in range(24):  # "subject relation -> value", the value to be learnt by heart
        prompt = torch.tensor([3 + i, *([30] * (1 + i % 3))])
        value = 40 + int(torch.randint(20, (1,), generator=generator))
        ids = torch.cat([prompt, torch.tensor([value, 2])])
        facts.append({"input_ids": ids, "labels": torch.where(torch.arange(len(ids)) < len(prompt), -100, ids)})
    recipe = Recipe(lambda: gpt_tiny(64, hidden=32, layers=1, heads=2), CausalLM(), epochs=60, batch_size=8, lr=1e-2)
    made = unlearning_problem(
        recipe.fit(facts, 0), facts[:6], facts[6:20], facts[20:], holdout=facts[20:], recipe=recipe, target=0.0
    )
    original = made.score(made.given.model)
    assert original["forget_score"] == original["retain_score"] == 1.0
    for slug in ("original", "fine-tune", "gradient-difference", "bad-teacher", "ssd", "random-labels"):
        method = registry.make_method(slug)
        found = made.score(method.solve(made.given))
        unmeasured = {name for name, value in found.items() if math.isnan(value)}
        assert unmeasured <= {"w1"}, (slug, unmeasured)
    gone = made.score(GradientAscent(epochs=60, lr=3e-3).solve(made.given))
    assert gone["forget_score"] < 0.5


def test_decisions_are_target_tokens_in_language_models():
    logits, labels = torch.randn(2, 4, 5), torch.tensor([[-100, 1, 2, -100], [-100, -100, 3, 4]])
    rows = CausalLM().decisions(logits, labels)
    assert torch.equal(rows, torch.stack([logits[0, 0], logits[0, 1], logits[1, 1], logits[1, 2]]))

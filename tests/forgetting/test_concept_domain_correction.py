"""Concept domain correction against its worked values and a plain loop of its equations; its problem; its baseline."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import didact
from didact.core import registry
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.method import Method
from didact.core.objective import Denoising
from didact.core.recipe import Recipe, seeded
from didact.forgetting import ConceptAblation, ConceptDomainCorrection
from didact.forgetting.concept_domain_correction import concept as shared
from didact.forgetting.concept_domain_correction.discriminator import PatchDiscriminator
from didact.forgetting.concept_domain_correction.method import Duel
from didact.forgetting.concept_domain_correction.problem import (
    OTHERS,
    SEEN,
    STYLES,
    SYNONYMS,
    UNSEEN_STYLE,
    UNSEEN_SYNONYM,
    WORDS,
    PromptedImages,
    digits_concept,
    groups,
    prompt,
    prompted,
    word,
)
from didact.forgetting.request import Request
from didact.models.diffusion import unet

QUICK = {"steps": 3, "warmup": 2, "batch_size": 6, "images": 10, "sampling_steps": 3}


@pytest.fixture(scope="module")
def problem():
    """A tiny text-to-image model, trained for a few seconds and sampled in a few steps."""
    made = digits_concept(0, train=100, epochs=4, width=8, samples=1)
    return replace(made, judge=replace(made.judge, steps=4))


@pytest.fixture
def request_(problem):
    return problem.given


def weights(model):
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def replaced(request, **changes):
    return Request(**{**request.__dict__, **changes})


# -- the method ----------------------------------------------------------------------------------------------------


def plain(request, how, lam=1.0, steps=3, warmup=2, size=6, clamp=1.5):
    """The card's loop with ordinary backward passes: D alone first, then model and D in turn."""
    objective, model, original = request.objective, copy.deepcopy(request.model), copy.deepcopy(request.model).eval()
    with seeded(request.seed):
        pairs = shared.matching(original, request, None, 10, 3)
        d = PatchDiscriminator(1, 8)
        film = [p for name, p in model.named_parameters() if ".film." in name]
        own, other = torch.optim.Adam(film, 6e-4), torch.optim.Adam(d.parameters(), 5e-4, betas=(0.5, 0.999))
        retain = shared.retained(request, size)
        for step in range(warmup + steps):
            b = pairs.batch(objective, size)
            x, t = b["sample"], b["timestep"]
            abar = objective.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)

            def clean(e, x=x, abar=abar):
                return ((x - (1 - abar).sqrt() * e) / abar.sqrt()).clamp(-clamp, clamp)

            mine, theirs = clean(model(x, t, b["target"])), clean(original(x, t, b["anchor"])).detach()
            if step >= warmup:
                fooled = bce(d(mine), 0.0)
                r = next(retain)
                kept = (model(objective.mixed(r), r["timestep"], r["prompt"]) - r["noise"]).square().mean()
                if how == "none":
                    gradients = norm_one(torch.autograd.grad(fooled + 0.1 * kept, film))
                else:
                    against = norm_one(torch.autograd.grad(kept, film))
                    gradients = norm_one(torch.autograd.grad(fooled, film))
                    gradients = [
                        u - lam * (u * v).sum() / v.norm() ** 2 * v
                        if (u * v).sum() < 0 and how == "project"
                        else u - lam * (u * v).sum() / (u.norm() * v.norm()) * v / v.norm()
                        if (u * v).sum() < 0
                        else u
                        for u, v in zip(gradients, against, strict=True)
                    ]
                for parameter, gradient in zip(film, gradients, strict=True):
                    parameter.grad = gradient
                own.step()
            other.zero_grad()
            (bce(d(theirs), 0.0) + bce(d(mine.detach()), 1.0)).backward()
            other.step()
    return weights(model)


def bce(logits, label):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def norm_one(gradients):
    total = torch.cat([g.flatten() for g in gradients]).norm()
    return [g / max(1.0, float(total)) for g in gradients]


@pytest.mark.parametrize(("how", "lam"), [("project", 1.0), ("unit", 1.0), ("none", 1.0), ("project", 0.5)])
def test_it_equals_a_plain_implementation(request_, how, lam):
    edited = ConceptDomainCorrection(**QUICK, surgery=how, lam=lam).solve(request_)
    expected, mine = plain(request_, how, lam), weights(edited)
    for name, tensor in expected.items():
        assert torch.allclose(mine[name], tensor, atol=2e-5), name
    assert not same(mine, weights(request_.model))


def test_only_the_conditioning_moves_and_the_original_does_not(request_, problem):
    before, data = weights(request_.model), request_.forget.x0.clone()
    edited = ConceptDomainCorrection(**QUICK).solve(request_)
    assert same(weights(request_.model), before)
    assert torch.equal(request_.forget.x0, data)
    after = weights(edited)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".film." in name}
    assert all(p.requires_grad for p in edited.parameters())
    everything = weights(ConceptDomainCorrection(**QUICK, params="all").solve(request_))
    assert {"enter.weight", "middle.second.weight", "text.mix.0.weight"} <= {
        name for name in before if not torch.equal(before[name], everything[name])
    }
    one = weights(ConceptDomainCorrection(**QUICK, params=r"^middle\.film").solve(request_))
    assert {n for n in before if not torch.equal(before[n], one[n])} == {"middle.film.weight", "middle.film.bias"}


def test_during_warm_up_the_discriminator_learns_alone(request_, monkeypatch):
    seen = []
    real = Duel.discriminator_loss

    def watched(duel, theirs, mine):
        seen.append((weights(duel.model), weights(duel.original), weights(duel.discriminator)))
        return real(duel, theirs, mine)

    monkeypatch.setattr(Duel, "discriminator_loss", watched)
    ConceptDomainCorrection(**{**QUICK, "warmup": 3, "steps": 2}).solve(request_)
    models, originals, discriminators = zip(*seen, strict=True)
    first = weights(request_.model)
    assert [same(m, first) for m in models] == [True, True, True, False, False]
    assert all(same(o, first) for o in originals)
    assert all(not same(a, b) for a, b in pairwise(discriminators))


def duel(request):
    d = PatchDiscriminator(1, 8)
    return Duel(copy.deepcopy(request.model), request.model, d, request.objective)


def test_both_branches_see_the_same_noise_and_only_one_has_a_gradient(request_):
    both = duel(request_)
    pairs = shared.matching(request_.model, request_, None, 10, 3)
    b = pairs.batch(request_.objective, 5)
    theirs, mine = both.estimates({**b, "target": b["anchor"]}, 1.5)
    assert torch.equal(theirs, mine)
    assert mine.requires_grad
    assert not theirs.requires_grad
    assert float(mine.detach().abs().max()) <= 1.5
    free = both.estimates(b, None)[1]
    assert float(free.detach().abs().max()) > 1.5


def test_the_losses_have_the_right_signs_and_d_is_only_looked_through(request_):
    both = duel(request_)
    logit = {"theirs": -3.0, "mine": 2.0}
    images = {name: torch.full((4, 1, 8, 8), value, requires_grad=True) for name, value in logit.items()}

    class Reads(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3), keepdim=True)

    reading = Duel(both.model, both.original, Reads(), both.objective)
    log = torch.nn.functional.softplus
    expected = log(torch.tensor(-3.0)) + log(torch.tensor(-2.0))
    assert torch.isclose(reading.discriminator_loss(images["theirs"], images["mine"]), expected)
    assert torch.isclose(reading.unlearning_loss(images["mine"]), log(torch.tensor(2.0)))
    parameters = [p for n, p in both.model.named_parameters() if ".film." in n]
    pairs = shared.matching(request_.model, request_, None, 10, 3)
    mine = both.estimates(pairs.batch(request_.objective, 5), 1.5)[1]
    kept = request_.objective.loss(both.model, next(shared.retained(request_, 5)))
    ConceptDomainCorrection()._move(parameters, both.unlearning_loss(mine), kept)
    assert all(p.grad is None for p in both.discriminator.parameters())
    assert all(p.grad is not None for p in parameters)


def test_both_gradients_are_clipped_before_surgery(request_):
    model = copy.deepcopy(request_.model)
    film = [p for name, p in model.named_parameters() if ".film." in name]

    def losses():
        return [1e3 * sum((p - goal).square().sum() for p in film) for goal in (1.0, -1.0)]

    u, r = (norm_one(torch.autograd.grad(loss, film)) for loss in losses())
    ConceptDomainCorrection(surgery="unit")._move(film, *losses())
    for parameter, a, b in zip(film, u, r, strict=True):
        cosine = (a * b).sum() / (a.norm() * b.norm())
        expected = a - min(cosine, 0.0) * b / b.norm()
        assert torch.allclose(parameter.grad, expected, atol=1e-4)
    ConceptDomainCorrection(surgery="none", retain_weight=0.5)._move(film, *losses())
    assert float(torch.cat([p.grad.flatten() for p in film]).norm()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(("size", "widths"), [(4, 1), (8, 2), (16, 3), (32, 4), (64, 4)])
def test_the_discriminator_fits_the_image(size, widths):
    d = PatchDiscriminator(3, size)
    convolutions = [m for m in d.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [*[64, 128, 256, 512][:widths], 1]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in d.modules()) == widths - 1
    side = size // 2**widths - 1
    assert d(torch.randn(2, 3, size, size)).shape == (2, 1, side, side)


def test_the_same_seed_gives_the_same_model_and_passes_are_counted(request_):
    method = ConceptDomainCorrection(**QUICK)
    with Meter() as meter:
        first = method.solve(request_)
    assert same(weights(first), weights(method.solve(request_)))
    assert not same(weights(first), weights(method.solve(replaced(request_, seed=1))))
    # samples, the look at whether prompts are read, 2 + 3 steps of two predictions, 3 of the retained loss
    assert meter.forward == 10 * 3 + 2 + 5 * 2 * 6 + 3 * 6
    assert meter.backward == 3 * 2 * 6
    assert 0 <= meter.log["conflicts"] <= 1


@pytest.mark.parametrize("method", [ConceptDomainCorrection(**QUICK), ConceptAblation(steps=3, images=10)])
def test_its_answer_saves_and_loads_and_scores_the_same(problem, method, tmp_path):
    answer = method.solve(problem.given)
    didact.save(answer, tmp_path / "answer")
    loaded = didact.load(tmp_path / "answer")
    assert json.dumps(problem.score(loaded)) == json.dumps(problem.score(answer))


def test_the_anchor_can_be_named_and_many_tokens_be_swapped(request_):
    with_own = ConceptDomainCorrection(**QUICK, anchor=word(5)).solve(request_)
    with_given = ConceptDomainCorrection(**QUICK).solve(
        replaced(request_, extras={"concept": word(3), "anchor": word(5)})
    )
    assert same(weights(with_own), weights(with_given))
    prompts = torch.tensor([[1, 2, 3, 9], [0, 1, 2, 9]])
    assert shared.swap(prompts, (1, 2), (7, 8)).tolist() == [[7, 8, 3, 9], [0, 7, 8, 9]]
    assert prompts.tolist() == [[1, 2, 3, 9], [0, 1, 2, 9]]


def test_bad_input_is_refused_before_any_training(request_):
    method = ConceptDomainCorrection(**QUICK)
    with pytest.raises(BadInput, match="is the concept itself"):
        ConceptDomainCorrection(**QUICK, anchor=word(3)).solve(request_)
    with pytest.raises(BadInput, match="1 of 1 different prompts"):
        method.solve(replaced(request_, extras={"concept": word(4), "anchor": word(8)}))
    with pytest.raises(BadInput, match="as many"):
        ConceptDomainCorrection(**QUICK, anchor=(1, 2)).solve(request_)
    with pytest.raises(BadInput, match=r"matches no trainable parameter.*film"):
        ConceptDomainCorrection(**QUICK, params="attn2").solve(request_)
    with pytest.raises(NotApplicable, match="'concept'"):
        method.solve(replaced(request_, extras={}))
    with pytest.raises(NotApplicable, match="'anchor'"):
        method.solve(replaced(request_, extras={"concept": word(3)}))
    with pytest.raises(NotApplicable, match="data that stays"):
        method.solve(replaced(request_, retain=None))
    deaf = copy.deepcopy(request_.model)
    for parameter in deaf.text.mix[2].parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(BadInput, match="not conditioned on prompts"):
        method.solve(replaced(request_, model=deaf))
    velocity = copy.deepcopy(request_.model)
    velocity.prediction_type = "v_prediction"
    for any_method in (method, ConceptAblation()):
        with pytest.raises(BadInput, match="prediction='v_prediction'"):
            any_method.solve(replaced(request_, model=velocity))
    with pytest.raises(BadInput, match="at least 4x4"):
        PatchDiscriminator(1, 2)


def test_it_is_not_for_classifiers():
    x = torch.randn(6, 4)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    data = [TensorDataset(x[:3], labels[:3]), TensorDataset(x[3:], labels[3:])]
    with pytest.raises(NotApplicable, match="kind classification"):
        ConceptDomainCorrection().unlearn(nn.Linear(4, 2), *data)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"lr": 0}, {"lam": -1}, {"surgery": "cut"}, {"clamp": 0}, {"warmup": -1}]
)
def test_wrong_hyperparameters_are_refused(wrong):
    with pytest.raises(BadInput, match="concept-domain-correction"):
        ConceptDomainCorrection(**wrong)


def test_references_and_settings_survive():
    made = registry.make_method("concept-domain-correction:surgery=none:steps=7:anchor=4")
    assert (made.surgery, made.steps, made.anchor) == ("none", 7, 4)
    for cls in (ConceptDomainCorrection, ConceptAblation):
        assert cls(**json.loads(json.dumps(cls().settings))) == cls()
        assert all(parameter.doc for parameter in cls.hyperparameters())
        assert issubclass(cls, Method)


# -- models that are not ours --------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A U-Net of diffusers with its text encoder, called as didact calls a diffusion model."""

    def __init__(self):
        super().__init__()
        from diffusers import UNet2DConditionModel

        self.text = nn.Embedding(WORDS, 8)
        self.unet = UNet2DConditionModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(8, 8),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=8,
            attention_head_dim=4,
            norm_num_groups=4,
        )

    def forward(self, sample, timestep, prompt):
        return self.unet(sample, timestep, self.text(prompt)).sample


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_diffusers_model_is_edited_in_its_cross_attention(request_, prediction):
    with seeded(0):
        model = Wrapped().eval()
    given = replaced(request_, model=model, objective=Denoising(prediction=prediction))
    for method in (ConceptDomainCorrection(**QUICK), ConceptAblation(steps=2, images=4, batch_size=4)):
        before, after = weights(model), weights(method.solve(given))
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert all(".attn2." in name for name in moved)


# -- the baseline --------------------------------------------------------------------------------------------------


def test_concept_ablation_matches_the_anchors_prediction(request_):
    objective = request_.objective
    pairs = shared.matching(request_.model, request_, None, 60, 5)
    with seeded(5):
        b = pairs.batch(objective, 200)

    def distance(model):
        with torch.no_grad():
            goal = request_.model(b["sample"], b["timestep"], b["anchor"])
            return float((model(b["sample"], b["timestep"], b["target"]) - goal).square().mean())

    edited = ConceptAblation(steps=60, lr=2e-3, images=60, retain_weight=0.0).solve(request_)
    assert distance(edited) < 0.6 * distance(request_.model)
    before, after = weights(request_.model), weights(edited)
    assert all(torch.equal(before[n], after[n]) for n in before if ".film." not in n)
    again = ConceptAblation(steps=60, lr=2e-3, images=60, retain_weight=0.0).solve(request_)
    assert same(after, weights(again))


@pytest.mark.parametrize(
    "reference",
    [
        "original",
        "retrain",
        "fine-tune:epochs=1",
        "gradient-ascent:epochs=2",
        "gradient-difference:epochs=1",
        "random-labels:epochs=1",
        "bad-teacher:epochs=1",
    ],
)
def test_the_universal_baselines_run_on_a_diffusion_model(problem, reference):
    method = registry.make_method(reference)
    assert problem.lacks(method.card.needs, method.card.tasks) is None
    given = replaced(problem.given, recipe=problem.given.recipe.but(epochs=1))
    answer = method.solve(given)
    assert torch.isfinite(torch.tensor(given.objective.mean_score(answer, given.forget)))
    assert same(weights(answer), weights(given.model)) == (reference == "original")


# -- the problem ---------------------------------------------------------------------------------------------------


def test_prompts_say_what_the_images_show():
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([3, 0, 9, 3])
    data, digit = prompted(x, y)
    assert len(data) == 4 * len(STYLES) * SYNONYMS
    for i in range(len(data)):
        style, token = data[i]["prompt"].tolist()
        assert (token - len(STYLES)) // SYNONYMS == digit[i]
        drawn = list(STYLES.values())[style](2 * x[i // 9] - 1)
        assert torch.equal(data[i]["x0"], drawn)
    assert len({tuple(p) for p in data.prompt.tolist()}) == 3 * 9
    assert prompt(3, 2, 1) == (1, len(STYLES) + 11)
    with pytest.raises(BadInput, match="3 images and 2 prompts"):
        PromptedImages(torch.zeros(3, 1, 8, 8), torch.zeros(2, 2))


def test_the_request_holds_one_word_in_one_style_and_nothing_else_of_the_digit(problem):
    given = problem.given
    assert {tuple(p) for p in given.forget.prompt.tolist()} == {prompt(3)}
    words_for_it = {word(3, s) for s in range(SYNONYMS)}
    assert not words_for_it & set(given.retain.prompt[:, 1].tolist())
    assert given.extras == {"concept": word(3), "anchor": word(8)}
    truth = problem.reveal()
    assert set(truth.holdout.prompt[:, 1].tolist()) == words_for_it
    assert prompt(3) not in {tuple(p) for p in truth.holdout.prompt.tolist()}
    made = {name: {tuple(p) for p in asked.prompts.tolist()} for name, asked in groups(3).items()}
    assert made[SEEN] == {prompt(3)}
    assert made[UNSEEN_SYNONYM] == {prompt(3, 1), prompt(3, 2)}
    assert made[UNSEEN_STYLE] == {prompt(3, 0, 1), prompt(3, 0, 2)}
    assert len(made[OTHERS]) == 81
    assert len({len(asked.prompts) for name, asked in groups(3).items() if name.startswith(("seen", "unseen"))}) == 1
    with pytest.raises(BadInput, match="two of 0"):
        digits_concept(0, forget=3, anchor=3)


class Says(nn.Module):
    """A judge that sees the same digit in everything."""

    def __init__(self, digit):
        super().__init__()
        self.digit = digit

    def forward(self, x):
        return F.one_hot(torch.full((len(x),), self.digit), 10).float()


def test_rates_and_gaps_by_hand(problem):
    for digit, concept, others in ((3, 1.0, 0.0), (8, 0.0, 1 / 9)):
        judged = replace(problem, judge=replace(problem.judge, classifier=Says(digit)))
        row = judged.score(problem.given.model)
        assert row["forget_score"] == row["seen_rate"] == row["unseen_style_rate"] == concept
        assert row["forget_unseen"] == row["unseen_synonym_rate"] == concept
        assert row["test_score"] == row["retain_rate"] == row["retain_score"] == pytest.approx(others)
        assert row["forget_gap"] == row["avg_gap"] == 0.0  # the same judge sees the same in the reference's samples
        assert row["changed"] == row["extra_bytes"] == row["collapsed"] == 0.0
        tuned = judged.validate(problem.given.model)
        assert tuned["validation_score"] == pytest.approx(others)
        assert tuned["validation_forget_gap"] == pytest.approx(max(0.0, concept - 0.1))


def test_the_gap_counts_only_more_of_the_concept_than_the_reference_shows(problem, monkeypatch):
    rates = {
        "mine": {SEEN: 0.1, UNSEEN_SYNONYM: 0.3, UNSEEN_STYLE: 0.5, "retain_near": 0.9, OTHERS: 0.4},
        "reference": {SEEN: 0.9, UNSEEN_SYNONYM: 0.1, UNSEEN_STYLE: 0.1, "retain_near": 0.8, OTHERS: 0.9},
        "original": {SEEN: 0.9, UNSEEN_SYNONYM: 0.9, UNSEEN_STYLE: 0.9, "retain_near": 0.9, OTHERS: 0.9},
    }
    order = iter(rates.values())
    monkeypatch.setattr(type(problem), "_rates", lambda self, model, stream: next(order))
    row = problem.score(problem.given.model)
    assert row["forget_gap"] == pytest.approx(0.4)
    assert row["forget_unseen"] == pytest.approx(0.4)
    assert row["gap_forget"] == pytest.approx(0.8)
    assert row["gap_unseen"] == pytest.approx(0.3)
    assert row["avg_gap"] == pytest.approx((0.8 + 0.3 + 0.1 + 0.5) / 4)
    assert row["collapsed"] == 1.0


def test_scoring_is_decided_by_the_problem_and_notices_divergence(problem):
    assert problem.score(problem.given.model) == problem.score(problem.given.model)
    broken = copy.deepcopy(problem.given.model)
    nn.init.constant_(broken.leave[2].bias, float("nan"))
    with pytest.raises(BadInput, match="diverged"):
        problem.score(broken)


def test_methods_for_other_models_are_kept_away(problem):
    assert "diffusion" in problem.lacks((), ("classification",))
    assert problem.lacks(("retain", "concept"), ("diffusion",)) is None


class Mapped(Dataset):
    """A user's own data set."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {"x0": torch.full((1, 8, 8), 0.1 * index), "prompt": torch.tensor([0, index % 3])}


def test_it_works_as_a_library_on_a_users_own_data():
    objective = Denoising(timesteps=20)
    recipe = Recipe(lambda: unet(5, 1, (8,), 8), objective, "own", epochs=1)
    model = recipe.fit(Mapped(), 0)
    forget = PromptedImages(torch.zeros(3, 1, 8, 8), torch.tensor([[0, 2]] * 3))
    edited = ConceptDomainCorrection(**QUICK, anchor=1).unlearn(
        model, forget, Mapped(), objective=objective, extras={"concept": 2}
    )
    assert not same(weights(edited), weights(model))

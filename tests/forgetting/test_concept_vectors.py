"""Value vectors against the card's worked values."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.data.text import texts_of
from didact.forgetting import Needle
from didact.forgetting.concept_vectors import Place, causes, disturbed, find, plant_concepts, traces, value_vector
from didact.forgetting.concept_vectors.needle import concept_tokens, train_only
from didact.forgetting.concept_vectors.study import ADVERSARIAL, ConceptVectors, Localised, _put
from didact.forgetting.language.facts import Facts, bios_facts
from didact.forgetting.language.metrics import answers
from didact.forgetting.request import Request
from didact.models.language import gpt_tiny
from didact.models.small import mlp
from didact.parts.value_vectors import matrix, top_tokens


@pytest.fixture(scope="module")
def problem():
    return bios_facts(0, people=30, forget=4, steps=150)


def test_nothing_done_leaves_all_traces(problem):
    found = traces(problem.given.model, problem.given.model, [Place(1, 3), Place(0, 7)], k=10)
    assert (found.cosine, found.distance, found.jaccard) == (pytest.approx(1), 0, 1)


def test_noise_of_the_worked_size():
    torch.manual_seed(0)
    model = gpt_tiny(20)
    with torch.no_grad():
        for i in range(192):
            column = matrix(model, 0)[:, i]
            column /= column.norm()
    places = [Place(0, i) for i in range(192)]
    found = traces(model, disturbed(model, places, sigma=0.1), places, k=5)
    assert found.distance == pytest.approx(0.8, abs=0.02)
    assert found.cosine == pytest.approx(1 / math.sqrt(1.64), abs=0.02)


def test_a_planted_vector_ranks_its_token_first():
    torch.manual_seed(0)
    model = gpt_tiny(50)
    embedding = model.get_output_embeddings().weight
    with torch.no_grad():
        embedding /= embedding.norm(dim=1, keepdim=True).clamp(min=1e-6)  # the padding row is zero
        matrix(model, 1)[:, 9] = embedding[17]
    assert top_tokens(model, value_vector(model, Place(1, 9)), 1) == {17}
    best = find(model, [17], k=1, most=3)[0]
    assert best.place == (1, 9)
    assert best.score == 1
    assert best.logit == pytest.approx(1.0, abs=1e-5)


def test_candidates_are_ranked_by_share_then_logit():
    torch.manual_seed(1)
    model = gpt_tiny(50)
    found = find(model, [3, 4, 5], k=10, most=20)
    assert [(-c.score, -c.logit) for c in found] == sorted((-c.score, -c.logit) for c in found)
    for candidate in found[:3]:
        logits = model.get_output_embeddings().weight @ value_vector(model, candidate.place)
        top = set(logits.topk(10).indices.tolist())
        assert candidate.score == pytest.approx(len(top & {3, 4, 5}) / 3)


def test_gpt2_stores_its_vectors_in_rows():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=12, n_embd=8, n_layer=1, n_head=2, n_positions=8))
    assert torch.equal(value_vector(model, Place(0, 5)), model.transformer.h[0].mlp.c_proj.weight[5])


def test_zeroed_vectors_promote_nothing(problem):
    model = problem.given.model
    found = traces(model, disturbed(model, [Place(0, 0)]), [Place(0, 0)], k=10)
    assert (found.cosine, found.jaccard) == (0, 0)


def test_masked_training_leaves_every_other_weight_as_it_is(problem):
    given = problem.given
    import copy

    model = copy.deepcopy(given.model)
    train_only(model, [Place(1, 4)], given, loss=lambda m, b: -given.objective.loss(m, b), steps=3, lr=0.1)
    for (name, before), after in zip(given.model.named_parameters(), model.parameters(), strict=True):
        changed = (before != after).nonzero()
        if name == "model.layers.1.mlp.down_proj.weight":
            assert set(changed[:, 1].tolist()) == {4}
        else:
            assert len(changed) == 0


@pytest.fixture(scope="module")
def planted():
    setting = Facts.make(0, 26, 2)
    recipe = setting.recipe(300)
    replay = setting.items([p for p in setting.bios.people if p not in setting.split.forget])
    base = recipe.fit(replay, 0)
    facts = {p.name: setting.items([p]) for p in setting.split.forget}
    model, concepts = plant_concepts(base, facts, replay, CausalLM(), steps=150)
    return base, model, concepts, replay, recipe


def test_planting_changes_only_the_new_neurons(planted):
    base, model, concepts, *_ = planted
    old, new = (m.model.layers[-1].mlp.down_proj.weight for m in (base, model))
    assert torch.equal(new[:, : old.shape[1]], old)
    assert new.shape[1] == old.shape[1] + 8
    for (name, a), b in zip(base.named_parameters(), model.parameters(), strict=True):
        assert "layers.1.mlp" in name or torch.equal(a, b)
    assert all(answers(model, c.facts).accuracy >= 0.7 for c in concepts)


def test_the_planted_vectors_carry_the_concept(planted):
    _, model, concepts, replay, _ = planted
    together = disturbed(model, concepts[0].places)
    assert answers(together, concepts[0].facts).accuracy <= 0.4
    assert causes(model, [Place(0, 0)], concepts[0].facts, replay, drop=0.9) == []


def test_needle_ablates_the_vectors_it_is_given(planted):
    _, model, concepts, replay, recipe = planted
    request = Request(model, concepts[0].facts, replay, CausalLM(), recipe, extras={"vectors": concepts[0].places})
    answer = Needle().solve(request)
    assert all(value_vector(answer, place).norm() == 0 for place in concepts[0].places)
    assert answers(answer, concepts[1].facts).accuracy >= answers(model, concepts[1].facts).accuracy - 0.25
    noisy = Needle(mode="noise", scale=5.0).solve(request)
    before, after = (value_vector(m, concepts[0].places[0]) for m in (model, noisy))
    rms = float(before.square().mean().sqrt())
    assert float((after - before).std()) == pytest.approx(5 * rms, rel=0.4)


def test_needle_finds_vectors_by_the_forgotten_tokens(problem):
    given = problem.given
    tokens = concept_tokens(given)
    encode = given.forget.tokenizer.encode
    values = {t for item in texts_of(given.forget).items for t in encode(item.value, add_special_tokens=False)}
    assert tokens
    assert tokens <= values
    answer = Needle(k=10, most=3).solve(given)
    changed = sum(int((value_vector(answer, Place(layer, i)) == 0).all()) for layer in range(2) for i in range(256))
    assert changed == 3


def test_the_study_compares_methods(planted):
    from didact.core import registry

    _, model, concepts, replay, recipe = planted
    methods = {"needle": Needle(), "random": Needle(), "original": registry.make_method("original")}
    found = ConceptVectors(relearn_steps=2, adversarial=True).run(
        Localised(model, concepts, replay, CausalLM(), recipe, methods)
    )
    assert found.numbers["needle: jaccard"] == 0
    assert found.numbers["random: jaccard"] == 1
    assert found.numbers["original: cosine"] == pytest.approx(1)
    assert {f"needle: {way}" for way in ADVERSARIAL} <= found.numbers.keys()
    assert _put(concepts[0].facts.items[0], ADVERSARIAL["context"]).prompt.count(concepts[0].name) == 2


def test_bad_input_is_refused(problem):
    model = problem.given.model
    with pytest.raises(BadInput, match="neurons 0 to 255"):
        value_vector(model, Place(0, 256))
    with pytest.raises(BadInput, match="2 feed-forward layers"):
        value_vector(model, Place(2, 0))
    with pytest.raises(BadInput, match="none was given"):
        find(model, [])
    with pytest.raises(BadInput, match="the vocabulary has"):
        find(model, [10**6])
    with pytest.raises(BadInput, match="No value vector"):
        traces(model, model, [])
    with pytest.raises(BadInput, match="no feed-forward layer"):
        value_vector(mlp(2, 2), Place(0, 0))
    with pytest.raises(BadInput, match="Llama"):
        plant_concepts(mlp(2, 2), {"a": problem.given.forget}, problem.given.retain, CausalLM())

"""The audit against its card's worked values, and the taxonomy against the registry."""

import math

import pytest
import torch
from tiny_language import tiny_problem

from didact.core import registry
from didact.core.errors import BadInput, UnknownName
from didact.data.text import texts_of
from didact.forgetting.language.metrics import in_context
from didact.forgetting.language.probing import probe_by_layer, residual_of, states, value_place
from didact.forgetting.outcomes import outcome
from didact.forgetting.unlearning_sok import PLACES, Audited, IntentionAudit, audit, place_of, select
from didact.forgetting.unlearning_sok.audit import logit_lens, rounded
from didact.models.language import gpt_tiny


@pytest.fixture(scope="module")
def problem():
    return tiny_problem(epochs=20)


def test_the_residual_of_the_worked_probes():
    assert residual_of((0.32,), (0.08,), (0.26,)).value == pytest.approx(0.75)
    assert residual_of((0.32,), (0.08,), (0.32,)).value == 1
    assert residual_of((0.32,), (0.08,), (0.08,)).value == 0


def test_layers_that_tell_nothing_do_not_count():
    found = residual_of((0.10, 0.9), (0.08, 0.1), (0.10, 0.3))
    assert found.layer == 1
    assert found.value == pytest.approx(0.25)
    assert math.isnan(residual_of((0.2,), (0.1,), (0.2,)).value)


def test_the_original_is_one_and_the_retrained_model_zero(problem):
    assert audit(problem, problem.given.model).residual == 1
    report = audit(problem, problem.reveal().reference)
    assert report.residual == 0
    assert report.verdict == "removed"


def test_a_filter_around_the_model_removes_nothing(problem):
    answer = registry.make_method("prompt-filter").solve(problem.given)
    report = audit(problem, answer)
    assert report.seen == 0
    assert report.residual == 1
    assert report.verdict == "suppressed"
    assert "relearned" in report.not_observable


def test_probes_of_permuted_labels_are_at_chance(problem):
    given = problem.given
    retain = texts_of(given.retain)
    mixed = torch.randperm(len(retain), generator=torch.Generator().manual_seed(0)).tolist()
    from dataclasses import replace

    items = retain.items
    permuted = retain.of(
        replace(item, value=items[j].value, answer=item.answer) for item, j in zip(items, mixed, strict=True)
    )
    found = probe_by_layer(given.objective, given.model, permuted, texts_of(given.forget))
    values = len({item.value for item in items})
    n = len(given.forget)
    chance = 1 / 6  # at best a probe learns which attribute is asked, and some value of it
    assert max(found) <= chance + 3 * math.sqrt(chance * (1 - chance) / n)
    assert values > 20


def test_the_value_is_found_in_the_answer(problem):
    forget = texts_of(problem.given.forget)
    for i in range(6):
        place = value_place(forget, i)
        ids = forget[i]["input_ids"].tolist()
        assert forget.tokenizer.decode(ids[place:]).startswith(forget.items[i].value)


def test_states_are_those_before_the_value(problem):
    given, forget = problem.given, texts_of(problem.given.forget)
    found = states(given.objective, given.model, forget.rows([0, 1]))
    sample = forget[1]
    with torch.no_grad():
        hidden = given.model(sample["input_ids"][None], output_hidden_states=True).hidden_states
    assert len(found) == 2
    assert torch.allclose(found[0][1], hidden[1][0, value_place(forget, 1) - 1], atol=1e-5)


def test_the_lens_of_the_last_layer_is_the_model(problem):
    given, forget = problem.given, texts_of(problem.given.forget)
    found = logit_lens(given.objective, given.model, forget)
    right = []
    for i in range(len(forget)):
        sample, place = forget[i], value_place(forget, i)
        with torch.no_grad():
            logits = given.model(sample["input_ids"][None]).logits[0]
        right.append(int(logits[place - 1].argmax()) == int(sample["input_ids"][place]))
    assert found[-1] == pytest.approx(sum(right) / len(right))


def test_rounding_keeps_at_most_so_many_levels(problem):
    made = rounded(problem.given.model, 4)
    row = made.model.layers[0].mlp.up_proj.weight[0]
    assert len(row.unique()) <= 15
    assert not torch.equal(row, problem.given.model.model.layers[0].mlp.up_proj.weight[0])


def test_the_fact_stands_in_the_prompt(problem):
    for item, plain in zip(in_context(texts_of(problem.given.forget)).items, problem.given.forget.items, strict=True):
        assert plain.value in item.prompt
        assert item.prompt.endswith(plain.prompt)


def test_outcomes():
    assert outcome({}) == ""
    assert outcome({"forget_gap": 0.0, "collapsed": 1.0, "residual": 0.0}) == "collapsed"
    assert outcome({"forget_gap": 0.2, "residual": 0.0}) == "not forgotten"
    assert outcome({"forget_gap": 0.1, "residual": 0.2}) == "removed"
    assert outcome({"forget_gap": 0.1, "residual": 0.21}) == "suppressed"
    assert outcome({"forget_gap": 0.1}) == "forgotten"


def test_every_forgetting_method_has_a_place():
    slugs = {
        m.card.slug
        for m in registry.methods("forgetting")
        if m.__module__.startswith("didact.") and not any(n.startswith("study:") for n in m.card.needs)
    }
    assert slugs - {"original"} == PLACES.keys()
    assert place_of("npo").intention == "removal"
    with pytest.raises(UnknownName, match="no place"):
        place_of("original")


def test_methods_are_selected_by_their_place():
    exact = {m.card.slug for m in select(guarantee="exact")}
    assert {"retrain", "s3t"} <= exact
    guards = select(intention="suppression", level="decoding", task="causal-lm")
    assert {"guard", "uld"} <= {m.card.slug for m in guards}
    assert all("retain" not in m.card.needs for m in select(needs_retain=False))


def test_the_study_measures_each_method(problem):
    methods = {
        "original": registry.make_method("original"),
        "gradient-ascent": registry.make_method("gradient-ascent:lr=1e-3"),
    }
    found = IntentionAudit(chunks=2).run(Audited(problem, methods))
    assert found.numbers["original: residual"] == 1
    assert "gradient-ascent: utility after 2 chunks" in found.numbers
    assert len(found.tables["audit"]) == 2


def test_a_model_with_one_layer_is_refused(problem):
    from dataclasses import replace

    shallow = gpt_tiny(len(problem.given.forget.tokenizer), layers=1)
    other = replace(problem, given=replace(problem.given, model=shallow))
    with pytest.raises(BadInput, match="at least 2"):
        audit(other, shallow)

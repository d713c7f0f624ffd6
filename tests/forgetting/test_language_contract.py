"""What every method for language models must keep: one test a promise, over the whole registry."""

import json

import pytest
import torch
from tiny_language import tiny_problem

import didact
from didact.core import registry
from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.data.text import TextDataset, TextItem
from didact.models.generation import left_padded, respond
from didact.models.language import gpt_tiny

METHODS = [
    m for m in registry.methods("forgetting") if m.__module__.startswith("didact.") and "causal-lm" in m.card.tasks
]


@pytest.fixture(scope="module")
def problem():
    return tiny_problem()


@pytest.fixture(scope="module", params=METHODS, ids=[m.card.slug for m in METHODS])
def solved(request, problem):
    """(method, answer, meter), solved once for all promises."""
    if problem.lacks(request.param.card.needs, request.param.card.tasks):
        pytest.skip(problem.lacks(request.param.card.needs, request.param.card.tasks))
    before = {name: tensor.clone() for name, tensor in problem.given.model.state_dict().items()}
    if request.param.card.slug == "random-label-forgetting":
        # It refuses answers that are more than a label, before any work: its own tests give it such tasks.
        with pytest.raises(NotApplicable, match="one token each"):
            request.param().solve(problem.given)
        pytest.skip("made for label tasks")
    with Meter() as meter:
        answer = request.param().solve(problem.given)
    after = problem.given.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "the model given was changed"
    return request.param, answer, meter


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_it_is_deterministic(solved, problem):
    cls, answer, _ = solved
    again = cls().solve(problem.given)
    assert same(answer.state_dict(), again.state_dict())
    prompts = [item.prompt for item in problem.given.forget.items[:6]]
    tokenizer = problem.given.forget.tokenizer
    assert respond(answer, tokenizer, prompts) == respond(again, tokenizer, prompts)


def test_its_answer_saves_and_loads_and_scores_the_same(solved, problem, tmp_path):
    _, answer, _ = solved
    didact.save(answer, tmp_path / "answer")
    loaded = didact.load(tmp_path / "answer")
    assert json.dumps(problem.score(loaded)) == json.dumps(problem.score(answer))
    assert not [file for suffix in ("bin", "pt", "pkl") for file in tmp_path.rglob(f"*.{suffix}")]


def test_its_answer_is_a_drop_in(solved, problem):
    _, answer, _ = solved
    tokenizer = problem.given.forget.tokenizer
    prompts = [item.prompt for item in problem.given.retain.items[:3]]
    texts = respond(answer, tokenizer, prompts, max_new_tokens=6)
    assert len(texts) == 3
    assert all(isinstance(text, str) for text in texts)
    if not getattr(answer, "observable", True):
        return
    batch = problem.given.objective.collate([problem.given.retain[i] for i in range(3)])
    logits = answer(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert logits.shape == (*batch["input_ids"].shape, len(tokenizer))
    tokens, mask = left_padded([[5, 6, 7], [8, 9]], tokenizer.pad_token_id)
    made = answer.generate(input_ids=tokens, attention_mask=mask, max_new_tokens=3, do_sample=False)
    assert made.shape[0] == 2
    assert torch.equal(made[:, :3], tokens)


def test_it_counts_its_passes(solved):
    assert solved[2].passes > 0 or solved[0].card.slug in UNTRAINED


#: methods that look at no data through the model: they wrap it, or read its weights
UNTRAINED = {"needle", "alu", "prompt-filter", "single-agent", "in-context-unlearning"}


def test_bad_requests_are_refused_before_any_work(problem):
    """Every method goes through the same door, so one method stands for all."""
    given = problem.given
    tokenizer = given.forget.tokenizer
    method = registry.make_method("npo")
    with pytest.raises(BadInput, match="both the forget and the retain set"):
        method.unlearn(given.model, given.forget, given.forget)
    with pytest.raises(BadInput, match="The text data set is empty"):
        TextDataset([], tokenizer)
    with pytest.raises(BadInput, match="tokenizer does not belong"):
        method.unlearn(gpt_tiny(10), given.forget, given.retain)
    broken = gpt_tiny(len(tokenizer))
    with torch.no_grad():
        broken.model.norm.weight.fill_(float("nan"))
    with pytest.raises(BadInput, match="not finite"):
        method.unlearn(broken, given.forget, given.retain)
    wrong = [{**given.forget[0], "labels": torch.full_like(given.forget[0]["labels"], 10**6)}]
    with pytest.raises(BadInput, match="label 1000000"):
        method.unlearn(given.model, wrong, given.retain)
    with pytest.raises(BadInput, match="empty answer"):
        TextDataset([TextItem("Who ?", "")], tokenizer)

"""Neuron adjust and key space detection against the card's worked values."""

import pytest
import torch
from tiny_language import tiny_problem
from transformers import GPT2Config, GPT2LMHeadModel

import didact
from didact.core.errors import BadInput
from didact.core.objective import CausalLM
from didact.data.text import TextDataset, TextItem, texts_of
from didact.forgetting import KeySpaceDetection, NeuronAdjust, SelectivePruning
from didact.forgetting.skill_unlearning import adjusted, box, inside
from didact.forgetting.skill_unlearning.neuron_adjust import largest, log_density
from didact.forgetting.skill_unlearning.problem import skills
from didact.models.generation import respond
from didact.models.small import mlp
from didact.models.tokenizer import word_tokenizer
from didact.parts.feedforward import feed_forward_layers, last_of, moments, prompt_keys

MOMENTS = tuple(torch.tensor(v) for v in (0.0, 1.0, 2.0, 0.5))  # mu_r, s_r, mu_f, s_f


def test_the_worked_neuron():
    z = torch.tensor(2.5)
    assert log_density(z, *MOMENTS[:2]).exp().item() == pytest.approx(0.01753, abs=1e-5)
    assert log_density(z, *MOMENTS[2:]).exp().item() == pytest.approx(0.48394, abs=1e-5)
    assert adjusted(z, torch.tensor(0.035), *MOMENTS).item() == pytest.approx(-1.0)
    assert adjusted(z, torch.tensor(0.034), *MOMENTS).item() == 2.5  # kept with probability .03495
    assert adjusted(torch.tensor(0.5), torch.tensor(0.999999), *MOMENTS).item() == 0.5


def test_a_neuron_that_never_moves_gives_no_nan():
    found = adjusted(
        torch.tensor([1.0, 2.0]), torch.tensor([0.9, 0.9]), *(torch.tensor(v) for v in (1.0, 0.0, 2.0, 0.0))
    )
    assert torch.isfinite(found).all()


def test_the_worked_box():
    keys = torch.tensor([[0.0, 0], [2, 1], [1, 4], [1, 3]])
    mean, std, k = box(keys)
    assert mean.tolist() == [1, 2]
    assert std.tolist() == pytest.approx([0.8165, 1.8257], abs=1e-4)
    assert k == pytest.approx(1.22474, abs=1e-5)
    assert inside(keys, mean, std, k).all()
    assert int((~inside(keys, mean, std, 0.999 * k)).sum()) == 2


def test_flat_dimensions_are_widened_with_a_warning():
    with pytest.warns(UserWarning, match="never vary"):
        _, std, k = box(torch.tensor([[1.0, 0], [1.0, 2]]))
    assert std[0] > 0
    assert k < 1e6


def test_the_largest_of_all_layers_are_chosen():
    score = torch.tensor([[1.0, -9, 2], [3, 0, 4]])
    assert largest(score, 33).nonzero().tolist() == [[1, 0], [1, 2]]
    assert largest(score, 33, absolute=True).nonzero().tolist() == [[0, 1], [1, 2]]


@pytest.fixture(scope="module")
def problem():
    return tiny_problem()


def test_moments_are_those_of_all_tokens(problem):
    given, texts = problem.given, texts_of(problem.given.forget)
    found = moments(given.objective, given.model, texts, batch_size=5)
    layer = feed_forward_layers(given.model)[1]
    seen, keys = [], []
    handles = [
        layer.into.register_forward_hook(lambda _, __, out: seen.append(out[0])),
        layer.out_of.register_forward_pre_hook(lambda _, inputs: keys.append(inputs[0][0])),
    ]
    with torch.no_grad():
        for i in range(len(texts)):
            given.model(texts[i]["input_ids"][None])
    for handle in handles:
        handle.remove()
    z = torch.cat(seen)
    assert torch.allclose(found.mean[1], z.mean(0), atol=1e-4)
    assert torch.allclose(found.std[1], z.std(0, correction=0), atol=1e-4)
    assert torch.allclose(found.magnitude[1], torch.cat(keys).abs().mean(0), atol=1e-4)


def test_keys_are_those_of_the_last_prompt_token(problem):
    given, texts = problem.given, texts_of(problem.given.forget).rows([0, 7])
    found = prompt_keys(given.objective, given.model, texts)
    keys = []
    layer = feed_forward_layers(given.model)[0]
    handle = layer.out_of.register_forward_pre_hook(lambda _, inputs: keys.append(inputs[0][0, -1]))
    prompt = texts[1]["input_ids"][texts[1]["labels"] == -100]
    with torch.no_grad():
        given.model(prompt[None])
    handle.remove()
    assert torch.allclose(found[1, 0], keys[0], atol=1e-4)


def test_the_last_true_position():
    states = torch.arange(8.0).view(2, 4, 1)
    mask = torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)
    assert last_of(states, mask).flatten().tolist() == [2, 7]


def test_gpt2_is_known_and_pruned_on_the_right_side():
    tokenizer = word_tokenizer(["add a b c d"])
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=2, n_head=2, n_positions=16))
    data = [TextDataset([TextItem(f"add {w}", w), TextItem(f"{w} a", "c")], tokenizer) for w in "bd"]
    made = SelectivePruning(percent=25).unlearn(model, *data, objective=CausalLM())
    zeroed = [int((block.mlp.c_proj.weight == 0).all(1).sum()) for block in made.transformer.h]
    assert sum(zeroed) == round(0.25 * 2 * 32)


def test_pruned_neurons_say_nothing(problem):
    made = SelectivePruning(percent=10).solve(problem.given)
    zeroed = sum(int((layer.out_of.weight == 0).all(0).sum()) for layer in feed_forward_layers(made))
    assert zeroed == round(0.1 * 2 * 192)


def test_inside_the_box_every_probe_is_refused(problem):
    given = problem.given
    made = KeySpaceDetection(layer=0, refusal="I do not know .").solve(given)
    tokenizer, prompts = given.forget.tokenizer, [item.prompt for item in given.forget.items]
    assert set(respond(made, tokenizer, prompts)) == {"I do not know ."}
    batch = given.objective.collate([given.forget[i] for i in range(3)])
    logits = given.objective.forward(made, batch)
    place = int((batch["labels"][0] == -100).nonzero()[:, 0][: (batch["labels"][0] != -100).nonzero()[0]].max())
    words = [tokenizer.decode([int(logits[0, place + j].argmax())]) for j in range(3)]
    assert words == ["I", "do", "not"]


def test_outside_the_box_nothing_changes(problem):
    given = problem.given
    made = KeySpaceDetection(scale=1e-6).solve(given)
    tokenizer, prompts = given.forget.tokenizer, [item.prompt for item in given.retain.items[:9]]
    assert respond(made, tokenizer, prompts) == respond(given.model, tokenizer, prompts)
    batch = given.objective.collate([given.retain[i] for i in range(3)])
    assert torch.equal(given.objective.forward(made, batch), given.objective.forward(given.model, batch))


def test_a_box_of_everything_refuses_at_every_step_too(problem):
    given = problem.given
    made = KeySpaceDetection(scale=1e6, when="step", refusal="I do not know .").solve(given)
    prompts = [item.prompt for item in given.retain.items[:4]]
    assert set(respond(made, given.forget.tokenizer, prompts, max_new_tokens=3)) == {"I do not"}


def test_adjusted_neurons_change_the_answers_and_repeat(problem, tmp_path):
    given = problem.given
    made = NeuronAdjust(percent=50, by="absolute").solve(given)
    tokenizer, prompts = given.forget.tokenizer, [item.prompt for item in given.forget.items[:8]]
    first = respond(made, tokenizer, prompts)
    assert first == respond(made, tokenizer, prompts)
    assert first != respond(given.model, tokenizer, prompts)
    didact.save(made, tmp_path / "adjusted")
    assert respond(didact.load(tmp_path / "adjusted"), tokenizer, prompts) == first


def test_the_skills_are_three_and_apart():
    made = skills(0, forget="story", epochs=1)
    truth = made.reveal()
    assert set(truth.skills) == {"arithmetic", "lookup", "story"}
    assert {item.subject for item in made.given.forget.items} == {"story"}
    assert {item.subject for item in made.given.retain.items} == {"arithmetic", "lookup"}
    for data in truth.skills.values():
        assert not {i.prompt for i in data.items} & {
            i.prompt for i in (*made.given.forget.items, *made.given.retain.items)
        }
    found = made.score(made.given.model)
    assert found["drop_forgotten"] == found["drop_others"] == 0
    with pytest.raises(BadInput, match="one of arithmetic"):
        skills(0, forget="singing")


def test_bad_input_is_refused(problem):
    given = problem.given
    single = given.forget.rows([0])
    with pytest.raises(BadInput, match="at least 2 texts"):
        NeuronAdjust().unlearn(given.model, single, given.retain)
    with pytest.raises(BadInput, match="at least 2 probe keys"):
        box(torch.zeros(1, 3))
    with pytest.raises(BadInput, match="no feed-forward layer"):
        feed_forward_layers(mlp(2, 2))
    with pytest.raises(BadInput, match="layer=7"):
        KeySpaceDetection(layer=7).solve(given)
    for wrong in ({"percent": 0}, {"percent": 101}, {"probes": 1}):
        with pytest.raises(BadInput, match="neuron-adjust"):
            NeuronAdjust(**wrong)

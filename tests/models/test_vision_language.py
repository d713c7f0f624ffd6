"""The small vision-language model: logits of the text alone, whatever is shown before it."""

import pytest
import torch

import didact
from didact.core.errors import BadInput
from didact.core.objective import CausalLM, guess_objective
from didact.models.small import convnet, parameter_count
from didact.models.vision_language import vision_language

TINY = {"size": 8, "channels": (4,), "dense": 8, "prefix": 2, "hidden": 16, "layers": 1, "heads": 2, "feedforward": 16}


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = vision_language(30, **TINY).eval()
    with torch.no_grad():  # away from the symmetric start, so that every input counts
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def batch(rows=3, length=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, 3, 8, 8, generator=generator),
        torch.randint(4, 30, (rows, length), generator=generator),
    )


def test_the_model_has_the_size_its_docstring_says():
    model = vision_language(100)
    assert round(parameter_count(model) / 1e6, 2) == 0.30
    assert round(parameter_count(model.language_model) / 1e6, 2) == 0.11


def test_logits_are_those_of_the_text_and_depend_on_the_picture_and_on_no_later_word(model):
    pictures, tokens = batch()
    logits = model(pixel_values=pictures, input_ids=tokens).logits
    assert logits.shape == (3, 6, 30)
    other = tokens.clone()
    other[:, 4] = (other[:, 4] - 3) % 26 + 4
    changed = model(pixel_values=pictures, input_ids=other).logits
    assert torch.allclose(changed[:, :4], logits[:, :4], atol=1e-6)
    assert not torch.allclose(changed[:, 4:], logits[:, 4:], atol=1e-3)
    assert not torch.allclose(model(pixel_values=-pictures, input_ids=tokens).logits[:, 0], logits[:, 0], atol=1e-3)


def test_padding_on_either_side_changes_no_logit(model):
    pictures, tokens = batch()
    plain = model(pixel_values=pictures, input_ids=tokens).logits
    pad, kept = torch.zeros(3, 2, dtype=torch.long), torch.ones_like(tokens)
    right = model(pictures, torch.cat([tokens, pad], 1), torch.cat([kept, pad], 1)).logits
    left = model(pictures, torch.cat([pad, tokens], 1), torch.cat([pad, kept], 1)).logits
    assert torch.allclose(right[:, :6], plain, atol=1e-5)
    assert torch.allclose(left[:, 2:], plain, atol=1e-5)


def test_generation_is_greedy_and_returns_prompt_and_continuation(model):
    pictures, tokens = batch()
    made = model.generate(pictures, tokens, max_new_tokens=3, eos_token_id=None)
    assert torch.equal(made[:, :6], tokens)
    expected = tokens
    for _ in range(3):
        best = model(pixel_values=pictures, input_ids=expected).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat([expected, best], 1)
    assert torch.equal(made, expected)
    mask = torch.ones_like(tokens)
    mask[0, -1] = 0
    with pytest.raises(BadInput, match="padded on the left"):
        model.generate(pictures, tokens, mask, max_new_tokens=1)


def test_it_comes_back_from_disk_as_it_was(model, tmp_path):
    didact.save(model, tmp_path / "m")
    loaded = didact.load(tmp_path / "m")
    pictures, tokens = batch()
    assert torch.equal(
        loaded(pixel_values=pictures, input_ids=tokens).logits, model(pixel_values=pictures, input_ids=tokens).logits
    )
    assert {p.suffix for p in (tmp_path / "m").iterdir()} <= {".safetensors", ".json"}
    # The embeddings are still tied, so they are one tensor for an optimiser too.
    assert loaded.language_model.lm_head.weight is loaded.language_model.get_input_embeddings().weight


def test_an_objective_takes_it_for_a_causal_language_model_and_pictures_travel_along(model):
    objective = guess_objective(model)
    assert isinstance(objective, CausalLM)
    pictures, tokens = batch(2)
    samples = [
        {"pixel_values": pictures[i], "input_ids": tokens[i, : 6 - i], "labels": tokens[i, : 6 - i]} for i in range(2)
    ]
    collated = objective.collate(samples)
    assert collated["pixel_values"].shape == (2, 3, 8, 8)
    alone = [objective.per_sample_loss(model, objective.collate([sample])) for sample in samples]
    assert torch.allclose(objective.per_sample_loss(model, collated), torch.cat(alone), atol=1e-5)


def test_it_takes_over_the_encoder_of_a_classifier(model):
    classifier = convnet(5, 8, 3, (4,), 8)
    model.see_as(classifier)
    pictures, _ = batch()
    assert torch.equal(model.vision(pictures), classifier.dense(classifier.blocks(pictures)))
    with pytest.raises(BadInput, match="not built as the model's"):
        model.see_as(convnet(5, 8, 3, (6,), 8))


def test_wrong_pictures_are_refused(model):
    pictures, tokens = batch()
    with pytest.raises(BadInput, match=r"One picture of \(3, 8, 8\) was expected for each of the 3 texts"):
        model(pixel_values=pictures[:2], input_ids=tokens)
    with pytest.raises(BadInput, match="pixel_values has the shape"):
        model(pixel_values=pictures[:, :, :4], input_ids=tokens)
    with pytest.raises(BadInput, match="cannot be halved"):
        vision_language(30, **{**TINY, "channels": (2, 2, 2, 2)})

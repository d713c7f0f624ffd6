"""Objectives against plain torch, on every kind of batch and model they serve."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from didact.core.batches import TensorBatches, as_tensors
from didact.core.cost import Meter, note
from didact.core.errors import BadInput
from didact.core.objective import (
    CausalLM,
    Classification,
    MaskedLM,
    Regression,
    evaluating,
    guess_objective,
    pad_tokens,
)
from didact.models.language import gpt_tiny, text_classifier
from didact.models.small import convnet, mlp


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(10, 1, 8, 8, generator=generator), torch.randint(0, 10, (10,), generator=generator)


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = (5, 8, 6)
    rows = [torch.randint(3, 50, (n,), generator=generator) for n in lengths]
    return [{"input_ids": r, "labels": torch.where(torch.arange(len(r)) < 2, -100, r)} for r in rows]


def test_classification_is_cross_entropy(images):
    model, objective = convnet(), Classification()
    losses = objective.per_sample_loss(model, images)
    assert torch.allclose(losses, F.cross_entropy(model(images[0]), images[1], reduction="none"))
    assert torch.allclose(objective.loss(model, images), losses.mean())
    assert torch.equal(objective.score(model, images), (model(images[0]).argmax(1) == images[1]).float())


@pytest.mark.parametrize(("kind", "error"), [("l1", torch.abs), ("l2", torch.square)])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_regression_takes_targets_with_and_without_a_last_dimension(kind, error, shape):
    model, x, y = mlp(4, 1), torch.randn(6, 4), torch.randn(6)
    losses = Regression(kind).per_sample_loss(model, (x, y.view(shape)))
    assert losses.shape == (6,)
    assert torch.allclose(losses, error(model(x).squeeze(1) - y))
    assert torch.allclose(Regression(kind).score(model, (x, y)), -(model(x).squeeze(1) - y).abs())


def test_regression_refuses_integer_targets_and_mismatched_sizes():
    with pytest.raises(BadInput, match="floating-point"):
        Regression().loss(mlp(4, 1), (torch.randn(6, 4), torch.arange(6)))
    with pytest.raises(BadInput, match="same number of values"):
        Regression().loss(mlp(4, 2), (torch.randn(6, 4), torch.randn(6)))


def test_causal_loss_equals_that_of_transformers():
    model = gpt_tiny(50).eval()
    objective = CausalLM()
    for row in tokens():
        batch = objective.collate([row])
        with torch.no_grad():
            expected = model(**batch).loss
        assert torch.allclose(objective.loss(model, batch), expected, atol=1e-6)


def test_padding_changes_no_sample_of_a_language_model():
    model = gpt_tiny(50).eval()
    rows = tokens()
    for reduction in ("mean", "sum"):
        objective = CausalLM(reduction)
        together = objective.per_sample_loss(model, objective.collate(rows))
        alone = torch.cat([objective.per_sample_loss(model, objective.collate([row])) for row in rows])
        assert torch.allclose(together, alone, atol=1e-5)


def test_a_language_sample_scores_only_when_every_target_token_is_right():
    logits = torch.zeros(2, 4, 5)
    labels = torch.tensor([[-100, 1, 2, 3], [-100, 1, 2, 3]])
    for position, token in ((0, 1), (1, 2), (2, 3)):
        logits[:, position, token] = 1.0
    logits[1, 2] = F.one_hot(torch.tensor(4), 5).float()
    assert CausalLM().score_of(logits, labels).tolist() == [1.0, 0.0]


def test_masked_loss_counts_masked_positions_alone():
    logits = torch.randn(2, 6, 9)
    labels = torch.full((2, 6), -100)
    labels[0, 2], labels[1, 4] = 3, 5
    expected = torch.stack([F.cross_entropy(logits[0, 2], labels[0, 2]), F.cross_entropy(logits[1, 4], labels[1, 4])])
    assert torch.allclose(MaskedLM().loss_of(logits, labels), expected)


def test_padding_uses_the_right_filling():
    batch = pad_tokens([{"input_ids": torch.tensor([5, 6]), "labels": torch.tensor([5, 6])},
                        {"input_ids": torch.tensor([7]), "labels": torch.tensor([7])}], pad_id=9)  # fmt: skip
    assert batch["input_ids"].tolist() == [[5, 6], [7, 9]]
    assert batch["labels"].tolist() == [[5, 6], [7, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_per_sample_gradients_are_those_of_single_backward_passes(images):
    model, objective = convnet().eval(), Classification()
    found = objective.per_sample_gradients(model, images)
    for i in range(len(images[1])):
        loss = F.cross_entropy(model(images[0][i : i + 1]), images[1][i : i + 1])
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for (name, _), gradient in zip(model.named_parameters(), alone, strict=True):
            assert torch.allclose(found[name][i], gradient, atol=1e-6)


def test_per_sample_gradients_of_a_hugging_face_model():
    model = text_classifier(50, 3).eval()
    batch = {"input_ids": torch.randint(3, 50, (4, 7)), "attention_mask": torch.ones(4, 7, dtype=torch.long),
             "labels": torch.tensor([0, 1, 2, 1])}  # fmt: skip
    found = Classification().per_sample_gradients(model, batch)
    mean = torch.autograd.grad(Classification().loss(model, batch), model.classifier.weight)[0]
    assert torch.allclose(found["classifier.weight"].mean(0), mean, atol=1e-6)


def test_features_are_what_enters_the_last_layer(images):
    model = convnet().eval()
    expected = model.dense(model.blocks(images[0]))
    assert torch.allclose(Classification().features(model, images), expected)
    assert torch.allclose(Classification().features(model, images, "dense"), expected)
    with pytest.raises(BadInput, match="no layer 'nowhere'"):
        Classification().features(model, images, "nowhere")


def test_passes_are_counted_where_they_happen(images):
    model, objective = convnet(), Classification()
    with Meter() as meter:
        objective.loss(model, images)
        assert (meter.forward, meter.backward) == (10, 0)
        objective.loss(model, images).backward()
        assert (meter.forward, meter.backward) == (20, 10)
        with torch.no_grad():
            objective.loss(model, images)
        objective.per_sample_gradients(model, images)
        note(depth=3)
    assert (meter.forward, meter.backward) == (40, 20)
    assert meter.log == {"depth": 3}
    objective.loss(model, images)
    assert meter.forward == 40


def test_the_objective_is_guessed_where_model_or_data_tell():
    x = torch.randn(4, 3)
    assert isinstance(guess_objective(mlp(3, 2), TensorDataset(x, torch.tensor([0, 1, 0, 1]))), Classification)
    assert isinstance(guess_objective(mlp(3, 1), TensorDataset(x, torch.randn(4))), Regression)
    assert isinstance(guess_objective(gpt_tiny(50)), CausalLM)
    assert isinstance(guess_objective(text_classifier(50, 3)), Classification)
    with pytest.raises(BadInput, match="Pass objective="):
        guess_objective(mlp(3, 2), TensorDataset(x))


def test_other_labels_never_include_the_true_one_and_all_others_occur():
    targets = torch.arange(5).repeat(200)
    drawn = Classification().resample(targets, targets, "other", torch.Generator().manual_seed(0))
    assert not (drawn == targets).any()
    pairs = {(int(a), int(b)) for a, b in zip(targets, drawn, strict=True)}
    assert len(pairs) == 5 * 4
    # A forgotten class may be absent from the pool: then every class of the pool is another one.
    absent = Classification().resample(
        torch.full((500,), 7), torch.arange(3), "other", torch.Generator().manual_seed(0)
    )
    assert set(absent.tolist()) == {0, 1, 2}


def test_resampled_numbers_follow_the_training_targets():
    pool = 5 + 2 * torch.randn(5000, generator=torch.Generator().manual_seed(1))
    drawn = Regression().resample(torch.zeros(5000), pool, "other", torch.Generator().manual_seed(0))
    assert drawn.mean() == pytest.approx(float(pool.mean()), abs=0.15)
    assert drawn.std() == pytest.approx(float(pool.std()), abs=0.15)


class Plain(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return torch.full((2,), float(index)), index % 2


def test_in_memory_batches_are_those_of_a_loader():
    x, y = torch.arange(20.0).view(10, 2), torch.arange(10)
    data = ConcatDataset([Subset(TensorDataset(x, y), [3, 1]), TensorDataset(x, y)])
    batches = Classification().loader(data, 5)
    assert isinstance(batches, TensorBatches)
    assert torch.cat([b[1] for b in batches]).tolist() == [3, 1, *range(10)]
    shuffled = Classification().loader(data, 5, shuffle=True, seed=1)
    first, second = (torch.cat([b[1] for b in shuffled]).tolist() for _ in range(2))
    assert sorted(first) == sorted([3, 1, *range(10)])
    assert first != second
    assert as_tensors(Plain()) is None
    plain = [b[1].tolist() for b in Classification().loader(Plain(), 3)]
    assert plain == [[0, 1, 0], [1, 0, 1], [0]]


def test_an_empty_dataset_is_refused():
    with pytest.raises(BadInput, match="empty"):
        Classification().loader(TensorDataset(torch.zeros(0, 2), torch.zeros(0)), 4)


def test_evaluation_mode_comes_and_goes_per_module():
    model = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    model.train()
    model[0].eval()
    with evaluating(model):
        assert not model[1].training
    assert model[1].training
    assert not model[0].training

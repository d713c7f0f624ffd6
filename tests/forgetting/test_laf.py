"""Label-agnostic forgetting: the card's exact checks, bad input, and any model with an embedding."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from didact.core.cost import Meter
from didact.core.errors import BadInput, NotApplicable
from didact.core.fit import fit
from didact.core.objective import Classification, pad_tokens
from didact.forgetting.laf import LabelAgnosticForgetting, autoencoder
from didact.forgetting.laf import method as laf
from didact.models.artifacts import load, save
from didact.models.language import text_classifier
from didact.models.small import mlp

QUICK = {"steps": 60, "lr_ue": 1e-3, "lr_ra": 2e-3, "vae_epochs": 3, "batch_size": 16}


def blobs(seed: int = 0, each: int = 40) -> list[TensorDataset]:
    """Three well-separated classes in six dimensions, one data set each."""
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.eye(3, 6)
    return [
        TensorDataset(centres[c] + 0.5 * torch.randn(each, 6, generator=generator), torch.full((each,), c))
        for c in range(3)
    ]


@pytest.fixture(scope="module")
def toy() -> tuple[nn.Module, Dataset, Dataset]:
    """A trained model, the class to forget, the classes that stay."""
    torch.manual_seed(0)
    forget, *rest = blobs()
    retain = ConcatDataset(rest)
    model = mlp(6, 3, hidden=(32, 16))
    fit(model, ConcatDataset([forget, retain]), Classification(), epochs=20, lr=5e-3)
    return model.eval(), forget, retain


class Unlabelled(Classification):
    """Any use of a label ends the test."""

    def targets(self, batch: object) -> Tensor:
        raise BadInput("labels were asked for")

    def loss_of(self, output: Tensor, targets: Tensor) -> Tensor:
        raise AssertionError("a loss with labels was asked for")


class TextClassification(Classification):
    def collate(self, samples: list) -> dict[str, Tensor]:
        return pad_tokens(samples, 0)


class Sentences(Dataset):
    """Token sequences of different lengths, whose class is the first token."""

    def __init__(self, classes: tuple[int, ...], seed: int = 0, each: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = []
        for c in classes:
            for i in range(each):
                words = torch.randint(10, 30, (4 + i % 3,), generator=generator)
                self.rows.append({"input_ids": torch.cat([torch.tensor([3 + c]), words]), "labels": c})

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return dict(self.rows[index])


def states(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


class Constant(nn.Module):
    """An autoencoder that rebuilds everything as zeros, with a given code distribution."""

    def __init__(self, mean: Tensor | None = None, deviation: Tensor | None = None) -> None:
        super().__init__()
        self.code = mean, deviation

    def forward(self, embedding: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return torch.zeros_like(embedding), *self.code


# -- the equations -----------------------------------------------------------------------------------------


def test_phi_squeezes_errors_to_between_1_and_e() -> None:
    values = laf.phi(torch.tensor([0.0, 1.0, 9.0, 1e9]))
    assert values.tolist() == pytest.approx([1.0, 1.648721, 2.459603, math.e], abs=1e-6)


@pytest.mark.parametrize(("tau", "expected"), [(20.0, -1.161451), (5.0, -1.388793)])
def test_alignment_loss_is_the_cards(tau: float, expected: float) -> None:
    loss = laf.alignment_loss(torch.tensor([0.1, 0.2]), torch.tensor([0.5, 1.0]), tau)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_kl_is_the_cards() -> None:
    value = autoencoder.kl(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]]))
    assert value.tolist() == pytest.approx([1.306853], abs=1e-6)


def test_autoencoder_loss_sums_over_dimensions_and_averages_over_samples() -> None:
    vae = Constant(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 2.0], [1.0, 1.0]]))
    embedding = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    assert float(autoencoder.vae_loss(vae, embedding, 0.025)) == pytest.approx(7 + 0.025 * 1.306853 / 2, abs=1e-6)


def test_extraction_loss_adds_retained_and_subtracts_forget() -> None:
    retain, forget = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    loss = laf.extraction_loss(Constant(), Constant(), retain, forget)
    assert float(loss) == pytest.approx(1.648721 + 1 - 2.459603, abs=1e-6)


def test_cosine_distance() -> None:
    new, old = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0]]).expand(3, 2)
    assert laf.cosine_distance(new, old).tolist() == pytest.approx([0, 1, 2], abs=1e-6)


def test_autoencoder_has_the_cards_layers() -> None:
    vae = autoencoder.Autoencoder(256, 8, "sigmoid")
    widths = [(m.in_features, m.out_features) for m in vae.modules() if isinstance(m, nn.Linear)]
    assert widths == [(256, 128), (128, 32), (32, 8), (32, 8), (8, 32), (32, 128), (128, 256)]
    rebuilt, mean, deviation = vae(50 * torch.randn(4, 256))
    assert 0 <= float(rebuilt.detach().min()) <= float(rebuilt.detach().max()) <= 1
    assert mean.shape == deviation.shape == (4, 8)
    assert float(deviation.detach().min()) > 0
    assert isinstance(autoencoder.Autoencoder(256, 8).decoder[-1], nn.Linear)


def test_a_round_is_an_adam_step_of_l_ue_then_of_l_ra_on_embeddings_anew(
    toy: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With autoencoders that are known, and whole data sets as batches, a round can be done again by hand."""
    known = (Constant(), Constant(), 2.0)
    monkeypatch.setattr(LabelAgnosticForgetting, "_autoencoders", lambda *_: known)
    model, forget, retain = toy
    method = LabelAgnosticForgetting(steps=1, lr_ue=1e-3, lr_ra=3e-3, batch_size=1000, tau=5)
    answer = method.unlearn(model, forget, retain)

    objective, mine = Classification(), copy.deepcopy(model)
    batches = [next(iter(objective.loader(data, 1000))) for data in (retain, forget)]
    old = [objective.features(model, batch).detach() for batch in batches]

    def phi_of(embedding: Tensor) -> Tensor:
        r = (embedding / 2).square().sum(1)
        return torch.exp(r / (1 + r)).sum()

    adam = torch.optim.Adam(mine.body.parameters(), 1e-3)
    (phi_of(objective.features(mine, batches[0])) - phi_of(objective.features(mine, batches[1]))).backward()
    adam.step()
    adam = torch.optim.Adam(mine.body.parameters(), 3e-3)
    adam.zero_grad()
    new = [objective.features(mine, batch) for batch in batches]
    kept, gone = (1 - torch.cosine_similarity(a, b) for a, b in zip(new, old, strict=True))
    (kept - torch.log(torch.exp(gone / 5).sum())).sum().backward()
    adam.step()
    # Adam divides by the size of a gradient: where that is nothing but rounding, the two may part.
    pairs = zip(answer.body.parameters(), mine.body.parameters(), strict=True)
    apart = torch.cat([(ours - theirs).detach().abs().flatten() for ours, theirs in pairs])
    assert float(apart.mean()) < 2e-6


# -- what is trained ---------------------------------------------------------------------------------------


def test_the_head_stays_bit_for_bit_and_the_model_given_too(toy: tuple) -> None:
    model, forget, retain = toy
    before = states(model)
    answer = LabelAgnosticForgetting(**QUICK).unlearn(model, forget, retain)
    assert differing(before, states(model)) == set()
    changed = differing(before, states(answer))
    assert changed == {name for name in before if name.startswith("body")}


def test_with_a_feature_layer_all_that_follows_it_stays(toy: tuple) -> None:
    model, forget, retain = toy
    answer = LabelAgnosticForgetting(**QUICK, feature_layer="body.1").unlearn(model, forget, retain)
    assert differing(states(model), states(answer)) == {"body.0.weight", "body.0.bias"}


class Tied(nn.Module):
    """A head that shares its weight with the first layer, as tied embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.top = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.top.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.middle(self.first(x).relu()))


def test_a_head_that_shares_its_weights_stays_too() -> None:
    forget, *rest = blobs(each=10)
    model = Tied()
    answer = LabelAgnosticForgetting(**{**QUICK, "steps": 3}).unlearn(model, forget, ConcatDataset(rest))
    assert differing(states(model), states(answer)) == {"first.bias", "middle.weight", "middle.bias"}


def test_repair_trains_the_head_alone(toy: tuple) -> None:
    model, forget, retain = toy
    plain = LabelAgnosticForgetting(**QUICK).unlearn(model, forget, retain)
    repaired = LabelAgnosticForgetting(**QUICK, repair_labels=20).unlearn(model, forget, retain)
    assert differing(states(plain), states(repaired)) == {"head.weight", "head.bias"}


def test_without_both_losses_nothing_changes(toy: tuple) -> None:
    model, forget, retain = toy
    answer = LabelAgnosticForgetting(**QUICK, use_ue=False, use_ra=False).unlearn(model, forget, retain)
    assert differing(states(model), states(answer)) == set()


@pytest.mark.parametrize("switch", [{"use_ue": False}, {"use_ra": False}])
def test_each_ablation_differs_from_the_whole(toy: tuple, switch: dict) -> None:
    model, forget, retain = toy
    whole = LabelAgnosticForgetting(**QUICK).unlearn(model, forget, retain)
    part = LabelAgnosticForgetting(**QUICK, **switch).unlearn(model, forget, retain)
    assert differing(states(whole), states(part))


# -- what it does ------------------------------------------------------------------------------------------


def test_forgets_the_class_and_keeps_the_others(toy: tuple) -> None:
    model, forget, retain = toy
    objective = Classification()
    assert objective.mean_score(model, forget) > 0.9
    answer = LabelAgnosticForgetting(**{**QUICK, "steps": 400}).unlearn(model, forget, retain)
    assert objective.mean_score(answer, forget) < 0.2
    assert objective.mean_score(answer, retain) > 0.9


def test_needs_no_labels(toy: tuple) -> None:
    model, forget, retain = toy
    inputs = [TensorDataset(torch.stack([x for x, _ in data])) for data in (forget, retain)]
    answer = LabelAgnosticForgetting(**QUICK).unlearn(model, *inputs, objective=Unlabelled())
    labelled = LabelAgnosticForgetting(**QUICK).unlearn(model, forget, retain)
    assert differing(states(answer), states(labelled)) == set()


def test_repair_without_labels_says_so(toy: tuple) -> None:
    model, forget, retain = toy
    inputs = [TensorDataset(torch.stack([x for x, _ in data])) for data in (forget, retain)]
    with pytest.raises(BadInput, match="labelled"):
        LabelAgnosticForgetting(**QUICK, repair_labels=5).unlearn(model, *inputs, objective=Classification())


def test_same_seed_same_model(toy: tuple) -> None:
    model, forget, retain = toy
    method = LabelAgnosticForgetting(**{**QUICK, "steps": 10})
    first, again, other = (method.unlearn(model, forget, retain, seed=s) for s in (1, 1, 2))
    assert differing(states(first), states(again)) == set()
    assert differing(states(first), states(other))


def test_only_large_errors_have_embeddings_rescaled(toy: tuple) -> None:
    model, forget, retain = toy
    large, small = copy.deepcopy(model), copy.deepcopy(model)
    for other, factor in ((large, 30.0), (small, 0.05)):
        with torch.no_grad():
            other.body[2].weight *= factor
            other.body[2].bias *= factor
    scales = []
    for other in (large, small):
        with Meter() as meter:
            LabelAgnosticForgetting(**{**QUICK, "steps": 1}).unlearn(other, forget, retain)
        scales.append(meter.log["embedding_scale"])
    objective = Classification()
    old = torch.cat([objective.features(large, b) for b in objective.loader(ConcatDataset([retain, forget]), 999)])
    assert scales == [pytest.approx(float(old.detach().std()), rel=1e-4), 1.0]


def test_passes_are_counted_though_none_reaches_the_output(toy: tuple) -> None:
    model, forget, retain = toy
    with Meter() as meter:
        LabelAgnosticForgetting(**{**QUICK, "steps": 7, "vae_epochs": 1, "batch_size": 8}).unlearn(
            model, forget, retain
        )
    assert meter.backward == 7 * 2 * (8 + 8)


# -- bad input ---------------------------------------------------------------------------------------------


def test_rejects_bad_input(toy: tuple) -> None:
    model, forget, retain = toy
    with pytest.raises(BadInput, match="tau"):
        LabelAgnosticForgetting(tau=0)
    with pytest.raises(NotApplicable, match="retain"):
        LabelAgnosticForgetting().unlearn(model, forget)
    with pytest.raises(BadInput, match="at least 8 samples, but 7 were given"):
        LabelAgnosticForgetting().unlearn(model, Subset(forget, range(7)), retain)
    with pytest.raises(BadInput, match=r"no layer 'nowhere'.*body"):
        LabelAgnosticForgetting(feature_layer="nowhere").unlearn(model, forget, retain)


def test_rejects_models_without_an_embedding() -> None:
    forget, *rest = blobs(each=10)
    with pytest.raises(BadInput, match="nothing to train before"):
        LabelAgnosticForgetting().unlearn(nn.Linear(6, 3), forget, ConcatDataset(rest))
    images = [TensorDataset(x.view(-1, 1, 2, 3), y) for x, y in (d.tensors for d in blobs(each=10))]
    no_linear = nn.Sequential(nn.Conv2d(1, 3, (2, 3)), nn.Flatten())
    with pytest.raises(BadInput, match="Name the feature layer"):
        LabelAgnosticForgetting().unlearn(no_linear, images[0], ConcatDataset(images[1:]))


# -- any model ---------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_scores_the_same(toy: tuple, tmp_path) -> None:
    model, forget, retain = toy
    answer = LabelAgnosticForgetting(**{**QUICK, "steps": 20}).unlearn(model, forget, retain)
    answer.architecture = model.architecture
    again = load(save(answer, tmp_path / "model"))
    objective = Classification()
    for data in (forget, retain):
        assert torch.equal(objective.losses(answer, data), objective.losses(again, data))


class Own(nn.Module):
    """A user's network: batch norm, dropout, a head that is not the last module named."""

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Linear(12, 3)
        self.first = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.top(self.first(x))


def test_own_module_with_a_named_layer() -> None:
    torch.manual_seed(1)
    forget, *rest = blobs(each=20)
    model, retain = Own(), ConcatDataset(rest)
    method = LabelAgnosticForgetting(**{**QUICK, "steps": 5}, feature_layer="first", repair_labels=8)
    changed = differing(states(model), states(method.unlearn(model, forget, retain)))
    # Also the repair, which uses a training loop, leaves the running statistics alone.
    assert changed == {
        "top.weight",
        "top.bias",
        *(f"first.{n}" for n in ("0.weight", "1.weight", "1.bias")),
    } | (changed & {"first.0.bias"})


def test_text_classifier(tmp_path) -> None:
    torch.manual_seed(0)
    model, objective = text_classifier(30, 3, hidden=16, layers=1, heads=2).eval(), TextClassification()
    forget, retain = Sentences((0,)), Sentences((1, 2), seed=1)
    method = LabelAgnosticForgetting(**{**QUICK, "steps": 5, "batch_size": 8})
    answer = method.unlearn(model, forget, retain, objective=objective)
    changed = differing(states(model), states(answer))
    assert changed
    assert not any(name.startswith("classifier") for name in changed)
    again = load(save(answer, tmp_path / "text"))
    assert torch.equal(objective.losses(answer, forget), objective.losses(again, forget))

"""Models: built by name, saved without pickles, cached once, safe for two processes at a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import didact
from didact.core.errors import BadInput, UnknownName
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models import build, convnet, digest, gpt_tiny, mlp, text_classifier, trained
from didact.models.artifacts import stored_bytes
from didact.models.small import parameter_count


def same(a, b):
    x, y = a.state_dict(), b.state_dict()
    return x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x)


def test_the_digits_convnet_has_the_size_its_docstring_says():
    assert parameter_count(convnet()) == 87_178
    assert convnet(outputs=6, size=32, channels_in=3, channels=(4, 8, 16))(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
    with pytest.raises(BadInput, match="cannot be halved 4 times"):
        convnet(channels=(2, 2, 2, 2))
    with pytest.raises(UnknownName, match="Known: convnet, mlp"):
        build("transformer")


@pytest.mark.parametrize(
    "make",
    [convnet, lambda: mlp(4, 3), lambda: gpt_tiny(60), lambda: text_classifier(60, 3, hidden=16, heads=2)],
    ids=["convnet", "mlp", "gpt-tiny", "text-classifier"],
)
def test_models_come_back_from_disk_as_they_were(make, tmp_path):
    model = make()
    didact.save(model, tmp_path / "m", {"note": 1})
    loaded = didact.load(tmp_path / "m")
    assert type(loaded) is type(model)
    assert same(loaded, model)
    assert not loaded.training
    assert {p.suffix for p in (tmp_path / "m").iterdir()} <= {".safetensors", ".json"}
    assert json.loads((tmp_path / "m/didact.json").read_text()) == {"note": 1}


def test_an_artifact_is_replaced_whole(tmp_path):
    first, second = mlp(4, 3), mlp(5, 2)
    didact.save(first, tmp_path / "m", {"old": True})
    didact.save(second, tmp_path / "m")
    assert same(didact.load(tmp_path / "m"), second)
    assert not (tmp_path / "m/didact.json").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_what_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        didact.load(tmp_path)
    didact.save(nn.Linear(2, 2), tmp_path / "own")
    with pytest.raises(BadInput, match="into=model"):
        didact.load(tmp_path / "own")
    assert same(
        didact.load(tmp_path / "own", into=nn.Linear(2, 2)), didact.load(tmp_path / "own", into=nn.Linear(2, 2))
    )
    with pytest.raises(BadInput, match="do not fit Linear"):
        didact.load(tmp_path / "own", into=nn.Linear(3, 2))


def test_shared_weights_count_once():
    model = gpt_tiny(60)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert stored_bytes(model) == 4 * sum(p.numel() for p in model.parameters()) + sum(
        b.numel() * b.element_size() for b in model.buffers()
    )


def data():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())


def test_a_digest_sees_every_value():
    x, y = data().tensors
    other = x.clone()
    other[3, 2] += 1e-6
    found = {digest(TensorDataset(x, y)), digest(TensorDataset(other, y)), digest(TensorDataset(x, 1 - y))}
    assert len(found) == 3
    assert digest(TensorDataset(x, y)) == digest(data())


def test_a_workpiece_is_trained_once_and_any_change_makes_another(tmp_path, monkeypatch):
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    recipe = Recipe(lambda: mlp(4, 2, (8,)), Classification(), "tiny", epochs=2)
    first = trained(recipe, data(), 0)
    files = lambda: sorted((tmp_path / "workpieces").glob("*.safetensors"))  # noqa: E731
    assert len(files()) == 1
    stamp = files()[0].stat().st_mtime_ns
    assert same(trained(recipe, data(), 0), first)
    assert files()[0].stat().st_mtime_ns == stamp
    assert same(recipe.fit(data(), 0), first)
    trained(recipe, data(), 1)
    trained(recipe.but(epochs=3), data(), 0)
    trained(recipe.but(build=lambda: mlp(4, 2, (9,))), data(), 0)
    assert len(files()) == 4
    assert not list(tmp_path.rglob("*.tmp"))


def test_two_processes_that_want_the_same_workpiece_train_it_once(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch; torch.set_num_threads(1)
from test_models import data
from didact.core.objective import Classification
from didact.core.recipe import Recipe
from didact.models import mlp, trained
class Counting(Recipe):
    def fit(self, *a, **k):
        open({str(tmp_path / "log")!r}, "a").write("trained\\n")
        return super().fit(*a, **k)
recipe = Counting(lambda: mlp(4, 2, (8,)), Classification(), "tiny", epochs=30)
print(float(trained(recipe, data(), 0).head.weight.sum()))
"""
    environment = {**os.environ, "DIDACT_CACHE": str(tmp_path / "cache")}
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert printed[0] == printed[1] != b""
    assert (tmp_path / "log").read_text() == "trained\n"

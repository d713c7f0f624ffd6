"""Deltas of weights: names, precision, tied weights, running statistics; and merging of sharded checkpoints on disk."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import TensorDataset

from didact.core.errors import BadInput
from didact.core.objective import Classification
from didact.reusing.dare import DARE, task_arithmetic
from didact.reusing.deltas import (
    Checkpoint,
    Deltas,
    add,
    checkpoint_digest,
    chosen,
    dropped_aliases,
    merge_checkpoints,
    norm,
    recompute_statistics,
    subtract,
    weights_of,
    with_weights,
)


def state(seed: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(3, 4, generator=generator).to(dtype),
        "a.bias": torch.randn(3, generator=generator).to(dtype),
        "classifier.weight": torch.randn(2, 3, generator=generator).to(dtype),
    }


def test_a_delta_added_to_its_base_gives_the_model():
    base, theta = state(0), state(1)
    assert all(torch.allclose(add(base, subtract(theta, base))[n], theta[n], atol=1e-6) for n in theta)


def test_patterns_choose_whole_names():
    names = ["a.weight", "a.bias", "classifier.weight"]
    assert chosen(names, exclude=[".*classifier.*"]) == ["a.weight", "a.bias"]
    assert chosen(names, include=["a"]) == []
    assert chosen(names, include=[r"a\..*"], exclude=[".*bias"]) == ["a.weight"]
    with pytest.raises(BadInput, match="no regular expression"):
        chosen(names, include=["("])


def test_excluded_parameters_have_no_delta_and_stay_the_base():
    base, theta = state(0), state(1)
    delta = subtract(theta, base, exclude=[".*classifier.*"])
    assert set(delta) == {"a.weight", "a.bias"}
    assert torch.equal(add(base, delta)["classifier.weight"], base["classifier.weight"])


def test_half_precision_is_subtracted_in_float32():
    base = {"w": torch.full((4,), 1.0, dtype=torch.bfloat16)}
    theta = {"w": torch.tensor([1.0078125, 1.0, 0.99609375, 2.0], dtype=torch.bfloat16)}
    delta = subtract(theta, base)["w"]
    assert delta.dtype == torch.float32
    assert delta.tolist() == [0.0078125, 0.0, -0.00390625, 1.0]
    back = add(base, {"w": delta / 3})["w"]
    assert back.dtype == torch.bfloat16
    # A third of the change, rounded once at the end: not rounded to bfloat16 before it is added.
    assert torch.equal(back, (1.0 + delta / 3).to(torch.bfloat16))


def test_tied_weights_count_once_and_stay_tied():
    shared = torch.ones(3, 2)
    base = {"embed": shared, "head": shared}
    turned = torch.full((3, 2), 2.0)
    theta = {"embed": turned, "head": turned}
    assert dropped_aliases(base) == {"head": "embed"}
    delta = subtract(theta, base)
    assert list(delta) == ["embed"]
    assert Deltas(base, theta).size == 6
    made = add(base, delta)
    assert made["head"] is made["embed"]
    assert torch.equal(made["head"], turned)
    # A model lists a tied parameter once, and the copy keeps the tie.
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert list(weights_of(model)) == ["0.weight"]
    copy = with_weights(model, {"0.weight": torch.zeros(3, 3)})
    assert copy[1].weight is copy[0].weight
    assert not copy[1].weight.any()
    assert model[1].weight.any()


def test_running_statistics_are_no_deltas_and_are_measured_anew():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert set(subtract(model.state_dict(), model.state_dict())) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0)) * 3 + 1
    model[1].running_mean.fill_(9.0)
    recompute_statistics(model.train(), TensorDataset(x), Classification(), batch_size=500)
    with torch.no_grad():
        h = model[0](x)
    assert torch.allclose(model[1].running_mean, h.mean(0), atol=1e-5)
    assert torch.allclose(model[1].running_var, h.var(0), rtol=0.05)
    assert model[1].momentum == 0.1
    assert model.training


def test_norm_is_the_length_of_one_long_vector():
    assert norm({"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}) == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("a.bias"), "the model lacks a.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "the base lacks extra"),
        (lambda s: s.update({"a.bias": torch.ones(4)}), "a.bias has the shape"),
        (lambda s: s.update({"a.bias": torch.ones(3, dtype=torch.long)}), "whole numbers"),
    ],
)
def test_models_that_do_not_fit_their_base_are_refused(change, message):
    theta = state(1)
    change(theta)
    with pytest.raises(BadInput, match=message):
        Deltas(state(0), theta)


def test_patterns_that_leave_nothing_are_refused():
    with pytest.raises(BadInput, match="No parameter takes part"):
        Deltas(state(0), state(1), exclude=[".*"])
    with pytest.raises(BadInput, match="the base lacks"):
        add(state(0), {"other": torch.ones(1)})


# -- checkpoints -------------------------------------------------------------------------------------------------------


def write(folder, weights, shards: int = 1):
    """A checkpoint in the Hugging Face layout."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "toy"}')
    names = list(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
        return folder
    where = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: weights[n] for n in names if where[n] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read(folder):
    return {name: Checkpoint(folder)[name] for name in Checkpoint(folder)}


def test_checkpoints_merge_like_state_dicts_however_they_are_sharded(tmp_path):
    base, one, two = state(0), state(1), state(2)
    folders = [write(tmp_path / "base", base, 2), write(tmp_path / "one", one, 3), write(tmp_path / "two", two)]
    made = merge_checkpoints(folders[0], folders[1:], tmp_path / "out", task_arithmetic(0.5), exclude=["class.*"])
    found = read(made)
    for name in ("a.weight", "a.bias"):
        expected = base[name] + 0.5 * ((one[name] - base[name]) + (two[name] - base[name]))
        assert torch.allclose(found[name], expected, atol=1e-6)
    assert torch.equal(found["classifier.weight"], base["classifier.weight"])
    assert (made / "config.json").read_text() == (folders[0] / "config.json").read_text()
    assert Checkpoint(made).files == Checkpoint(folders[0]).files
    total = json.loads((made / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    assert total == sum(v.numel() * 4 for v in base.values())


def test_a_merge_says_where_it_comes_from_and_a_foreign_base_is_refused(tmp_path):
    base, one = write(tmp_path / "base", state(0), 2), write(tmp_path / "one", state(1))
    made = merge_checkpoints(base, [one], tmp_path / "out", task_arithmetic())
    about = json.loads((made / "didact.json").read_text())
    assert about["base"] == checkpoint_digest(base)
    assert about["merged"] == ["one"]
    merge_checkpoints(base, [made], tmp_path / "again", task_arithmetic(), base_digest=checkpoint_digest(base))
    other = write(tmp_path / "other", state(7))
    with pytest.raises(BadInput, match="fine-tuned from"):
        merge_checkpoints(other, [made], tmp_path / "never", task_arithmetic())
    with pytest.raises(BadInput, match="was expected"):
        merge_checkpoints(other, [one], tmp_path / "never", task_arithmetic(), base_digest=checkpoint_digest(base))
    assert not (tmp_path / "never").exists()


def test_the_digest_does_not_depend_on_the_sharding(tmp_path):
    weights = state(0)
    digests = {checkpoint_digest(write(tmp_path / f"s{n}", weights, n)) for n in (1, 2, 3)}
    assert len(digests) == 1
    weights["a.bias"][0] += 1e-3
    assert checkpoint_digest(write(tmp_path / "changed", weights)) not in digests


def test_a_single_model_keeps_its_own_excluded_tensors(tmp_path):
    base, tuned = state(0), state(1)
    base.pop("classifier.weight")
    folders = [write(tmp_path / "base", base), write(tmp_path / "tuned", tuned, 2)]
    made = DARE(rate=0.0).merge_checkpoints(folders[0], folders[1:], tmp_path / "out")
    found = read(made)
    assert set(found) == set(tuned)
    assert all(torch.allclose(found[n], tuned[n], atol=1e-6) for n in tuned)
    assert torch.equal(found["classifier.weight"], tuned["classifier.weight"])


def test_what_dare_drops_does_not_depend_on_the_sharding(tmp_path):
    for n in (1, 3):
        for k in range(3):
            write(tmp_path / f"{k}-{n}", state(k), n)
    method = DARE(rate=0.5, merge="ties", trim=0.3)
    made = [
        read(
            method.merge_checkpoints(
                tmp_path / f"0-{n}", [tmp_path / f"1-{n}", tmp_path / f"2-{n}"], tmp_path / f"m{n}"
            )
        )
        for n in (1, 3)
    ]
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert any(not torch.equal(made[0][name], state(0)[name]) for name in made[0])


def test_broken_checkpoints_are_refused(tmp_path):
    base = write(tmp_path / "base", state(0), 2)
    with pytest.raises(BadInput, match="no safetensors checkpoint"):
        Checkpoint(tmp_path)
    with pytest.raises(BadInput, match="At least one"):
        merge_checkpoints(base, [], tmp_path / "out", task_arithmetic())
    with pytest.raises(BadInput, match="names no model"):
        merge_checkpoints(base, [base], tmp_path / "out", task_arithmetic(), rest=1)
    (base / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="missing"):
        Checkpoint(base)
    broken = write(tmp_path / "broken", state(0))
    (broken / "model.safetensors").write_bytes(b"nonsense" * 9)
    with pytest.raises(BadInput, match="not a readable"):
        Checkpoint(broken)
    away = write(tmp_path / "away", state(0), 2)
    index = {"weight_map": {"a.weight": "../base/model.safetensors"}}
    (away / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BadInput, match="same folder"):
        Checkpoint(away)


def test_a_merge_that_fails_leaves_the_old_answer(tmp_path):
    base, one = write(tmp_path / "base", state(0)), write(tmp_path / "one", state(1))
    made = merge_checkpoints(base, [one], tmp_path / "out", task_arithmetic())
    before = read(made)

    def breaks(sources):
        def merge(name, deltas):
            raise RuntimeError("in the middle")

        return merge

    with pytest.raises(RuntimeError):
        merge_checkpoints(base, [one], tmp_path / "out", breaks)
    assert all(torch.equal(read(made)[n], before[n]) for n in before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "one", "out"]


def test_hugging_face_models_with_tied_embeddings_merge_on_disk_as_in_memory(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    from didact.reusing import Task

    torch.manual_seed(0)
    base = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)).eval()
    tuned = with_weights(base, {n: w + 0.05 * torch.randn_like(w) for n, w in weights_of(base).items()}).eval()
    base.save_pretrained(tmp_path / "base", max_shard_size="10KB")
    tuned.save_pretrained(tmp_path / "tuned")
    method = DARE(rate=0.0, scaling=0.5)
    made = method.merge_checkpoints(tmp_path / "base", [tmp_path / "tuned"], tmp_path / "out")
    assert len(Checkpoint(made).shards()) > 1
    loaded = GPT2LMHeadModel.from_pretrained(made, local_files_only=True).eval()
    inside = method.reuse([tuned], Task(), base=base).module
    assert inside.lm_head.weight is inside.transformer.wte.weight
    ids = torch.arange(12)[None]
    assert torch.allclose(loaded(ids).logits, inside(ids).logits, atol=1e-5)
    assert not torch.allclose(loaded(ids).logits, base(ids).logits, atol=1e-2)


MEASURE = """
import sys
from pathlib import Path
from didact.reusing.dare import DARE
def peak():
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")) // 1024
root = Path(sys.argv[1])
DARE(rate=0.5).merge_checkpoints(root / "tiny", [root / "tiny"] * 2, root / "first")
before = peak()
DARE(rate=0.5).merge_checkpoints(root / "base", [root / "one", root / "two"], root / "out")
print(peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_stays_at_about_a_shard(tmp_path):
    """Three checkpoints of 128 MB in shards of 16 MB are merged within a fraction of one checkpoint."""
    write(tmp_path / "tiny", state(0))
    for k, name in enumerate(("base", "one", "two")):
        weights = {f"l{i}": torch.full((1024, 1024), float(k) + i) for i in range(32)}
        write(tmp_path / name, weights, 8)
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert int(run.stdout) < 80
    first = load_file(tmp_path / "out" / "model-00001-of-00008.safetensors")
    assert set(first) == {"l0", "l8", "l16", "l24"}

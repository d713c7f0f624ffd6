"""digits, diabetes and the drawing of splits."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_digits

from didact.core.errors import BadInput
from didact.data import diabetes, digits, split_indices


@given(
    seed=st.integers(0, 2**32 - 1),
    total=st.integers(1, 200),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    classes=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_splits_are_disjoint_exact_and_stratified(seed, total, cuts, classes):
    low, high = sorted(int(cut * total) for cut in cuts)
    sizes = {"train": low, "validation": high - low, "test": total - high}
    labels = np.arange(total) % min(classes, total)
    parts = split_indices(seed, total, **sizes, labels=labels)
    assert [len(part) for part in parts] == list(sizes.values())
    assert sorted(np.concatenate(list(parts)).tolist()) == list(range(total))
    for part in parts:
        share = np.bincount(labels[part], minlength=min(classes, total)) - len(part) * np.bincount(labels) / total
        assert np.abs(share).max() < 4.5  # at most 2 (1 + the class's share x the number of classes)


def test_digits_are_disjoint_parts_of_the_bundled_images():
    splits = digits(3)
    x = torch.cat([part.tensors[0] for part in splits])
    y = torch.cat([part.tensors[1] for part in splits])
    assert x.shape == (1797, 1, 8, 8)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    bundle = load_digits()
    rows = np.concatenate([bundle.data, bundle.target[:, None]], axis=1)
    mine = np.concatenate([x.flatten(1).numpy() * 16, y[:, None].numpy()], axis=1)
    assert sorted(map(tuple, mine.tolist())) == sorted(map(tuple, rows.tolist()))


def test_digits_follow_the_seed():
    one, same, other = digits(1), digits(1), digits(2)
    assert torch.equal(one.test.tensors[0], same.test.tensors[0])
    assert not torch.equal(one.test.tensors[0], other.test.tensors[0])


@pytest.mark.parametrize("size", [5, 16])
def test_digits_resize_keeps_range_and_mean(size):
    x = digits(0, size=size).train.tensors[0]
    assert x.shape[1:] == (1, size, size)
    assert x.min() >= 0
    assert x.max() <= 1
    assert abs(x.mean() - digits(0).train.tensors[0].mean()) < 0.03


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 1500}, "need 2297 samples, but only 1797 exist"),
        ({"test": -1}, "test part must be a whole number"),
        ({"train": 2.5}, "train part must be a whole number"),
        ({"size": 0}, "image size"),
    ],
)
def test_digits_reject_bad_sizes(arguments, message):
    with pytest.raises(BadInput, match=message):
        digits(**arguments)


def test_diabetes_is_standardised_by_the_training_part_alone():
    data = diabetes(5)
    x, y = data.train.tensors
    assert x.shape == (300, 10)
    assert (x.dtype, y.dtype, y.ndim) == (torch.float32, torch.float32, 1)
    assert x.mean(0).abs().max() < 1e-5
    assert (x.std(0, correction=0) - 1).abs().max() < 1e-4
    assert data.test.tensors[0].mean(0).abs().max() > 0.01  # test statistics are not used
    back = torch.cat([part.tensors[1] for part in data]) * data.target_std + data.target_mean
    np.testing.assert_allclose(np.sort(back), np.sort(load_diabetes().target), rtol=1e-4)


def test_diabetes_rejects_a_training_part_that_has_no_spread():
    with pytest.raises(BadInput, match="at least 2 training samples"):
        diabetes(train=1)


def test_importing_the_room_is_light_and_functions_win_over_modules():
    code = (
        "import sys, didact.data\n"
        "assert 'torch' not in sys.modules\n"
        "import didact.data.digits, didact.data.shapes.scenes, didact.data.bios\n"
        "from didact.data import digits, shapes, bios\n"
        "assert callable(digits) and callable(shapes) and callable(bios)\n"
        "assert set(didact.data.__all__) <= set(dir(didact.data))\n"
        "try: didact.data.nonsense\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

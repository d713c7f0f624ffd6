"""The generated scenes: determinism, labels that agree with the pixels, and controlled defects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from didact.core.errors import BadInput
from didact.data import parse_caption, shapes
from didact.data.shapes import OBJECT_FACTORS, VALUES, draw_scenes
from didact.data.shapes.render import COLOURS

SIMPLE = {"texture": "solid", "background": "dark", "size": "large"}


@pytest.fixture(scope="module")
def scenes():
    styles = {"style": ("plain", "noisy", "sketch")}
    return shapes(11, 120, size=48, objects=(1, 4), factors=styles)


def test_the_seed_decides_everything():
    one, same, other = (shapes(seed, 40, objects=(1, 3), factors={"style": 6}) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images)
    assert one.captions() == same.captions()
    assert one.questions() == same.questions()
    assert not torch.equal(one.images, other.images)


@pytest.mark.parametrize("size", [16, 32, 50])
def test_images_have_the_promised_form(size):
    made = shapes(0, 300, size=size, objects=(1, 3), factors={"style": 6})
    assert made.images.shape == (300, 3, size, size)
    assert made.images.dtype == torch.float32
    assert made.images.min() >= 0
    assert made.images.max() <= 1
    for k in range(3):  # every object that is there can be seen, even at 16 pixels
        seen = (made.instances == k + 1).flatten(1).any(1).numpy()
        assert (seen == (k < made.table.count)).all()


@given(seed=st.integers(0, 10**6), size=st.sampled_from([16, 33]), most=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_boxes_are_tight_around_the_masks(seed, size, most):
    made = shapes(seed, 6, size=size, objects=(1, most))
    for i in range(6):
        for k in range(most):
            rows, columns = np.nonzero(made.instances[i].numpy() == k + 1)
            box = made.boxes[i, k]
            if len(rows) == 0:
                assert box.isnan().all()
            else:
                assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_objects_are_painted_where_and_as_the_table_says():
    made = shapes(4, 200, factors=SIMPLE)
    colour = COLOURS[made.table.factor("colour")[:, 0]]
    inside = (made.instances == 1)[:, None]
    # The median pixel of the mask has the object's colour exactly; the first corner is background.
    for image, mask, expected in zip(made.images, inside, colour, strict=True):
        pixels = image.masked_select(mask).view(3, -1)
        np.testing.assert_allclose(pixels.median(1).values, expected, atol=1e-5)
    rows = np.arange(32) + 0.5
    total = made.instances.flatten(1).sum(1).numpy()
    x = (made.instances.sum(1).numpy() * rows).sum(1) / total / 32
    cell = np.clip((x * 3).astype(int), 0, 2)
    round_ones = np.isin(made.table.factor("shape")[:, 0], [0, 1, 3, 5])  # their centroid is their centre
    assert (cell == made.table.factor("position")[:, 0] % 3)[round_ones].mean() > 0.93


def test_the_shapes_differ_and_have_the_right_area():
    areas = {}
    for name in VALUES["shape"]:
        made = shapes(0, 30, size=64, factors={**SIMPLE, "shape": name})
        pixels = (made.instances > 0).flatten(1).sum(1).numpy()
        areas[name] = float((pixels / (made.table.radius[:, 0] * 64) ** 2).mean())
    assert areas["circle"] == pytest.approx(np.pi * 0.92**2, rel=0.03)
    assert areas["square"] == pytest.approx(1.4**2, rel=0.03)
    assert areas["bar"] == pytest.approx(1.9 * 0.56, rel=0.03)
    assert areas["triangle"] == pytest.approx(3 * np.sqrt(3) / 4, rel=0.03)
    assert areas["ring"] == pytest.approx(np.pi * (0.94**2 - 0.46**2), rel=0.03)
    assert areas["cross"] == pytest.approx(4 * 0.92 * 0.6 - 0.36, rel=0.03)
    assert areas["star"] == pytest.approx(5 * 0.45 * np.sin(np.pi / 5), rel=0.04)


def test_a_linear_model_learns_from_the_true_labels_only():
    from sklearn.linear_model import RidgeClassifier

    still = {"position": "middle", "size": "large", "rotation": ("0 degrees",)}
    made = shapes(2, 800, size=16, factors={"shape": ("bar", "triangle", "ring"), **still})
    x, y = (made.instances > 0).flatten(1).float().numpy(), made.labels("shape").numpy()
    assert RidgeClassifier(10).fit(x[:600], y[:600]).score(x[600:], y[600:]) > 0.9
    mixed = np.random.default_rng(0).permutation(y[:600])
    assert RidgeClassifier(10).fit(x[:600], mixed).score(x[600:], y[600:]) < 0.5


def test_captions_agree_with_the_factors(scenes):
    told = scenes.captions(mention=("size", "texture", "colour", "shape", "position"), seed=3)
    for text, truth in zip(told, scenes.described(), strict=True):
        left = [dict(thing) for thing in truth.objects]
        for said in parse_caption(text):
            match = next(thing for thing in left if said.items() <= thing.items())
            assert {"size", "texture", "colour", "shape"} <= said.keys()
            left.remove(match)
        assert not left
    assert len({text.split()[0] for text in told}) > 2  # several wordings


def test_relations_in_captions_are_true(scenes):
    opposite = {
        " above ": (1, -1),
        " below ": (1, 1),
        " to the left of ": (0, -1),
        " to the right of ": (0, 1),
    }
    checked = 0
    for text, truth in zip(scenes.captions(seed=4), scenes.described(), strict=True):
        for link, (axis, sign) in opposite.items():
            if link in text:
                names = parse_caption(text)
                places = [
                    truth.centres[next(i for i, t in enumerate(truth.objects) if said.items() <= t.items())]
                    for said in names
                ]
                assert sign * (places[0][axis] - places[1][axis]) > 0
                checked += 1
    assert checked > 5


def test_generic_captions_hide_what_they_do_not_mention(scenes):
    for text in scenes.captions(mention=("colour",), seed=1):
        assert all(said.keys() == {"colour"} for said in parse_caption(text))
    kept = [len(parse_caption(text)) for text in scenes.captions(keep=0.3, seed=1)]
    assert min(kept) == 1
    assert sum(kept) < 0.6 * scenes.table.count.sum()


def test_style_and_background_words_do_not_confuse_the_parser():
    made = shapes(1, 30, factors={"style": ("noisy", "night")})
    for text, truth in zip(made.captions(mention=("shape", "background", "style")), made.described(), strict=True):
        assert parse_caption(text) == [{"shape": truth.objects[0]["shape"]}]
        assert f"{truth.scene['background']} background in {truth.scene['style']} style" in text


def test_wrong_captions_are_other_scenes(scenes):
    right, some = scenes.captions(seed=2), scenes.captions(seed=2, wrong=0.25)
    assert sorted(right) == sorted(some)
    assert sum(a != b for a, b in zip(right, some, strict=True)) == pytest.approx(30, abs=1)


def test_answers_agree_with_the_facts(scenes):
    asked = scenes.questions(per_image=8, seed=5)
    truths = scenes.described()
    assert {question.kind for question in asked} == {
        *("shape", "colour", "texture", "size", "position", "count", "exists", "relation")
    }
    for q in asked:
        truth, words = truths[q.image], q.question.split()
        things = truth.objects
        if q.kind == "count":
            matching = [t for t in things if words[2] in (t["colour"], "objects")]
            assert ("zero", "one", "two", "three", "four")[len(matching)] == q.answer
        elif q.kind == "exists":
            there = any((t["colour"], t["shape"]) == (words[3], words[4]) for t in things)
            assert q.answer == ("yes" if there else "no")
        elif q.kind == "relation":
            named = {t["shape"]: place for t, place in zip(things, truth.centres, strict=True)}
            (ax, ay), (bx, by) = named[words[2]], named[words[-2]]
            told = {"above": ay < by, "below": ay > by, "left": ax < bx, "right": ax > bx}
            direction = next(word for word in words if word in told)
            assert q.answer == ("yes" if told[direction] else "no")
        elif q.kind == "shape":
            assert [t["shape"] for t in things if t["colour"] == words[4]] == [q.answer]
        else:
            assert [t[q.kind] for t in things if t["shape"] == words[-2]] == [q.answer]
    for kind in ("exists", "relation"):
        share = np.mean([q.answer == "yes" for q in asked if q.kind == kind])
        assert 0.3 < share < 0.7


def test_relations_are_mutual(scenes):
    for found in scenes.relations():
        links = {(i, j): link for i, link, j in found}
        for (i, j), link in links.items():
            pair = {link, links[j, i]}
            assert pair in ({"above", "below"}, {"to the left of", "to the right of"})


def test_views_agree_with_each_other(scenes):
    detection, masks = scenes.detection(), scenes.segmentation().tensors[1]
    for i in range(len(scenes)):
        image, truth = detection[i]
        assert torch.equal(image, scenes.images[i])
        assert truth["boxes"].shape == (scenes.table.count[i], 4)
        assert {int(c) + 1 for c in truth["labels"]} | {0} == set(masks[i].unique().tolist()) | {0}
        first = scenes.instances[i] == 1
        assert (masks[i][first] == truth["labels"][0] + 1).all()
    item = scenes[5]
    assert torch.equal(item["boxes"], detection[5][1]["boxes"])
    assert torch.equal(item["labels"], detection[5][1]["labels"])
    with pytest.raises(IndexError):
        scenes[len(scenes)]


def test_joint_classes_count_in_the_order_of_their_names():
    made = shapes(0, 60, factors={"shape": ("star", "bar"), "colour": ("blue", "red", "pink")})
    names = made.classes(("shape", "colour"))
    assert names[:3] == ("star blue", "star red", "star pink")
    for label, truth in zip(made.labels(("shape", "colour")).tolist(), made.described(), strict=True):
        assert names[label] == f"{truth.objects[0]['shape']} {truth.objects[0]['colour']}"


def test_factors_are_balanced_unless_imbalance_is_asked_for():
    made = shapes(0, 501, imbalance={"shape": 20.0, "colour": [3, 1, 0, 0, 0, 0, 0, 0]})
    counts = np.bincount(made.table.factor("shape")[:, 0], minlength=10)
    assert counts[0] / counts[-1] == pytest.approx(20, rel=0.1)
    assert (np.diff(counts) < 0).all()
    assert np.bincount(made.table.factor("colour")[:, 0]).tolist() == [376, 125]
    assert np.ptp(np.bincount(made.table.factor("texture")[:, 0])) <= 1


@given(strength=st.floats(0, 1), target=st.sampled_from(["colour", "background", "texture"]))
@settings(max_examples=15, deadline=None)
def test_a_correlation_has_the_strength_asked_for(strength, target):
    n = 1500
    made = shapes(3, n, size=8, correlate=("shape", target, strength))
    source, other = made.table.factor("shape")[:, 0], made.table.factor(target)
    agree = (other if other.ndim == 1 else other[:, 0]) == source % len(VALUES[target])
    assert agree.mean() == pytest.approx(strength, abs=4 * np.sqrt(0.25 / n) + 1e-9)
    if strength < 0.9:  # what does not agree is spread over the other values
        assert len(np.unique(other[~agree])) == len(VALUES[target])


@given(noise=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_label_noise_is_exact_and_repeatable(noise, seed):
    made = _cached_scenes()
    truth = made.labels("colour")
    noisy = made.classification("colour", noise=noise, seed=seed).tensors[1]
    assert int((noisy != truth).sum()) == round(noise * len(made))
    assert noisy.min() >= 0
    assert noisy.max() < len(made.classes("colour"))
    assert torch.equal(noisy, made.classification("colour", noise=noise, seed=seed).tensors[1])


def test_near_copies_are_near_and_counted():
    made = shapes(5, 200, redundancy=0.4, factors={"background": 3})
    copy = made.origin != np.arange(200)
    assert copy.sum() == 80
    assert not copy[made.origin[copy]].any()  # the origin of a copy is no copy
    assert (made.table.objects[copy] == made.table.objects[made.origin[copy]]).all()
    apart = (made.images[copy] - made.images[made.origin[copy]]).abs().flatten(1).mean(1)
    assert apart.max() < 0.1
    assert apart.min() > 0
    others = (made.images[copy] - made.images[np.roll(made.origin[copy], 1)]).abs().flatten(1).mean(1)
    assert others.median() > 3 * apart.median()


def test_selected_scenes_keep_their_labels(scenes):
    few = scenes.select(scenes.table.count == 2)
    assert set(few.table.count) == {2}
    where = int(np.flatnonzero(scenes.table.count == 2)[1])
    assert torch.equal(few.images[1], scenes.images[where])
    assert torch.equal(few.boxes[1, :2], scenes.boxes[where, :2])
    assert few.described()[1] == scenes.described()[where]


def test_positions_on_a_finer_grid_stay_in_their_cells():
    made = shapes(0, 300, grid=5)
    cell = (made.table.centre[:, 0] * 5).astype(int)
    assert (cell[:, 0] + 5 * cell[:, 1] == made.table.factor("position")[:, 0]).all()
    assert len(made.classes("position")) == 25
    radius = made.table.radius[:, :1]
    assert (made.table.centre[:, 0] >= radius - 1e-6).all()  # and the whole object in the picture
    assert (made.table.centre[:, 0] <= 1 - radius + 1e-6).all()
    assert all("position" in parse_caption(text)[0] for text in made.select(range(20)).captions())


@pytest.mark.parametrize("small", [0, 1])
def test_a_small_object_lies_on_top_of_a_large_one(small):
    table = shapes(0, 1, objects=2, factors={"shape": "circle"}).table
    table.centre[:] = 0.5
    table.radius[0] = 0.3
    table.radius[0, small] = 0.1
    instances = draw_scenes(table, 40, np.random.default_rng(0))[1]
    assert (instances == small + 1).sum() == pytest.approx(np.pi * (0.92 * 4) ** 2, rel=0.1)
    assert (instances == 2 - small).sum() > 200


def test_absent_objects_have_no_factors(scenes):
    table = scenes.table
    absent = np.arange(4) >= table.count[:, None]
    assert (table.objects[absent] == -1).all()
    assert (table.objects[~absent] >= 0).all()
    assert table.objects.shape[2] == len(OBJECT_FACTORS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "At least 1 picture"),
        ({"objects": (3, 2)}, "1 to 9 objects"),
        ({"factors": {"form": 3}}, "no factor 'form'"),
        ({"factors": {"shape": ("blob",)}}, "'blob'.*circle, square"),
        ({"factors": {"shape": 11}}, "no choice for the factor 'shape'"),
        ({"factors": {"shape": ("bar", "bar")}}, "none twice"),
        ({"imbalance": {"shape": 0.5}}, "at least 1, not 0.5"),
        ({"imbalance": {"shape": [1, 2]}}, "must be 10 numbers"),
        ({"imbalance": {"form": 2}}, "no factor 'form'"),
        ({"correlate": ("shape", "colour", 1.5)}, "strength in"),
        ({"correlate": ("shape", "form", 0.5)}, "no factor 'form'"),
        ({"redundancy": 1.0}, "near-copies"),
        ({"objects": 3, "factors": {"position": 2}}, "different positions"),
        ({"objects": 2, "correlate": ("shape", "position", 0.5)}, "only in scenes of one object"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(BadInput, match=message):
        shapes(0, **{"n": 20, **arguments})


def test_bad_views_are_named(scenes):
    with pytest.raises(BadInput, match="no factor 'form'"):
        scenes.classification("form")
    with pytest.raises(BadInput, match="have no object 1"):
        scenes.classification("shape", slot=1)
    with pytest.raises(BadInput, match="at most 4"):
        scenes.labels("shape", slot=4)
    with pytest.raises(BadInput, match="share between 0 and 1"):
        scenes.classification("shape", noise=1.2)
    with pytest.raises(BadInput, match="kind 'taste'"):
        scenes.questions(kinds=("taste",))
    with pytest.raises(BadInput, match="rotation"):
        scenes.captions(mention=("rotation",))


_CACHE = {}


def _cached_scenes():
    return _CACHE.setdefault("scenes", shapes(8, 90, size=8))

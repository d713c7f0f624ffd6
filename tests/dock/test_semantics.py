"""The words of a learnware: what is required, what is refused and by which name, and what a query finds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import didact.reusing.dock
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.semantics import Input, Output, SemanticQuery, SemanticSpecification, matches, vocabulary

TABLE = {
    "name": "House prices",
    "description": "Prices of flats in Lyon from 12 features",
    "data": "Table",
    "task": "Regression",
    "library": "scikit-learn",
    "scenario": ["Business", "Financial"],
    "licence": "MIT",
    "input": {"dimension": 12, "description": {"0": "floor area in square metres"}},
    "output": {"dimension": 1},
}


def semantic(**changes):
    return SemanticSpecification.parse({**TABLE, **changes})


def refused(mapping):
    with pytest.raises(BadSpecification) as caught:
        SemanticSpecification.parse(mapping)
    assert caught.value.status == 422
    assert str(caught.value).endswith(".")
    return caught.value.code


def without(field):
    return {key: value for key, value in TABLE.items() if key != field}


def test_json_comes_back_the_same():
    parsed = semantic()
    assert parsed.input == Input(dimension=12, description={0: "floor area in square metres"})
    assert SemanticSpecification.parse(json.loads(json.dumps(parsed.to_json()))) == parsed


def test_a_table_needs_its_input():
    assert refused(without("input")) == "missing-input"
    assert SemanticSpecification.parse({**without("input"), "data": "Image"}).input is None


@pytest.mark.parametrize("task", ["Classification", "Regression"])
def test_classes_and_targets_need_the_output(task):
    assert refused({**without("output"), "task": task}) == "missing-output"


def test_a_classification_has_two_classes_or_more():
    assert refused({**TABLE, "task": "Classification", "output": {"dimension": 1}}) == "bad-output"
    assert semantic(task="Classification", output={"dimension": 2}).output == Output(dimension=2)
    assert semantic(task="Regression", output={"dimension": 1}).output == Output(dimension=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", "Audio"),
        ("data", ["Table", "Image"]),
        ("task", "Poetry"),
        ("library", "Fortran"),
        ("licence", "Mine"),
        ("scenario", ["Business", "Weather"]),
    ],
)
def test_unknown_tags_are_named(field, value):
    assert refused({**TABLE, field: value}) == "unknown-tag"


@pytest.mark.parametrize(
    "mapping",
    [
        None,
        "House prices",
        [TABLE],
        without("name"),
        {**TABLE, "name": "  "},
        {**TABLE, "name": "nul \x00"},
        {**TABLE, "description": "\ud800"},
        {**TABLE, "owner": "me"},
        {**TABLE, "input": {"dimension": 0}},
        {**TABLE, "input": {"dimension": 2, "description": {"2": "beyond"}}},
        {**TABLE, "input": {"dimension": 2, "description": {"-1": "before"}}},
        {**TABLE, "input": {"dimension": 2, "description": {"x": "not a number"}}},
        {**TABLE, "output": {"dimension": 10**12}},
        {**TABLE, "scenario": {"a": 1}},
        {**TABLE, "library": 3},
    ],
)
def test_what_cannot_be_used_is_refused(mapping):
    assert refused(mapping) == "bad-semantic"


def test_the_layout_of_the_learnware_package_is_read():
    reference = {
        "Data": {"Type": "Class", "Values": ["Table"]},
        "Task": {"Type": "Class", "Values": ["Regression"]},
        "Library": {"Type": "Class", "Values": ["Scikit-learn"]},
        "License": {"Type": "Class", "Values": ["MIT"]},
        "Scenario": {"Type": "Tag", "Values": ["Business", "Financial"]},
        "Name": {"Type": "String", "Values": "House prices"},
        "Description": {"Type": "String", "Values": "Prices of flats in Lyon from 12 features"},
        "Input": {"Dimension": 12, "Description": {"0": "floor area in square metres"}},
        "Output": {"Dimension": 1, "Description": {}},
    }
    assert SemanticSpecification.parse(reference) == semantic()
    reference["Data"]["Values"] = ["Table", "Text"]
    assert refused(reference) == "bad-semantic"


def test_classes_are_named_by_their_descriptions():
    named = semantic(task="Classification", output={"dimension": 3, "description": {"0": "cat", "2": "dog"}})
    assert named.classes == ("cat", "1", "dog")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, True),
        ({"data": "Table", "task": "Regression", "library": "scikit-learn", "licence": "MIT"}, True),
        ({"data": "Image"}, False),
        ({"licence": "GPL-3.0"}, False),
        ({"scenario": ["Health", "Financial"]}, True),
        ({"scenario": ["Health"]}, False),
        ({"input_dimension": 12, "output_dimension": 1}, True),
        ({"input_dimension": 11}, False),
        ({"text": "house PRICES"}, True),
        ({"text": "flats in Lyon"}, True),
        ({"text": "chest x-ray segmentation"}, False),
    ],
)
def test_a_query_is_met_or_not(query, found):
    assert (matches(SemanticQuery.parse(query), semantic()) is not None) is found


def test_rough_text_counts_from_a_partial_ratio_of_75():
    # The best part for "house pricez" is "house price": 2 * 11 / (12 + 11). Of "hxxse pxxces" 8 letters fit: too few.
    assert matches(SemanticQuery(text="house pricez"), semantic()) == pytest.approx(22 / 23)
    assert matches(SemanticQuery(text="hxxse pxxces"), semantic()) is None
    assert matches(SemanticQuery(text="house prices"), semantic()) == 1.0


def test_queries_with_unknown_tags_are_refused():
    with pytest.raises(BadSpecification) as caught:
        SemanticQuery.parse({"scenario": ["Weather"]})
    assert caught.value.code == "unknown-tag"
    with pytest.raises(BadSpecification) as caught:
        SemanticQuery.parse({"colour": "red"})
    assert caught.value.code == "bad-semantic"


def test_every_word_of_the_vocabulary_is_accepted():
    for field in ("library", "licence", "task"):
        for word in vocabulary()[field]:
            changes = {field: word, **({"output": {"dimension": 2}} if field == "task" else {})}
            assert getattr(semantic(**changes), field) == word
    assert semantic(scenario=vocabulary()["scenario"]).scenario == tuple(vocabulary()["scenario"])


def test_words_do_not_load_torch():
    """The family's face is left out: what it loads is not the dock's doing."""
    folder = Path(didact.reusing.dock.__file__).parent.parent
    code = f"""
import sys, types
face = types.ModuleType("didact.reusing")
face.__path__ = [{str(folder)!r}]
sys.modules["didact.reusing"] = face
from didact.reusing.dock import Index, Specification, SemanticSpecification, vocabulary
print([name for name in ("torch", "sklearn", "fastapi") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", didact.reusing.dock.__all__)
def test_every_name_of_the_face_is_there(name):
    assert getattr(didact.reusing.dock, name).__name__ == name

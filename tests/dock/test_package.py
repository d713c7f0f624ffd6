"""Opening packages: what is whole is read, what is hostile is refused by name, and nothing is run or written."""

import io
import json
import os
import pickle
import random
import stat
import struct
import zipfile

import numpy as np
import parcels
import pytest
from parcels import BAIT

from didact.core.errors import BadInput
from didact.reusing.dock.errors import BadPackage, NotAllowed, TooLarge
from didact.reusing.dock.package import PackageLimits, load_package, open_package


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return parcels.package(tmp_path_factory.mktemp("good") / "mlp.zip", parcels.mlp())


def refusal(path, limits=None):
    with pytest.raises((BadPackage, TooLarge)) as caught:
        open_package(path, limits or PackageLimits())
    assert str(caught.value).endswith(".") or "." in str(caught.value)
    return caught.value.code


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {BAIT}",)


def test_what_was_written_is_read(good):
    package = open_package(good)
    assert package.tier == "safe"
    assert package.input_shape == (6,)
    assert package.output_shape == (3,)
    assert package.semantic.name == "a model"
    assert package.specification.digest == parcels.statistics().digest
    assert set(package.files) == {"learnware.yaml", "semantic.json", "stat.json", "model.safetensors"}
    assert package.size == good.stat().st_size
    assert package.manifest.model.architecture == "mlp"


def test_the_same_model_gives_the_same_package(good, tmp_path):
    again = parcels.package(tmp_path / "again.zip", parcels.mlp())
    assert again.read_bytes() == good.read_bytes()


def test_a_package_can_be_read_from_a_stream(good):
    with good.open("rb") as stream:
        assert open_package(stream).sha256 == open_package(good).sha256


def test_opening_writes_nothing(good):
    before = sorted(good.parent.iterdir())
    open_package(good)
    assert sorted(good.parent.iterdir()) == before


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06"])
def test_not_a_zip(tmp_path, content):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert refusal(path) == "not-a-zip"


def test_a_missing_file_is_not_a_zip(tmp_path):
    assert refusal(tmp_path / "nothing.zip") == "not-a-zip"


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.95, 0.999])
def test_a_truncated_package_is_refused(good, tmp_path, keep):
    path = tmp_path / "cut.zip"
    data = good.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert refusal(path) == "not-a-zip"


def test_damaged_bytes_never_escape_as_another_error(good, tmp_path):
    data, rng = good.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        spoiled = bytearray(data)
        for _ in range(rng.choice([1, 5, 40])):
            spoiled[rng.randrange(len(spoiled))] = rng.randrange(256)
        path = tmp_path / "spoiled.zip"
        path.write_bytes(bytes(spoiled))
        try:
            open_package(path)
        except (BadPackage, TooLarge):
            refused += 1
    assert refused > 100


def test_a_flipped_byte_in_the_weights_is_noticed(good, tmp_path):
    with zipfile.ZipFile(good) as archive:
        entry = archive.getinfo("model.safetensors")
    data = bytearray(good.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + entry.file_size - 5] ^= 1
    path = tmp_path / "flipped.zip"
    path.write_bytes(bytes(data))
    assert refusal(path) == "corrupt-entry"


@pytest.mark.parametrize(
    "name, code",
    [
        ("/etc/passwd", "absolute-path"),
        ("\\windows\\x", "absolute-path"),
        ("C:/x", "absolute-path"),
        ("../x", "path-traversal"),
        ("a/../../x", "path-traversal"),
        ("a\\..\\..\\x", "path-traversal"),
        ("a\nb", "bad-name"),
        ("x" * 300, "bad-name"),
    ],
)
def test_names_that_lead_elsewhere(good, tmp_path, name, code):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", **{name: b"hello"})) == code
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize(
    "mode, code", [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "special-file"), (stat.S_IFCHR, "special-file")]
)
def test_links_and_devices(good, tmp_path, mode, code):
    path = parcels.respoil(good, tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        entry = zipfile.ZipInfo("README")
        entry.external_attr = (mode | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert refusal(path) == code


@pytest.mark.parametrize("first, second", [("README", "README"), ("README", "readme"), ("a", "a/b")])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates(good, tmp_path, first, second):
    path = parcels.respoil(good, tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(first, "1")
        archive.writestr(second, "2")
    assert refusal(path) == "duplicate-entry"


def test_encrypted(good, tmp_path):
    data = bytearray(good.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    path = tmp_path / "x.zip"
    path.write_bytes(bytes(data))
    assert refusal(path) == "encrypted"


def test_unusual_compression(good, tmp_path):
    path = parcels.respoil(good, tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README", "hello", compress_type=zipfile.ZIP_LZMA)
    assert refusal(path) == "compression"


def test_too_many_files(good, tmp_path):
    path = parcels.respoil(good, tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(10_001):
            archive.writestr(f"d/{i}", b"")
    assert refusal(path) == "too-many-files"


def test_oversize(good):
    assert refusal(good, PackageLimits(archive=100)) == "oversize"
    assert refusal(good, PackageLimits(manifest=10)) == "oversize"


def bomb(good, path, size=200 * 2**20):
    parcels.respoil(good, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("README", "w") as stream:
        for _ in range(size // 2**20):
            stream.write(bytes(2**20))
    return path


def test_a_zip_bomb(good, tmp_path):
    path = bomb(good, tmp_path / "bomb.zip")
    assert path.stat().st_size < 2**20
    assert refusal(path) == "zip-bomb"


def test_a_zip_bomb_that_lies_about_its_size(good, tmp_path):
    path = bomb(good, tmp_path / "bomb.zip")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)  # the uncompressed size
    path.write_bytes(bytes(data))
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("README").file_size == 1000
    # Python's reader stops where the header says, and then misses the checksum.
    assert refusal(path) in ("zip-bomb", "corrupt-entry")


def test_many_entries_that_are_fine_alone_and_a_bomb_together(good, tmp_path):
    path = parcels.respoil(good, tmp_path / "x.zip")
    noise = np.random.default_rng(0).bytes(2**19)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(40):
            archive.writestr(f"readme-{i}", noise)
    assert refusal(path, PackageLimits(total=10 * 2**20)) == "zip-bomb"


def test_repeated_letters_below_a_megabyte_are_no_bomb(good, tmp_path):
    path = bomb(good, tmp_path / "x.zip", size=2**20)
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("README").file_size == 2**20
    assert "README" in open_package(path).files


def test_a_manifest_is_needed(good, tmp_path):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", learnware__yaml=None)) == "no-manifest"


@pytest.mark.parametrize(
    "text, code",
    [
        ("a: [1, 2", "bad-yaml"),
        ("\x00\x01", "bad-yaml"),
        ("!!python/object/apply:os.system ['touch bait']", "bad-yaml"),
        ("a: &x [1]\nb: [*x, *x]", "bad-yaml"),
        ("[" * 5000, "bad-yaml"),
        ("a: " + "{a: " * 100 + "1" + "}" * 100, "bad-yaml"),
        ("- 1", "bad-manifest"),
        ("", "bad-manifest"),
        ("format: 1", "bad-manifest"),
        ("format: 2\nmodel: {runtime: torch}", "bad-manifest"),
        ("format: 1\nmodel: {runtime: perl}", "unknown-runtime"),
    ],
)
def test_manifests_that_cannot_be_used(good, tmp_path, text, code):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", learnware__yaml=text)) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"tier": "code"},
        {"input_shape": [0]},
        {"input_shape": None},
        {"output_shape": None},
        {"input_shape": [2**40]},
        {"stat_specifications": []},
        {"surprise": 1},
        {"format": "x"},
    ],
)
def test_manifests_with_fields_that_cannot_be(good, tmp_path, changes):
    assert refusal(parcels.with_manifest(good, tmp_path / "x.zip", **changes)) == "bad-manifest"


def test_files_that_the_manifest_names_must_be_there(good, tmp_path):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", model__safetensors=None)) == "missing-file"
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", stat__json=None)) == "missing-file"


@pytest.mark.parametrize("name", ["model.py", "x/README", "weights.npz"])
def test_files_without_a_place(good, tmp_path, name):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", **{name: b"x"})) == "unexpected-file"


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_under_any_name(good, tmp_path, protocol):
    data = pickle.dumps(Evil(), protocol=protocol)
    for name in ("README", "model.safetensors", "weights.pkl"):
        assert refusal(parcels.respoil(good, tmp_path / "x.zip", **{name: data})) == "pickle", name


def test_torch_and_joblib_files_are_pickles(good, tmp_path):
    import joblib
    import torch

    stream = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, stream)
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", README=stream.getvalue())) == "pickle"
    joblib.dump(Evil(), tmp_path / "plain")
    assert refusal(parcels.respoil(good, tmp_path / "y.zip", README=(tmp_path / "plain").read_bytes())) == "pickle"


def test_plain_texts_are_no_pickles(good, tmp_path):
    for text in ("(see below) This model ...", "cats and dogs.", "I. Introduction", "Very good", "].", "0." * 99):
        assert "README" in open_package(parcels.respoil(good, tmp_path / "x.zip", README=text)).files


@pytest.mark.parametrize(
    "semantic",
    [None, "{", "[]", "[" * 100_000, json.dumps(parcels.words(task="Cooking")), json.dumps(parcels.words(input=None))],
)
def test_bad_semantic(good, tmp_path, semantic):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", semantic__json=semantic)) == "bad-semantic"


def spoiled(**changes):
    return json.dumps({**parcels.statistics().to_json(), **changes})


@pytest.mark.parametrize(
    "statistics",
    [
        "",
        "{}",
        "[" * 100_000,
        spoiled(beta=[0.5, 0.5]),
        spoiled(beta=[-1.0, 1.0, 0.5, 0.5]),
        spoiled(z=[[float("nan")] * 6] * 4),
        spoiled(z=[[1.0] * 6] * 3 + [[1.0]]),
        spoiled(gamma=-1.0),
        spoiled(type="rkme-image"),
        spoiled(type="pickle"),
    ],
)
def test_bad_specification(good, tmp_path, statistics):
    assert refusal(parcels.respoil(good, tmp_path / "x.zip", stat__json=statistics)) == "bad-specification"


def test_words_statistics_and_shapes_must_agree(good, tmp_path):
    five = json.dumps(parcels.statistics(dimension=5).to_json())
    assert refusal(parcels.respoil(good, tmp_path / "a.zip", stat__json=five)) == "dimension-mismatch"
    assert refusal(parcels.with_manifest(good, tmp_path / "b.zip", input_shape=[5])) == "dimension-mismatch"
    assert refusal(parcels.with_manifest(good, tmp_path / "c.zip", input_shape=[])) == "dimension-mismatch"
    assert refusal(parcels.with_manifest(good, tmp_path / "d.zip", output_shape=[4])) == "dimension-mismatch"
    regression = json.dumps(parcels.words(task="Regression", output={"dimension": 2}))
    assert refusal(parcels.respoil(good, tmp_path / "e.zip", semantic__json=regression)) == "dimension-mismatch"


def test_the_layout_of_the_learnware_package_is_read_as_code(tmp_path):
    path = parcels.code(tmp_path)
    reference = tmp_path / "reference.zip"
    manifest = """
model: {class_name: Model, kwargs: {}}
stat_specifications:
  - {module_path: learnware.specification, class_name: RKMETableSpecification, file_name: stat.json, kwargs: {}}
"""
    chosen = {"Data": "Table", "Task": "Classification", "Library": "Scikit-learn", "License": "MIT"}
    tags = {name: {"Type": "Class", "Values": [value]} for name, value in chosen.items()}
    semantic = {
        **tags,
        "Scenario": {"Type": "Tag", "Values": ["Health"]},
        "Name": {"Type": "String", "Values": "theirs"},
        "Description": {"Type": "String", "Values": ""},
        "Input": {"Dimension": 6, "Description": {"0": "age"}},
        "Output": {"Dimension": 3, "Description": {}},
    }
    statistics = parcels.statistics()
    stat_json = {"type": "RKMETableSpecification", "gamma": 0.1, "z": statistics.z.tolist(), "beta": [0.25] * 4}
    parcels.respoil(path, reference, learnware__yaml=manifest, semantic__json=None, stat__json=json.dumps(stat_json),
                    semantic_specification__json=json.dumps(semantic))  # fmt: skip
    package = open_package(reference)
    assert package.tier == "code"
    assert package.semantic.name == "theirs"
    assert package.semantic.scenario == ("Health",)
    assert package.input_shape is None
    assert np.array_equal(package.specification.z, statistics.z)


def test_code_is_not_loaded_by_default(tmp_path):
    path = parcels.code(tmp_path, source=f"open('{BAIT}', 'w')")
    with pytest.raises(NotAllowed, match="allow_code"):
        load_package(path)


def test_a_package_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(BadPackage):
        parcels.package(tmp_path / "x.zip", parcels.mlp(), semantic=parcels.words(input={"dimension": 5}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", [object(), 3, "no/such/file.onnx"])
def test_only_known_models_can_be_packaged(tmp_path, model):
    with pytest.raises(BadInput):
        parcels.package(tmp_path / "x.zip", model)


def test_a_network_of_ones_own_class_cannot_go_without_code(tmp_path):
    from torch import nn

    with pytest.raises(BadInput, match="ONNX"):
        parcels.package(tmp_path / "x.zip", nn.Linear(6, 3))


def test_a_licence_can_be_given(tmp_path):
    path = parcels.package(tmp_path / "x.zip", parcels.mlp(), licence="MIT", readme="# Hello")
    assert open_package(path).semantic.licence == "MIT"
    assert open_package(path).read("README.md") == b"# Hello"


def test_hidden_files_and_caches_stay_at_home(tmp_path):
    home = tmp_path / "code"
    for name in (".env", "__pycache__/x.pyc", "part/inner.py"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("secret = 1")
    (home / "__init__.py").write_text("class Model: pass")
    package = open_package(parcels.package(tmp_path / "x.zip", home, class_name="Model", output_shape=(3,)))
    assert set(package.files) == {"__init__.py", "part/inner.py", "learnware.yaml", "semantic.json", "stat.json"}

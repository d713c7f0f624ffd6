"""Real packages for the tests: small models of every runtime, and ways to spoil them."""

import json
import os
import tempfile
import textwrap
import zipfile
from pathlib import Path

import numpy as np

from didact.reusing.dock.package import write_package
from didact.reusing.dock.specification import Specification

FEATURES, CLASSES = 6, 3
#: what a hostile package tries to write, outside of where it is opened
BAIT = Path(tempfile.gettempdir()).resolve() / f"didact-was-here-{os.getpid()}"


def rows(n: int = 40, features: int = FEATURES) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, features)).astype(np.float32)


def labels(n: int = 40) -> np.ndarray:
    return np.arange(n) % CLASSES


def statistics(kind: str = "rkme-table", dimension: int = FEATURES, encoder: str = "") -> Specification:
    z = np.random.default_rng(2).standard_normal((4, dimension))
    return Specification(kind, 0.1, encoder, z, np.full(4, 0.25))


def words(**changes) -> dict:
    plain = {
        "name": "a model",
        "data": "Table",
        "task": "Classification",
        "library": "Others",
        "input": {"dimension": FEATURES},
        "output": {"dimension": CLASSES},
    }
    return {name: value for name, value in {**plain, **changes}.items() if value is not None}


def mlp():
    import torch

    from didact.core.recipe import seeded
    from didact.models.small import mlp as build

    with seeded(0):
        model = build(FEATURES, CLASSES, (8,))
    assert isinstance(model, torch.nn.Module)
    return model.eval()


def linear_graph(outputs: str = "scores", features: int = FEATURES, classes: int = CLASSES) -> bytes:
    """An ONNX model x @ W + b."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weight = numpy_helper.from_array(rng.standard_normal((features, classes)).astype(np.float32), "W")
    bias = numpy_helper.from_array(rng.standard_normal(classes).astype(np.float32), "b")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "W", "b"], [outputs])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", features])],
        [helper.make_tensor_value_info(outputs, TensorProto.FLOAT, ["n", classes])],
        [weight, bias],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(5, max_depth=4, random_state=0).fit(rows(), labels())


def package(path: Path, model, **changes) -> Path:
    settings = {"semantic": words(), "specification": statistics(), "input_shape": (FEATURES,), **changes}
    return write_package(path, model, **settings)


CONSTANT = """
    import numpy as np

    class Model:
        input_shape, output_shape = (6,), (3,)
        bias = 0.0

        def predict(self, x):
            {predict}

        def fit(self, x, y):
            self.bias = float(np.mean(y))

        def finetune(self, x, y):
            self.bias += 1.0
"""


def code(folder: Path, predict: str = "return x[:, :3] + self.bias", source: str | None = None, **changes) -> Path:
    """A package with code whose `predict` has this body."""
    home = folder / "code"
    home.mkdir(parents=True)
    text = textwrap.dedent(CONSTANT)
    body = textwrap.indent(textwrap.dedent(predict).strip(), " " * 8).strip()
    (home / "__init__.py").write_text(source if source is not None else text.replace("{predict}", body))
    settings = {"class_name": "Model", "output_shape": (3,), **changes}
    return package(folder / "code.zip", home, **settings)


def respoil(path: Path, target: Path, **files: bytes | str | None) -> Path:
    """A copy of a package with files replaced, added or (None) left out. `__` in a name stands for a dot."""
    changed = {name.replace("__", "."): data for name, data in files.items()}
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            if name not in changed:
                new.writestr(name, old.read(name))
        for name, data in changed.items():
            if data is not None:
                new.writestr(name, data)
    return target


def manifest(path: Path) -> dict:
    import yaml

    with zipfile.ZipFile(path) as archive:
        return yaml.safe_load(archive.read("learnware.yaml"))


def with_manifest(path: Path, target: Path, **changes) -> Path:
    return respoil(path, target, learnware__yaml=json.dumps({**manifest(path), **changes}))

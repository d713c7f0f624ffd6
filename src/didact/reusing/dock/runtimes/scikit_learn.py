"""scikit-learn estimators in skops' format, made of scikit-learn's own types only."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from didact.core.errors import BadInput, MissingExtra
from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.package.opening import Package
from didact.reusing.dock.runtimes.base import Learnware
from didact.reusing.dock.runtimes.trees import check_trees

ESTIMATOR = "model.skops"

#: Types inside estimators that skops leaves to us. All hold numbers; the trees' numbers are checked after loading.
_KNOWN = frozenset(
    [
        "sklearn.tree._tree.Tree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        *(
            f"sklearn.gaussian_process.kernels.{name}"
            for name in ("CompoundKernel", "ConstantKernel", "DotProduct", "ExpSineSquared", "Exponentiation", "Matern",
                         "Product", "RBF", "RationalQuadratic", "Sum", "WhiteKernel")
        ),
        *(f"sklearn.neural_network._stochastic_optimizers.{name}" for name in ("AdamOptimizer", "SGDOptimizer")),
        *(f"sklearn._loss.loss.{name}" for name in ("HalfTweedieLoss", "HalfTweedieLossIdentity")),
    ]
)  # fmt: skip
_MODULES = ("sklearn.", "numpy", "builtins", "scipy.", "collections", "functools")
_RATIO, _TOTAL, _SCHEMA = 100, 2**31, 64 * 2**20


class SklearnLearnware(Learnware):
    """A fitted estimator. Classes are answered by their position in `classes_`; scores are `predict_proba`'s.

    `fit` trains a fresh estimator with the same settings on labels that are numbers of classes (or values).
    """

    def __init__(self, package: Package) -> None:
        assert package.input_shape is not None
        assert package.output_shape is not None
        super().__init__(package, package.input_shape, package.output_shape)
        self._estimator = load(package.read(package.manifest.model.file))
        self._classifies = package.semantic.task == "Classification"
        if self._classifies and not hasattr(self._estimator, "classes_"):
            raise BadPackage("bad-estimator", "A Classification needs a fitted classifier, but this has no classes_.")
        if self._classifies and self.output_shape and not hasattr(self._estimator, "predict_proba"):
            raise BadPackage("bad-estimator", "This classifier gives no probabilities. Declare the output shape ().")

    def fit(self, x: Any, y: np.ndarray) -> None:
        from sklearn.base import clone

        inputs = self._checked(x)
        if len(inputs) == 0 or len(inputs) != len(y):
            raise BadInput(f"Each input needs a label; {len(inputs)} inputs and {len(y)} labels came.")
        self._estimator = clone(self._estimator).fit(inputs, np.asarray(y))

    def _predict(self, inputs: Any) -> np.ndarray:
        if not self._classifies:
            return np.asarray(self._estimator.predict(inputs))
        if self.output_shape not in ((), (1,)):
            return np.asarray(self._estimator.predict_proba(inputs))
        classes = np.asarray(self._estimator.classes_)
        order = np.argsort(classes)
        return order[np.searchsorted(classes, np.asarray(self._estimator.predict(inputs)), sorter=order)]


def dump(estimator: Any) -> bytes:
    """An estimator in skops' format."""
    return bytes(_skops().dumps(estimator))


def load(data: bytes) -> Any:
    """An estimator from skops' format.

    Errors: BadPackage with code `pickle` when it holds anything but scikit-learn's types and arrays (among these what
    could run code), `zip-bomb`, or `bad-estimator` when it is broken or its trees point outside themselves.
    """
    skops = _skops()
    _check_archive(data)
    try:
        unknown = sorted(set(skops.get_untrusted_types(data=data)) - _KNOWN)
        if unknown:
            raise BadPackage(
                "pickle",
                f"The estimator holds types that are not known to be harmless: {', '.join(unknown)[:300]}. Use "
                "scikit-learn's own estimators, ONNX, or a package with code.",
            )
        estimator = skops.loads(data, trusted=sorted(_KNOWN))
    except (BadPackage, MemoryError):
        raise
    except Exception as error:
        raise BadPackage("bad-estimator", f"The estimator cannot be loaded: {str(error)[:300]}") from None
    if not hasattr(estimator, "predict"):
        raise BadPackage("bad-estimator", f"A {type(estimator).__name__} has no `predict`. Package a fitted estimator.")
    check_trees(estimator)
    return estimator


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise MissingExtra("skops", "dock") from None
    return skops.io


def _check_archive(data: bytes) -> None:
    """Sizes, and a second look at the types: nothing may come from a module outside the numeric libraries."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
            if total > min(_TOTAL, max(2**20, _RATIO * len(data))):
                raise BadPackage("zip-bomb", f"The estimator unpacks to {total} bytes.")
            if archive.getinfo("schema.json").file_size > _SCHEMA:
                raise BadPackage("bad-estimator", "The estimator's description is too long.")
            schema = json.loads(archive.read("schema.json"))
    except BadPackage:
        raise
    except Exception as error:
        raise BadPackage("bad-estimator", f"The file is not in skops' format: {str(error)[:200]}") from None
    for name in _modules(schema):
        if not (name + ".").startswith(_MODULES):
            raise BadPackage("pickle", f"The estimator uses {name[:100]!r}; only scikit-learn may be used.")


def _modules(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                if key in ("__module__", "module_path") and isinstance(value, str):
                    yield value
                elif isinstance(value, dict | list):
                    waiting.append(value)
        elif isinstance(part, list):
            waiting += part

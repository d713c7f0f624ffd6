"""From a model in memory (or a folder of code) to the files of a package."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from didact.core.errors import BadInput
from didact.reusing.dock.semantics import SemanticSpecification

_LEFT_OUT = ("__pycache__", "learnware.yaml")

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Content:
    """The model's part of a package."""

    tier: str
    model: dict[str, Any]  #: the manifest's entry
    files: dict[str, bytes]
    output_shape: Shape | None


def content_of(model: Any, words: SemanticSpecification, input_shape: Shape, output_shape: Shape | None) -> Content:
    """Recognise a network, an ONNX model or a scikit-learn estimator, and run it once where its output shape is asked.

    Errors: BadInput for anything else.
    """
    if isinstance(model, bytes | str | Path) or hasattr(model, "SerializeToString"):
        return _graph(_onnx_bytes(model), words, input_shape, output_shape)
    if hasattr(model, "state_dict") and hasattr(model, "forward"):
        return _network(model, words, input_shape, output_shape)
    if hasattr(model, "get_params") and hasattr(model, "predict"):
        return _estimator(model, words, input_shape, output_shape)
    raise BadInput(
        "A package is made of a network from didact.models.small.build, an ONNX model, a fitted scikit-learn estimator "
        f"or a folder of Python code, but a {type(model).__name__} was given. Export it to ONNX, or write a class."
    )


def code(folder: Path, class_name: str | None, kwargs: dict[str, Any], file: str) -> Content:
    """All files of a folder, but for caches and hidden ones."""
    if not class_name:
        raise BadInput("A folder of code needs `class_name`, the class to instantiate. Pass it.")
    if not (folder / file).is_file():
        raise BadInput(f"{folder} holds no {file}, which should define {class_name}. Pass `file=`.")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink():
            raise BadInput(f"{path} is a link. A package holds the files themselves: replace it.")
        if path.is_file() and not any(part.startswith(".") or part in _LEFT_OUT for part in name.parts):
            files[name.as_posix()] = path.read_bytes()
    return Content("code", {"runtime": "python", "file": file, "class_name": class_name, "kwargs": kwargs}, files, None)


def _network(model: Any, words: SemanticSpecification, input_shape: Shape, output_shape: Shape | None) -> Content:
    import torch

    from didact.reusing.dock.runtimes.pytorch import WEIGHTS, weights_of

    made = getattr(model, "architecture", None)
    if not (isinstance(made, dict) and set(made) == {"name", "options"}):
        raise BadInput(
            f"A {type(model).__name__} cannot be built by name, so a package without code cannot hold it. Make it with "
            "didact.models.small.build, export it to ONNX, or write a package with code."
        )
    if words.data == "Text":
        raise BadInput("A network takes numbers, not texts. Export model and tokenizer to ONNX, or write code.")
    if output_shape is None:
        still = copy.deepcopy(model).cpu().eval()
        try:
            with torch.inference_mode():
                output_shape = tuple(still(torch.zeros(1, *input_shape)).shape[1:])
        except (RuntimeError, ValueError, IndexError) as error:
            raise _does_not_take(input_shape, error) from None
    entry = {"runtime": "torch", "file": WEIGHTS, "architecture": made["name"], "options": dict(made["options"])}
    return Content("safe", entry, {WEIGHTS: weights_of(model)}, output_shape)


def _onnx_bytes(model: Any) -> bytes:
    if isinstance(model, bytes):
        return model
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            raise BadInput(f"There is no file or folder {model}.")
        return Path(model).read_bytes()
    return bytes(model.SerializeToString())


def _graph(graph: bytes, words: SemanticSpecification, input_shape: Shape, output_shape: Shape | None) -> Content:
    from didact.reusing.dock.runtimes.onnx_graph import GRAPH, output_of, session

    made = session(graph)
    if output_shape is None:
        shape = next(node.shape for node in made.get_outputs() if node.name == output_of(made, _likely(words)))[1:]
        if not all(isinstance(length, int) for length in shape):
            raise BadInput(f"The graph leaves its output's shape open ({shape}). Pass output_shape.")
        output_shape = tuple(shape)
    return Content("safe", {"runtime": "onnx", "file": GRAPH}, {GRAPH: graph}, output_shape)


def _estimator(model: Any, words: SemanticSpecification, input_shape: Shape, output_shape: Shape | None) -> Content:
    from didact.reusing.dock.runtimes.scikit_learn import ESTIMATOR, dump, load

    data = dump(model)
    load(data)  # refuses what a dock would refuse
    if output_shape is None:
        output_shape = _likely(words) if hasattr(model, "predict_proba") else None
    if output_shape is None:
        sample: Any = ["a"] if words.data == "Text" else np.zeros((1, *input_shape))
        try:
            output_shape = np.asarray(model.predict(sample)).shape[1:]
        except (ValueError, TypeError) as error:
            raise _does_not_take(input_shape, error) from None
    return Content("safe", {"runtime": "skops", "file": ESTIMATOR}, {ESTIMATOR: data}, output_shape)


def _likely(words: SemanticSpecification) -> Shape | None:
    """A score for each class, where there are classes."""
    return (words.output.dimension,) if words.task == "Classification" and words.output else None


def _does_not_take(input_shape: Shape, error: Exception) -> BadInput:
    return BadInput(f"The model does not take inputs of shape {input_shape}: {str(error).splitlines()[0]}")

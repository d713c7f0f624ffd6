"""ONNX graphs, run on the processor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from didact.core.errors import MissingExtra
from didact.reusing.dock.errors import BadPackage
from didact.reusing.dock.package.opening import Package
from didact.reusing.dock.runtimes.base import Learnware

GRAPH = "model.onnx"
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class OnnxLearnware(Learnware):
    """A graph with one input and its first numeric output. It cannot be trained."""

    def __init__(self, package: Package) -> None:
        assert package.input_shape is not None
        assert package.output_shape is not None
        super().__init__(package, package.input_shape, package.output_shape)
        self._session = session(package.read(package.manifest.model.file))
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or (inputs[0].type not in _TYPES and not self._reads_strings(inputs[0])):
            raise BadPackage("bad-graph", "The graph must have one input, a tensor of numbers (or strings for texts).")
        self._input = inputs[0]
        self._output = output_of(self._session, package.output_shape)

    def _predict(self, inputs: Any) -> np.ndarray:
        if self.takes_text:
            array = np.array(inputs, dtype=object)
            array = array.reshape(len(array), *(1,) * (len(self._input.shape) - 1))
        else:
            array = np.ascontiguousarray(inputs, dtype=_TYPES[self._input.type])
        fixed = self._input.shape[0] if self._input.shape else None
        # A graph exported for a fixed number of inputs gets them that many at a time.
        if isinstance(fixed, int) and fixed != len(array):
            return self._in_portions(array, fixed)
        return np.asarray(self._session.run([self._output], {self._input.name: array})[0])

    def _in_portions(self, array: np.ndarray, size: int) -> np.ndarray:
        padded = np.concatenate([array, np.repeat(array[-1:], -len(array) % size, axis=0)])
        made = [
            np.asarray(self._session.run([self._output], {self._input.name: padded[i : i + size]})[0])
            for i in range(0, len(padded), size)
        ]
        return np.concatenate(made)[: len(array)]

    def _reads_strings(self, node: Any) -> bool:
        return self.takes_text and node.type == "tensor(string)"


def session(graph: bytes) -> Any:
    """A runtime session for a graph that needs no other file.

    Errors: BadPackage `bad-graph` when it is no ONNX model, refers to files or uses operators that are not ONNX's.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "dock") from None
    _refuse_outside_data(graph)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if any(word in str(error).lower() for word in ("alloc", "memory")):
            raise MemoryError(str(error)) from None
        raise BadPackage("bad-graph", f"The graph cannot be loaded: {str(error)[:300]}") from None


def output_of(made: Any, wanted: tuple[int, ...] | None) -> str:
    """The name of the output that is a tensor of numbers; where there are labels and scores, the one that fits."""
    numeric = [node for node in made.get_outputs() if node.type in _TYPES]
    if not numeric:
        raise BadPackage("bad-graph", "The graph has no output that is a tensor of numbers.")
    fitting = [node for node in numeric if wanted is not None and len(node.shape) == 1 + len(wanted)]
    return str((fitting or numeric)[0].name)


def _refuse_outside_data(graph: bytes) -> None:
    try:
        import onnx
    except ImportError:
        raise MissingExtra("onnx", "dock") from None
    try:
        model = onnx.load_model_from_string(graph)
    except Exception as error:
        raise BadPackage("bad-graph", f"The file is not an ONNX model: {str(error)[:200]}") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in _tensors(model)):
        raise BadPackage("bad-graph", "The graph refers to data in other files. Export it as one file.")


def _tensors(message: Any) -> Iterator[Any]:
    """All tensors in a model, also in subgraphs, functions and attributes."""
    import onnx

    waiting = [message]
    while waiting:
        part = waiting.pop()
        if isinstance(part, onnx.TensorProto):
            yield part
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                repeated = not hasattr(value, "ListFields")
                waiting += list(value) if repeated else [value]

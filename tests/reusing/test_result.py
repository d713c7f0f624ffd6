"""An answer read again by a process that knows no method yet, as a user's next session does."""

import subprocess
import sys

import numpy as np
import torch

from didact.core import registry
from didact.models.small import mlp
from didact.reusing import ModelRecord, Task, UniformEnsemble


def test_a_kept_answer_is_read_in_a_new_process(tmp_path):
    models = [
        ModelRecord.of(mlp(3, 2, (4,)), name, classes=classes, input_shape=(3,))
        for name, classes in (("a", ("x", "y")), ("b", ("y", "z")))
    ]
    data = torch.utils.data.TensorDataset(torch.rand(5, 3))
    answer = UniformEnsemble().reuse(models, Task(data=data, classes=("x", "y", "z")))
    answer.save(tmp_path / "answer")
    np.save(tmp_path / "x.npy", data.tensors[0].numpy())
    reader = registry.get_family("reusing").reader
    module, name, method = reader.rsplit(".", 2)
    program = f"""
import numpy as np
from {module} import {name}
found = {name}.{method}({str(tmp_path / "answer")!r})
np.save({str(tmp_path / "y.npy")!r}, found.predict(np.load({str(tmp_path / "x.npy")!r})))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert np.array_equal(np.load(tmp_path / "y.npy"), answer.predict(data.tensors[0]))

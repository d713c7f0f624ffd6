"""What goes to a worker and comes back: a length, then an npz of plain arrays with a JSON message among them.

What a worker sends is not trusted: entries are stored uncompressed, so nothing can grow while it is read, every
array is as long as its header says, and objects (which would have to be unpickled) are refused.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from didact.reusing.dock.sandbox.failures import SandboxFailure

Arrays = dict[str, np.ndarray]
HEAD = struct.Struct("<Q")
_MESSAGE = "message"


def pack(message: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A frame, with its length in front."""
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(message).encode(), dtype=np.uint8)
    np.savez(buffer, allow_pickle=False, **{_MESSAGE: text}, **dict(arrays or {}))
    body = buffer.getvalue()
    return HEAD.pack(len(body)) + body


def unpack(body: bytes) -> tuple[dict[str, Any], Arrays]:
    """A frame without its length.

    Errors: SandboxFailure `bad-answer` when it is anything but what `pack` writes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            arrays = {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in archive.infolist()}
        message = json.loads(arrays.pop(_MESSAGE).tobytes())
    except SandboxFailure:
        raise
    except Exception as error:
        raise SandboxFailure("bad-answer", f"The answer could not be read: {type(error).__name__}: {error}") from None
    if not isinstance(message, dict):
        raise SandboxFailure("bad-answer", "The answer's message is not a JSON object.")
    return message, arrays


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise SandboxFailure("bad-answer", "The answer is compressed; it must be stored as it is.")
    data = archive.read(entry)
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.kind not in "biuf":
        raise SandboxFailure("bad-answer", f"The answer holds an array of {dtype}; numbers were expected.")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise SandboxFailure("bad-answer", "The answer holds an array that is not as long as its shape says.")
    flat = np.frombuffer(data, dtype=dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()

"""Checkpoints in the Hugging Face layout, read tensor by tensor and merged shard by shard."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from didact.core.errors import BadInput
from didact.reusing.deltas.algebra import Change, Deltas, Weights, shape_of

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ABOUT = "didact.json"
#: files of other formats that hold weights: they would contradict the merged ones
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
FLOATING = {"F64", "F32", "F16", "BF16"}
BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}

#: (name, the models' deltas in float32) -> the delta of the merged model
Merge = Callable[[str, Sequence[Tensor]], Tensor]
#: looks at the deltas of all models first, where it must (a threshold over all tensors), and returns the merge
Merger = Callable[[Sequence[Mapping[str, Tensor]]], Merge]


class Checkpoint(Mapping[str, Tensor]):
    """The weights of a model folder, in one safetensors file or in shards. Each access reads one tensor.

    No file stays open between two accesses, so the memory in use is that of the tensors asked for.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.files = _files(self.folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.types: dict[str, str] = {}
        for file, names in self.shards().items():
            self._describe(file, names)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self.folder / self.files[name], framework="pt") as shard:
            tensor: Tensor = shard.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def floating(self) -> set[str]:
        return {name for name, kind in self.types.items() if kind in FLOATING}

    def shards(self) -> dict[str, list[str]]:
        """File name -> the tensors it holds, in the order of the file names."""
        found: dict[str, list[str]] = {}
        for name, file in sorted(self.files.items(), key=lambda item: item[1]):
            found.setdefault(file, []).append(name)
        return found

    def bytes_of(self, name: str) -> int:
        return int(torch.Size(self.shapes[name]).numel()) * BYTES.get(self.types[name], 1)

    @property
    def about(self) -> dict[str, Any]:
        """What `didact.json` says of the model, if it is there."""
        file = self.folder / ABOUT
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}

    def _describe(self, file: str, names: Sequence[str]) -> None:
        path = self.folder / file
        if not path.is_file():
            raise BadInput(f"{self.folder} names the shard {file} in its index, but the file is missing.")
        held = _names(path)
        with safe_open(path, framework="pt") as shard:
            for name in names:
                if name not in held:
                    raise BadInput(f"{path} lacks the tensor {name}, which the index says it holds.")
                part = shard.get_slice(name)
                self.shapes[name], self.types[name] = tuple(part.get_shape()), part.get_dtype()


def merge_checkpoints(
    base_dir: str | Path,
    model_dirs: Sequence[str | Path],
    out_dir: str | Path,
    merger: Merger,
    *,
    include: Sequence[str] = (".*",),
    exclude: Sequence[str] = (),
    changes: Sequence[Change] | None = None,
    rest: int | None = None,
    base_digest: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Merge fine-tuned checkpoints into one, tensor by tensor; the answer is sharded as the base is.

    Memory: the largest shard of the base and a few tensors for each model. Cost: one pass over all files, plus what
    the merge itself asks for. The folder appears whole or not at all, with the base's configuration and tokenizer.

    Args:
        base_dir: folder of the common ancestor.
        model_dirs: folders of the models fine-tuned from it.
        merger: how the models' deltas become one, such as `ties()` of `didact.reusing.dare`.
        changes: what happens to each model's deltas before they are merged, one function a model (see `Deltas`).
        rest: the model whose excluded tensors the answer gets (its head, say); by default they are the base's.
        base_digest: what `checkpoint_digest(base_dir)` must be. A model whose `didact.json` names its `base` is
            checked too.
        about: more to write into the answer's `didact.json`.

    Raises:
        BadInput: a folder without safetensors, names or shapes that differ, a model of another base.
    """
    base, models = Checkpoint(base_dir), [Checkpoint(folder) for folder in model_dirs]
    if not models:
        raise BadInput("At least one fine-tuned checkpoint is needed to merge.")
    if rest is not None and not 0 <= rest < len(models):
        raise BadInput(f"rest={rest} names no model: {len(models)} checkpoints are given, numbered from 0.")
    digest = _checked_base(base, models, base_digest)
    hows: Sequence[Change | None] = changes or [None] * len(models)
    sources = [
        Deltas(base, model, include=include, exclude=exclude, change=how)
        for model, how in zip(models, hows, strict=True)
    ]
    facts = {**(about or {}), "base": digest, "merged": [model.folder.name for model in models]}
    return _write(base, base if rest is None else models[rest], sources, merger(sources), Path(out_dir), facts)


def checkpoint_digest(folder: str | Path) -> str:
    """Hash of a checkpoint's weights by name, however they are sharded. Cost: one pass; memory: one tensor."""
    sha = hashlib.sha256()
    weights = Checkpoint(folder)
    for name in sorted(weights):
        value = weights[name].contiguous()
        sha.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        sha.update(value.flatten().view(torch.uint8).numpy().data if value.numel() else b"")
    return sha.hexdigest()[:24]


def _files(folder: Path) -> dict[str, str]:
    """Tensor name -> file name."""
    if (folder / INDEX).is_file():
        try:
            found = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, KeyError, TypeError):
            raise BadInput(f"{folder / INDEX} is not an index of shards: a JSON object with weight_map is.") from None
        outside = [file for file in found.values() if Path(file).name != file]
        if outside:
            raise BadInput(f"{folder / INDEX} names {outside[0]!r}, which does not lie in the same folder.")
        return dict(found)
    if (folder / SINGLE).is_file():
        return dict.fromkeys(_names(folder / SINGLE), SINGLE)
    raise BadInput(
        f"{folder} holds no safetensors checkpoint: neither {SINGLE} nor {INDEX} is there. "
        "Save the model with save_pretrained; pickled weights are not read."
    )


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as shard:
            return list(shard.keys())
    except SafetensorError as error:
        raise BadInput(f"{path} is not a readable safetensors file: {error}.") from None


def _checked_base(base: Checkpoint, models: Sequence[Checkpoint], wanted: str | None) -> str:
    named = {model.folder: str(model.about["base"]) for model in models if model.about.get("base")}
    digest = checkpoint_digest(base.folder)
    if wanted is not None and wanted != digest:
        raise BadInput(f"The base {base.folder} has the digest {digest}, but {wanted} was expected.")
    foreign = [folder for folder, theirs in named.items() if theirs != digest]
    if foreign:
        raise BadInput(
            f"{foreign[0]} says that it was fine-tuned from {named[foreign[0]]}, but the base {base.folder} is "
            f"{digest}. Models can only be merged with the base they come from."
        )
    return digest


def _write(
    base: Checkpoint, rest: Checkpoint, sources: Sequence[Deltas], merge: Merge, out: Path, about: Mapping[str, Any]
) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        merged = set(sources[0])
        plan = _plan(base, rest, merged)
        for file, names in plan.items():
            shard = {name: _one(name, base, rest, sources, merge, name in merged) for name in names}
            save_file(shard, str(scratch / file), metadata={"format": "pt"})
            del shard
        if list(plan) != [SINGLE]:
            where = {name: file for file, names in plan.items() for name in names}
            size = sum((base if name in base else rest).bytes_of(name) for name in where)
            index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
            (scratch / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
        _copy_beside(rest.folder, scratch)
        (scratch / ABOUT).write_text(json.dumps(about, indent=2, default=str), encoding="utf-8")
        scratch.chmod(0o755)
        shutil.rmtree(out, ignore_errors=True)
        scratch.replace(out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return out


def _plan(base: Checkpoint, rest: Checkpoint, merged: set[str]) -> dict[str, list[str]]:
    """File name -> tensors of the answer: the base's shards, without what the rest lacks, with what only it has."""
    plan = {
        file: [name for name in names if name in merged or name in rest.files] for file, names in base.shards().items()
    }
    last = list(plan)[-1]
    plan[last] += [name for name in rest if name not in base.files]
    return {file: names for file, names in plan.items() if names}


def _one(name: str, base: Weights, rest: Weights, sources: Sequence[Deltas], merge: Merge, is_merged: bool) -> Tensor:
    if not is_merged:
        return rest[name].contiguous()
    below = base[name]
    found = merge(name, [source[name] for source in sources])
    if tuple(found.shape) != shape_of(base, name):
        raise BadInput(f"The merge returned a tensor of {tuple(found.shape)} for {name}, not {tuple(below.shape)}.")
    return (below.float() + found).to(below.dtype).contiguous()


def _copy_beside(source: Path, target: Path) -> None:
    """Configuration, tokenizer and the like; no weights, no index, no folders."""
    for file in source.iterdir():
        weights = file.suffix in WEIGHT_FILES or file.name.endswith(".index.json")
        if file.is_file() and not weights and file.name != ABOUT:
            shutil.copy2(file, target / file.name)

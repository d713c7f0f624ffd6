"""Saving and loading models: safetensors + config, or the Hugging Face layout. Never a pickle."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from didact.core.errors import BadInput
from didact.models.small import build

WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer"


def save(model: nn.Module, folder: str | Path, about: dict[str, Any] | None = None) -> Path:
    """Write a model to a folder, whole or not at all; an older artifact there is replaced.

    A Hugging Face model is written by its own `save_pretrained`. Any other becomes `model.safetensors` and a
    `config.json` that tells how to build it again; `about` is stored beside it in `didact.json`.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if hasattr(model, "own_tensors"):
            _save_wrapper(model, scratch)
        elif hasattr(model, "save_pretrained"):
            model.save_pretrained(scratch)  # type: ignore[operator]
        else:
            save_model(model, str(scratch / WEIGHTS))
            (scratch / CONFIG).write_text(json.dumps(_describe(model), indent=2))
        if about:
            (scratch / "didact.json").write_text(json.dumps(about, indent=2, default=str))
        scratch.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.replace(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return folder


def load(folder: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Read a model that `save` or `save_pretrained` wrote, in evaluation mode.

    Args:
        into: an untrained model of the same architecture, needed when the class is the user's own: didact runs no
            code that a saved file names.
    """
    folder = Path(folder)
    config_file = folder / CONFIG
    if not config_file.is_file():
        raise BadInput(f"{folder} holds no model: {CONFIG} is missing. Expected a folder written by didact.save.")
    config = json.loads(config_file.read_text())
    if "wrapper" in config:
        return _load_wrapper(folder, config).eval()
    if "architectures" in config or "model_type" in config:
        return _load_transformers(folder, config).eval()
    if into is None:
        if "architecture" not in config:
            raise BadInput(
                f"{folder} holds a {config.get('class', 'model')}, which didact cannot build by name. "
                "Build it yourself and pass it: didact.load(folder, into=model)."
            )
        into = build(config["architecture"], **config["options"])
    try:
        load_model(into, str(folder / WEIGHTS))
    except (RuntimeError, SafetensorError, FileNotFoundError) as error:
        raise BadInput(f"The weights in {folder} do not fit {type(into).__name__}: {error}") from None
    return into.eval()


def stored_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights on disk; tensors that share memory count once."""
    seen = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return sum(seen.values())


def _describe(model: nn.Module) -> dict[str, Any]:
    made = getattr(model, "architecture", None)
    if isinstance(made, dict):
        return {"architecture": made["name"], "options": made["options"]}
    return {"class": f"{type(model).__module__}.{type(model).__qualname__}"}


def _save_wrapper(model: Any, folder: Path) -> None:
    """Each part in a folder of its own, the wrapper's tensors and options beside them."""
    for name, part in model.parts().items():
        save(part, folder / name)
    own = model.own_tensors()
    if own:
        save_file(own, str(folder / WEIGHTS))
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder / TOKENIZER)
    about = {"wrapper": model.kind, "options": model.options(), "parts": sorted(model.parts())}
    (folder / CONFIG).write_text(json.dumps(about, indent=2))


def _load_wrapper(folder: Path, config: dict[str, Any]) -> nn.Module:
    from didact.models.wrappers import get_wrapper

    parts = {name: load(folder / name) for name in config["parts"]}
    tokenizer = load_tokenizer(folder / TOKENIZER) if (folder / TOKENIZER).is_dir() else None
    model: nn.Module = get_wrapper(config["wrapper"]).assemble(parts, config["options"], tokenizer)
    if (folder / WEIGHTS).is_file():
        own = load_file(str(folder / WEIGHTS))
        unknown = model.load_state_dict(own, strict=False).unexpected_keys
        if unknown:
            raise BadInput(f"{folder} holds tensors that {config['wrapper']} does not have: {', '.join(unknown)}.")
    return model


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a model folder in the Hugging Face layout."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise BadInput(f"{folder} holds no tokenizer: {str(error).splitlines()[0]}") from None


def _load_transformers(folder: Path, config: dict[str, Any]) -> nn.Module:
    import transformers

    names = config.get("architectures") or ["AutoModel"]
    cls = getattr(transformers, names[0], None)
    if cls is None:
        raise BadInput(f"{folder} holds a {names[0]}, which the installed transformers does not know.")
    model: nn.Module = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return model

"""`didact apply`: a method on a saved model and data files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils.logging import disable_progress_bar

import didact
from didact.core import registry
from didact.core.cost import Meter
from didact.core.errors import BadInput, UnknownName
from didact.core.objective import Objective, guess_objective
from didact.core.references import import_file
from didact.data.files import load_dataset_file
from didact.data.text import TextDataset, text_dataset_from_file
from didact.forgetting import Unlearner
from didact.forgetting.language.metrics import answers
from didact.models.artifacts import TOKENIZER, load, load_tokenizer, save


def apply_method(
    reference: str,
    model_folder: Path,
    out: Path,
    forget_file: Path | None,
    retain_file: Path | None,
    target: str | None,
    architecture: str | None,
    seed: int,
    as_json: bool,
) -> int:
    # transformers would draw one for every file it reads or writes
    disable_progress_bar()  # type: ignore[no-untyped-call]
    method = registry.make_method(reference)
    if not isinstance(method, Unlearner):
        raise BadInput(f"didact apply does not know the verb of the family {method.family} yet.")
    if forget_file is None:
        raise BadInput(f"{method.card.slug} needs the data to forget: --forget FILE.")
    if out.resolve() == model_folder.resolve():
        raise BadInput("--out is the model's own folder. The original is never overwritten; choose another.")
    model = load(model_folder, into=_own(architecture))
    forget = _read(model, model_folder, forget_file, target)
    retain = _read(model, model_folder, retain_file, target) if retain_file else None
    objective = guess_objective(model, forget)
    extras: dict[str, Any] = {}
    if isinstance(forget, TextDataset):
        subjects = tuple(dict.fromkeys(item.subject for item in forget.items if item.subject))
        extras = {"text": forget.tokenizer, **({"subjects": subjects} if subjects else {})}
    with Meter() as meter:
        answer = method.unlearn(model, forget, retain, objective=objective, seed=seed, extras=extras)
    about: dict[str, Any] = {
        "method": method.card.slug,
        "settings": method.settings,
        "seed": seed,
        "cost": meter.as_dict(),
        "log": meter.log,
        "didact": didact.__version__,
    }
    save(answer, out, about)
    _copy_tokenizer(model_folder, out)
    outcome: dict[str, Any] = {"out": str(out), "seconds": meter.seconds}
    for name, data in (("forget_score", forget), ("retain_score", retain)):
        if data is not None:
            outcome[name] = {"before": _score(objective, model, data), "after": _score(objective, answer, data)}
    if as_json:
        print(json.dumps(outcome))
    else:
        for name in ("forget_score", "retain_score"):
            if name in outcome:
                print(f"{name:<13}{outcome[name]['before']:8.3f} -> {outcome[name]['after']:.3f}")
        print(f"saved to {out} after {meter.seconds:.1f} s", file=sys.stderr)
    return 0


def _read(model: nn.Module, folder: Path, file: Path, target: str | None) -> Any:
    """Texts for a causal language model, with the tokenizer of its folder; else tensors or records."""
    causal = getattr(model, "task", "") == "causal-lm" or type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    if causal and not _tokenised(file):
        longest = getattr(model.config, "max_position_embeddings", None)
        return text_dataset_from_file(file, load_tokenizer(_tokenizer_folder(folder)), max_length=longest)
    return load_dataset_file(file, target=target)


def _tokenised(file: Path) -> bool:
    """Does the file hold token ids instead of words?"""
    if not file.is_file():
        return False
    with file.open("rb") as lines:
        return file.suffix != ".jsonl" or b'"input_ids"' in lines.readline()


def _tokenizer_folder(folder: Path) -> Path:
    """A wrapper keeps its tokenizer in a folder of its own."""
    return folder / TOKENIZER if (folder / TOKENIZER).is_dir() else folder


def _score(objective: Objective, model: nn.Module, data: Any) -> float:
    """Of language models the share of questions answered with the right value; documents have no score of their own."""
    if isinstance(data, TextDataset) and data.questions is not None:
        return answers(model, data.questions).accuracy
    return objective.mean_score(model, data)


def _own(architecture: str | None) -> nn.Module | None:
    """An untrained model from the user's own function."""
    if architecture is None:
        return None
    path, mark, function = architecture.partition(".py:")
    if not mark:
        raise BadInput(f"{architecture!r} is not of the form mine.py:make_model.")
    make = getattr(import_file(Path(path + ".py")), function, None)
    if not callable(make):
        raise UnknownName(f"{path}.py has no function {function!r}.")
    model = make()
    if not isinstance(model, nn.Module):
        raise BadInput(f"{architecture} returned {type(model).__name__}; a torch module was expected.")
    return model


def _copy_tokenizer(source: Path, target: Path) -> None:
    """A Hugging Face folder keeps its tokenizer, so that the answer can be used where the model was."""
    for pattern in (
        "tokenizer*",
        "special_tokens_map.json",
        "vocab*",
        "merges.txt",
        "*.model",
        "chat_template*",
    ):
        for file in source.glob(pattern):
            if file.is_file() and not (target / file.name).exists():
                (target / file.name).write_bytes(file.read_bytes())

"""Specifications of a hub's models, made when they are first asked for and then kept in the cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.data import TensorDataset

from didact.core.cache import cache_folder, write_whole
from didact.models.workpieces import digest

if TYPE_CHECKING:
    from didact.reusing.dock import Specification


def specified(x: Tensor, kind: str = "Table", seed: int = 0, gamma: float | None = None) -> Callable[[], Specification]:
    """Gives the specification of inputs (n, ...) by which a dock finds a model; nothing is computed before."""

    @cache
    def specification() -> Specification:
        from didact.reusing.dock import Specification, specify

        key = {"specification": digest(TensorDataset(x)), "kind": kind, "seed": seed, "gamma": gamma}
        return Specification.from_json(
            remembered(key, lambda: specify(x.numpy(), kind, gamma=gamma, seed=seed).to_json())
        )

    return specification


def remembered(key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
    """Plain data (JSON) from the cache, or made now; another version of the dock's code makes it anew."""
    text = json.dumps({**key, "code": _version()}, sort_keys=True)
    file = cache_folder() / "specifications" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if not file.is_file():
        write_whole(file, [json.dumps(make(), allow_nan=False)])
    return json.loads(file.read_text(encoding="utf-8"))


@cache
def _version() -> str:
    """Hash of the code that decides specifications, mixtures and kernel widths."""
    here = Path(__file__).parent
    files = [*(here / "dock" / "specification").glob("*.py"), *(here / "dock" / "search").glob("*.py")]
    sha = hashlib.sha256()
    for file in sorted([*files, here / "learnware_dock" / "tuning.py"]):
        sha.update(file.read_bytes())
    return sha.hexdigest()[:16]

"""Tables with different columns in one space: a transformer over (meaning of a feature, value) pairs.

A dock trains one on the reduced points of all its tables. It never sees a row of anyone's data.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from didact.core.errors import BadInput
from didact.core.recipe import seeded
from didact.reusing.dock.errors import BadSpecification
from didact.reusing.dock.specification.columns import Columns, check_across
from didact.reusing.dock.specification.statistical import Specification

Array = NDArray[np.float64]

_UNKNOWN = "unknown feature"
_WORDS = 2**12  # buckets that words are hashed into; 0 pads
_AT_ONCE = 2**22  # pairs of tokens that attend to each other at once: what bounds memory


class TableMap(nn.Module):
    """Embeds rows of any table whose features have descriptions, (n, d) -> (n, width).

    A feature is a token: the mean embedding of its description's words (hashed, so that any word has one) times its
    value plus a bias. A transformer of 2 layers and 8 heads reads the tokens behind a summary token, whose output is
    the row's embedding. Two views of a row through different columns come out near each other; that is what
    `FitTableMap` trains.
    """

    def __init__(self, width: int = 128, layers: int = 2, heads: int = 8) -> None:
        super().__init__()
        self.options = {"width": width, "layers": layers, "heads": heads}
        self.words = nn.Embedding(_WORDS, width, padding_idx=0)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.summary = nn.Parameter(torch.empty(width).uniform_(-(width**-0.5), width**-0.5))
        self.align = nn.Linear(width, width, bias=False)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, descriptions: Sequence[str], values: Tensor) -> Tensor:
        """Embeddings of rows; `values` is (n, d) with one description for each of the d columns."""
        words = _word_numbers(descriptions)  # (d, most words)
        present = (words > 0).float()[..., None]
        meanings = (self.norm(self.words(words)) * present).sum(1) / present.sum(1)  # (d, width)
        tokens = self.align(meanings * values[..., None] + self.bias)  # (n, d, width)
        summary = self.summary.expand(len(values), 1, -1)
        return torch.as_tensor(self.encoder(torch.cat([summary, tokens], dim=1))[:, 0])

    def embed(self, specification: Specification, columns: Columns) -> Specification:
        """The same weighted set seen through the map, comparable with those of any other table.

        Its encoder is named by the map's contents, so that embeddings of different maps are not compared.
        """
        descriptions = _descriptions(specification, columns)
        rows = torch.tensor(specification.z, dtype=torch.float32)
        with torch.no_grad():
            at_once = max(1, _AT_ONCE // (len(descriptions) + 1) ** 2)
            vectors = torch.cat([self(descriptions, piece) for piece in torch.split(rows, min(256, at_once))])
        return Specification(
            type="rkme-table",
            gamma=specification.gamma,
            encoder=self.id,
            z=vectors.double().numpy(),
            beta=specification.beta,
        )

    @property
    def id(self) -> str:
        """Names the map and its weights."""
        digest = hashlib.sha256(json.dumps(self.options, sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        return f"didact/table-map-{digest.hexdigest()[:16]}"

    def save(self, folder: str | Path) -> Path:
        """Write `map.safetensors` and `map.json`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / "map.safetensors")
        (folder / "map.json").write_text(json.dumps(self.options), encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> TableMap:
        """Read what `save` wrote."""
        folder = Path(folder)
        loaded = cls(**json.loads((folder / "map.json").read_text(encoding="utf-8")))
        loaded.load_state_dict(load_file(folder / "map.safetensors"))
        return loaded.eval()


class FitTableMap(BaseModel):
    """Trains a `TableMap` by contrast: views of one row through overlapping parts of its columns attract each other.

    The columns of every table are cut into 3 parts in their order, each with half of its neighbour's columns added;
    in a batch, the views of a row are positives and all other rows' views negatives (InfoNCE on inner products of a
    projection, temperature 10). All weights of the map are trained; tables with the same descriptions are one table.

    Errors: `BadInput` for no tables; tables with a single column cannot be cut and are left out of training, and it
    is `BadInput` when nothing else is given, or when training comes to numbers that are not finite. `BadSpecification`
    "too-large" for a table of more than 256 columns or with values beyond 1e9.

    Cost: `epochs` passes over all reduced points, up to `points`, each O(points d^2 width); memory O(batch d width).

    Reference: Wang and Sun 2022, TransTab (arXiv 2205.09328), as used by the `learnware` package for docks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=30, ge=1)  #: passes over the reduced points
    batch: int = Field(default=256, ge=2)  #: rows in a contrast
    learning_rate: float = Field(default=1e-4, gt=0.0)  #: of Adam
    parts: int = Field(default=3, ge=2)  #: views of a row
    overlap: float = Field(default=0.5, ge=0.0, le=1.0)  #: of a part's columns that its neighbour shares
    temperature: float = Field(default=10.0, gt=0.0)  #: that inner products are divided by
    width: int = Field(default=128, ge=8)  #: of embeddings and layers
    layers: int = Field(default=2, ge=1)  #: of the transformer
    heads: int = Field(default=8, ge=1)  #: of each layer
    points: int = Field(default=20_000, ge=2)  #: reduced points in a pass; where there are more, some are drawn for it

    def fit(self, tables: Sequence[tuple[Specification, Columns]], seed: int = 0) -> TableMap:
        """The map trained on the reduced points of tables, each with the meaning of its columns."""
        pooled = _pooled(tables)
        if not pooled:
            raise BadInput(
                "A table map is trained on tables with two columns or more, but none was given. Submit some first."
            )
        share = min(1.0, self.points / sum(map(len, pooled.values())))
        with seeded(seed):
            mapping = TableMap(self.width, self.layers, self.heads)
            optimiser = torch.optim.Adam(mapping.parameters(), lr=self.learning_rate)
            for _ in range(self.epochs):
                for descriptions, rows in self._batches(pooled, share):
                    optimiser.zero_grad()
                    torch.autograd.backward(self.loss(mapping, descriptions, rows))
                    optimiser.step()
        if not all(bool(parameter.isfinite().all()) for parameter in mapping.parameters()):
            raise BadInput(
                f"The table map came to numbers that are not finite. Lower its learning rate ({self.learning_rate:g})."
            )
        return mapping.eval()

    def loss(self, mapping: TableMap, descriptions: Sequence[str], rows: Tensor) -> Tensor:
        """The contrast of a batch: mean over views of -log(share of the row's other views among all others)."""
        views = [
            mapping.project(mapping([descriptions[i] for i in part], rows[:, part]))
            for part in partitions(len(descriptions), self.parts, self.overlap)
        ]
        return contrast(torch.stack(views, dim=1), self.temperature)

    def _batches(
        self, pooled: Mapping[tuple[str, ...], Tensor], share: float
    ) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        for descriptions, rows in pooled.items():
            drawn = torch.randperm(len(rows))[: max(2, round(share * len(rows)))]
            for chosen in torch.split(drawn, self.batch):
                if len(chosen) > 1:
                    yield descriptions, rows[chosen]


def partitions(columns: int, parts: int, overlap: float) -> list[list[int]]:
    """The columns of each view: consecutive parts, each with the first columns of the next (the last: of the one
    before) up to a share `overlap` of a part. A table with fewer columns than parts gets a view for each."""
    pieces = [piece.tolist() for piece in np.array_split(np.arange(columns), min(parts, columns))]
    shared = int(np.ceil(overlap * len(pieces[0])))
    if shared == 0 or len(pieces) == 1:
        return pieces
    grown = [piece + following[:shared] for piece, following in pairwise(pieces)]
    return [*grown, pieces[-1] + pieces[-2][-shared:]]


def contrast(views: Tensor, temperature: float) -> Tensor:
    """InfoNCE over (rows, views, width): every view's positives are the other views of its row."""
    rows, count, _ = views.shape
    flat = views.transpose(0, 1).reshape(rows * count, -1)
    itself = torch.eye(rows * count, dtype=torch.bool)
    similar = (flat @ flat.T / temperature).masked_fill(itself, float("-inf"))
    share = functional.log_softmax(similar, dim=1)
    same_row = torch.eye(rows, dtype=torch.bool).repeat(count, count) & ~itself
    return -share.masked_fill(~same_row, 0.0).sum(1).mean() / (count - 1)


def _pooled(tables: Sequence[tuple[Specification, Columns]]) -> dict[tuple[str, ...], Tensor]:
    found: dict[tuple[str, ...], list[Array]] = defaultdict(list)
    for specification, columns in tables:
        if specification.dimension > 1:
            found[tuple(_descriptions(specification, columns))].append(specification.z)
    return {names: torch.from_numpy(np.concatenate(points)).float() for names, points in sorted(found.items())}


def _descriptions(specification: Specification, columns: Columns) -> list[str]:
    check_across(specification)
    if any(not 0 <= i < specification.dimension for i in columns):
        raise BadSpecification(
            "wrong-shape", f"Features are numbered from 0 to {specification.dimension - 1}, but another was described."
        )
    return [columns.get(i) or _UNKNOWN for i in range(specification.dimension)]


def _word_numbers(descriptions: Sequence[str]) -> Tensor:
    words = [re.findall(r"\w+", text.lower()) or [_UNKNOWN] for text in descriptions]
    numbers = [torch.tensor([1 + zlib.crc32(word.encode()) % (_WORDS - 1) for word in each]) for each in words]
    return nn.utils.rnn.pad_sequence(numbers, batch_first=True)

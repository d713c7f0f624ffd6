"""What fine-tuning changed, as vectors: differences of weights, in memory or streamed from checkpoints on disk."""

from didact.reusing.deltas.algebra import (
    STATISTICS,
    Change,
    Deltas,
    Weights,
    add,
    chosen,
    dropped_aliases,
    norm,
    recompute_statistics,
    subtract,
    weights_of,
    with_weights,
)
from didact.reusing.deltas.checkpoints import Checkpoint, Merge, Merger, checkpoint_digest, merge_checkpoints

__all__ = [
    "Change",
    "Checkpoint",
    "Deltas",
    "Merge",
    "Merger",
    "STATISTICS",
    "Weights",
    "add",
    "checkpoint_digest",
    "chosen",
    "dropped_aliases",
    "merge_checkpoints",
    "norm",
    "recompute_statistics",
    "subtract",
    "weights_of",
    "with_weights",
]

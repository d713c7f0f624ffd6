"""Sequence-aware sharded sliced training (Basu Roy Chowdhury et al., 2025): exact deletion without training.

`S3T().prepare(...)` trains a `ShardedSystem`; `system.delete(ids)` switches off what has seen these records. How many
requests a system outlives: `expected_deletions`, or `DeletionStream` on data of your own.
"""

from didact.forgetting.s3t.adapters import SlicedEnsemble, layer_groups
from didact.forgetting.s3t.method import S3T
from didact.forgetting.s3t.orders import expected_deletions, simulated_deletions, slice_orders
from didact.forgetting.s3t.stream import DeletionStream, StreamSubject, digits_deletions
from didact.forgetting.s3t.system import ShardedSystem

__all__ = [
    "S3T",
    "DeletionStream",
    "ShardedSystem",
    "SlicedEnsemble",
    "StreamSubject",
    "digits_deletions",
    "expected_deletions",
    "layer_groups",
    "simulated_deletions",
    "slice_orders",
]

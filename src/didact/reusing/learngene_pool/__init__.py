"""learngene-pool: a few distilled stacks of blocks whose stitches make networks of many sizes; and its rivals."""

from didact.reusing.learngene_pool.baselines import InstancesOnly, SizeScratch, StitchableNetworks
from didact.reusing.learngene_pool.method import LearngenePool
from didact.reusing.learngene_pool.pool import Configuration, Pool, stitched_pairs
from didact.reusing.learngene_pool.problem import SIZE_METRICS, SizeProblem, size_problem

__all__ = [
    "Configuration",
    "InstancesOnly",
    "LearngenePool",
    "Pool",
    "SIZE_METRICS",
    "SizeProblem",
    "SizeScratch",
    "StitchableNetworks",
    "size_problem",
    "stitched_pairs",
]

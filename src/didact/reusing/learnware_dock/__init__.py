"""The learnware dock as methods: identify models by specifications of data, and reuse what was found.

`LearnwareDock` does both in one call from records that carry specifications; the reusers are methods of their own.
`reuse_from` is the same over a dock in a folder or behind a URL.
"""

from didact.reusing.learnware_dock.averaging import DockAveraging
from didact.reusing.learnware_dock.crowd import DOCK_METRICS, Crowd, CrowdProblem, EachUser
from didact.reusing.learnware_dock.dock import LearnwareDock
from didact.reusing.learnware_dock.ensemble_pruning import DockEnsemblePruning
from didact.reusing.learnware_dock.feature_alignment import DockFeatureAlignment
from didact.reusing.learnware_dock.feature_augmentation import DockFeatureAugmentation
from didact.reusing.learnware_dock.identification import Found, identify
from didact.reusing.learnware_dock.job_selector import DockJobSelector
from didact.reusing.learnware_dock.over_http import DockOverHTTP
from didact.reusing.learnware_dock.problem import dock_digits
from didact.reusing.learnware_dock.reuse import reuse_from
from didact.reusing.learnware_dock.top1 import DockTop1
from didact.reusing.learnware_dock.tuning import gamma_by_reuse

__all__ = [
    "DOCK_METRICS",
    "Crowd",
    "CrowdProblem",
    "DockAveraging",
    "DockEnsemblePruning",
    "DockFeatureAlignment",
    "DockFeatureAugmentation",
    "DockJobSelector",
    "DockOverHTTP",
    "DockTop1",
    "EachUser",
    "Found",
    "LearnwareDock",
    "dock_digits",
    "gamma_by_reuse",
    "identify",
    "reuse_from",
]

"""The family's registration: importing this module makes all methods and problems of reuse known."""

from __future__ import annotations

from didact.core.problem import Family
from didact.core.registry import register_family
from didact.reusing import baselines as baselines
from didact.reusing import dare as dare
from didact.reusing import hub as hub
from didact.reusing import learngene_pool as learngene_pool
from didact.reusing import learnware_dock as learnware_dock
from didact.reusing import stationary_representations as stationary_representations
from didact.reusing import tleg as tleg
from didact.reusing import tmi as tmi
from didact.reusing import zett as zett
from didact.reusing.dare import MERGE_METRICS
from didact.reusing.learngene_pool import SIZE_METRICS
from didact.reusing.learnware_dock import DOCK_METRICS
from didact.reusing.scoring import METRICS, PRIMARY, TUNING
from didact.reusing.stationary_representations import UPGRADE_METRICS
from didact.reusing.tleg import DEPTH_METRICS
from didact.reusing.zett import TOKENIZER_METRICS

FAMILY = register_family(
    Family(
        name="reusing",
        title="Reusing",
        verb="reuse",
        metrics=METRICS
        + DOCK_METRICS
        + MERGE_METRICS
        + TOKENIZER_METRICS
        + DEPTH_METRICS
        + SIZE_METRICS
        + UPGRADE_METRICS,
        primary=PRIMARY,
        tuning=TUNING,
        default_problem="hub",
        reader="didact.reusing.ReuseResult.open",
        trade_off=("test_score", "stored_parameters"),
        summary="make something for your own task out of models that exist",
    )
)

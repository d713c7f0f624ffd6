"""Stationary representations: a fixed simplex of prototypes keeps features of all models comparable over upgrades."""

from didact.reusing.stationary_representations.baselines import (
    BackwardCompatible,
    ProcrustesAlignment,
    UpgradeIndependent,
    UpgradeReplay,
    rotation,
)
from didact.reusing.stationary_representations.compatibility import (
    Compatibility,
    average_compatibility,
    average_multimodel,
    compatibility,
)
from didact.reusing.stationary_representations.digits_problem import upgraded_digits
from didact.reusing.stationary_representations.hoc import HOC
from didact.reusing.stationary_representations.method import CompatibleUpgrade
from didact.reusing.stationary_representations.networks import RetrievalNet, Upgrades, embedded, retrieval_net
from didact.reusing.stationary_representations.problem import UPGRADE_METRICS, UpgradeProblem, upgrade_problem
from didact.reusing.stationary_representations.simplex import SimplexClassifier, simplex_prototypes
from didact.reusing.stationary_representations.stream import Memory, Step, Stream

__all__ = [
    "BackwardCompatible",
    "Compatibility",
    "CompatibleUpgrade",
    "HOC",
    "Memory",
    "ProcrustesAlignment",
    "RetrievalNet",
    "SimplexClassifier",
    "Step",
    "Stream",
    "UPGRADE_METRICS",
    "UpgradeIndependent",
    "UpgradeProblem",
    "UpgradeReplay",
    "Upgrades",
    "average_compatibility",
    "average_multimodel",
    "compatibility",
    "embedded",
    "retrieval_net",
    "rotation",
    "simplex_prototypes",
    "upgrade_problem",
    "upgraded_digits",
]

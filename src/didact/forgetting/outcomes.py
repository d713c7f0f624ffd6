"""One word for what a method came to: removed, suppressed, not forgotten, collapsed.

Ren et al. (2025) ask of every unlearning method whether knowledge is gone or only its expression. The word is given on
the means over seeds, from the behaviour (`forget_gap`), the utility (`collapsed`) and, where hidden states can be
probed, what is left inside (`residual`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: largest share of the original's readable facts that may be left in the hidden states of a model that forgot
REMOVED = 0.2
FORGOTTEN = 0.1  #: largest forget gap of a model that behaves as one that forgot

OUTCOMES = {
    "removed": "it behaves like a retrained model, and probes of its hidden states find hardly more than in one",
    "suppressed": "it behaves like a retrained model, but the facts can still be read from its hidden states",
    "forgotten": "it behaves like a retrained model; its hidden states were not probed or tell nothing",
    "not forgotten": "it does not behave like a retrained model on the forget data",
    "collapsed": "it lost more than half of the original's test score",
}


def outcome(metrics: Mapping[str, float]) -> str:
    """The word for these mean metrics; "" when the behaviour was not measured."""
    gap, residual = metrics.get("forget_gap", math.nan), metrics.get("residual", math.nan)
    if math.isnan(gap):
        return ""
    if metrics.get("collapsed", 0.0) > 0.5:
        return "collapsed"
    if gap > FORGOTTEN:
        return "not forgotten"
    if math.isnan(residual):
        return "forgotten"
    return "removed" if residual <= REMOVED else "suppressed"

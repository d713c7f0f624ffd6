"""Unlearning with sparse models (Jia et al., 2023): prune first, or let sparsity come by an l1 penalty.

Approximate unlearning comes closer to retraining when the model is sparse. `L1SparseFineTune` needs no mask;
`PruneThenUnlearn` runs any method under one; `FisherForgetting` and `InfluenceUnlearn` are two of the methods
that the paper runs on dense and on sparse models; `MaskedRetrain` is what a sparse model has to be compared
with.
"""

from didact.forgetting.sparse_unlearning.backdoor import digits_backdoor, stamp
from didact.forgetting.sparse_unlearning.fisher import FisherForgetting
from didact.forgetting.sparse_unlearning.influence import InfluenceUnlearn
from didact.forgetting.sparse_unlearning.l1 import L1SparseFineTune
from didact.forgetting.sparse_unlearning.prune import MaskedRetrain, PruneThenUnlearn

__all__ = [
    "FisherForgetting",
    "InfluenceUnlearn",
    "L1SparseFineTune",
    "MaskedRetrain",
    "PruneThenUnlearn",
    "digits_backdoor",
    "stamp",
]

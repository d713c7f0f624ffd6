"""Statistical specifications: what leaves a user instead of the data.

`specify` makes one of a table, images or texts; `RKME` is the reduction behind it; `Specification` is the result, with
its inner products and distances.
"""

from didact.reusing.dock.specification.encoders import Encoder, HashedNgrams, RandomConvnets, SentenceEncoder
from didact.reusing.dock.specification.gamma import Gamma, tuned_gamma
from didact.reusing.dock.specification.rkme import RKME
from didact.reusing.dock.specification.specify import specify
from didact.reusing.dock.specification.statistical import Specification

__all__ = [
    "RKME",
    "Encoder",
    "Gamma",
    "HashedNgrams",
    "RandomConvnets",
    "SentenceEncoder",
    "Specification",
    "specify",
    "tuned_gamma",
]

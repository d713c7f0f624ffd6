"""Transferability: which model of a hub is worth fine-tuning on a labelled target set, without fine-tuning any.

`TMI` and its rivals are methods of their own. Each is a function of features (or of a model's probabilities) and
labels, ranks models or layers with `rank`, answers a `reuse` request with a ranking, and gives the hits of a learnware
dock another order on the user's side with `reorder`.
"""

from didact.reusing.tmi.method import TMI as TMI
from didact.reusing.tmi.method import class_entropies as class_entropies
from didact.reusing.tmi.problem import transfer_hub as transfer_hub
from didact.reusing.tmi.ranker import FeatureRanker as FeatureRanker
from didact.reusing.tmi.ranker import ProbabilityRanker as ProbabilityRanker
from didact.reusing.tmi.ranker import Ranker as Ranker
from didact.reusing.tmi.rivals import GBC as GBC
from didact.reusing.tmi.rivals import LEEP as LEEP
from didact.reusing.tmi.rivals import NCE as NCE
from didact.reusing.tmi.rivals import HScore as HScore
from didact.reusing.tmi.rivals import LogME as LogME
from didact.reusing.tmi.simple import LinearProbe as LinearProbe
from didact.reusing.tmi.simple import NearestNeighbours as NearestNeighbours
from didact.reusing.tmi.simple import ParameterCount as ParameterCount
from didact.reusing.tmi.simple import RandomRanking as RandomRanking

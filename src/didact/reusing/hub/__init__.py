"""A hub of about twenty small models on overlapping tasks, and the problem of making something new out of them."""

from didact.reusing.hub.problem import hub as hub
from didact.reusing.hub.zoo import Zoo as Zoo
from didact.reusing.hub.zoo import zoo as zoo

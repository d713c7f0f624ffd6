"""What a learnware says about itself in words: its tags, its name, and what its inputs and outputs mean.

The semantic specification is the first of a learnware's two specifications: a few single-valued classes (kind of
data, task, library, licence), tags for the scenario, free text, and the meaning of every input feature and output.
A search starts with a `SemanticQuery` over it; the statistical specification then ranks what is left.
"""

from didact.reusing.dock.semantics.query import FUZZY, SemanticQuery, matches
from didact.reusing.dock.semantics.specification import Input, Output, SemanticSpecification
from didact.reusing.dock.semantics.vocabulary import (
    DATA,
    LIBRARIES,
    LICENCES,
    MOST_DIMENSIONS,
    SCENARIOS,
    TASKS,
    Data,
    Task,
    vocabulary,
)

__all__ = [
    "DATA",
    "FUZZY",
    "LIBRARIES",
    "LICENCES",
    "MOST_DIMENSIONS",
    "SCENARIOS",
    "TASKS",
    "Data",
    "Input",
    "Output",
    "SemanticQuery",
    "SemanticSpecification",
    "Task",
    "matches",
    "vocabulary",
]

"""Reusing: make something for your own task out of models that exist.

The verb is `reuse(models, task)`: a hub of models and a description of the task go in; a predictor, a ranking, a
merged network or a maker of networks comes out, with what it was made from and what it cost.

Importing this package is instant, for a dock's server and client need neither torch nor the methods: those are imported
with `family.py`, which the registry loads.
"""

from didact.core.lazy import lazy

_HOME = "didact.reusing"
__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        f"{_HOME}.baselines": [
            "BestSingle",
            "FineTuneBase",
            "RandomSingle",
            "Scratch",
            "UniformAverage",
            "UniformEnsemble",
        ],
        f"{_HOME}.dare": ["DARE"],
        f"{_HOME}.family": ["FAMILY"],
        f"{_HOME}.learngene_pool": ["LearngenePool"],
        f"{_HOME}.learnware_dock": ["LearnwareDock", "reuse_from"],
        f"{_HOME}.problem": ["ReuseProblem", "Reuser", "Truth", "reuse_problem"],
        f"{_HOME}.request": ["Budget", "ModelRecord", "Request", "Task"],
        f"{_HOME}.result": ["Predictor", "ReuseResult"],
        f"{_HOME}.stationary_representations": ["CompatibleUpgrade"],
        f"{_HOME}.tleg": ["LinearExpansion"],
        f"{_HOME}.tmi": ["TMI"],
        f"{_HOME}.zett": ["TokenizerTransfer"],
    },
)

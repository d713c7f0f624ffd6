"""didact: published learning methods under one protocol, each with a claim you can check.

    from didact.forgetting import SelectiveSynapticDampening   # a library
    didact.bench("forgetting", seeds=5)                        # a bench
    didact.claim("ssd")                                        # a checkable claim

Importing it is instant: torch and transformers are imported when something first needs them.
"""

from didact.core.lazy import lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "didact.core.cost": ["Meter"],
        "didact.core.errors": ["BadInput", "DidactError", "NotApplicable", "UnknownName"],
        "didact.engine.bench": ["bench"],
        "didact.engine.claims": ["claim"],
        "didact.models.artifacts": ["load", "save"],
    },
)

"""The learnware dock: submit models with specifications, search without giving up data, reuse what was found.

``LocalDock`` is a dock in a folder, ``DockClient`` one behind a URL; ``specify`` summarises a user's data so that only
the summary leaves, and ``write_package`` makes of a model what a dock takes. Importing this package is instant:
torch, scikit-learn and the server's packages are imported when something that needs them is first used.
"""

from __future__ import annotations

from didact.core.lazy import lazy

_HOME = "didact.reusing.dock"
__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        f"{_HOME}.errors": [
            "BadPackage",
            "BadSpecification",
            "Conflict",
            "DockError",
            "NotAllowed",
            "NotFound",
            "NotSignedIn",
            "TooLarge",
            "TooMany",
        ],
        f"{_HOME}.semantics": [
            "Input",
            "Output",
            "SemanticQuery",
            "SemanticSpecification",
            "matches",
            "vocabulary",
        ],
        f"{_HOME}.specification": ["Gamma", "RKME", "Specification", "specify"],
        f"{_HOME}.search": ["Hit", "Identifier", "Index", "Mixture", "SearchResult"],
        f"{_HOME}.package": [
            "Learnware",
            "Package",
            "PackageLimits",
            "load_package",
            "open_package",
            "write_package",
        ],
        f"{_HOME}.sandbox": ["Sandbox"],
        f"{_HOME}.checking": ["CheckReport", "check_package"],
        f"{_HOME}.storage": ["Blobs", "Store"],
        f"{_HOME}.service": ["Dock", "DockSettings", "LearnwareInfo", "Page", "Upload"],
        f"{_HOME}.queue": ["Checker"],
        f"{_HOME}.accounts": ["User"],
        f"{_HOME}.local": ["LocalDock"],
        f"{_HOME}.client": ["DockClient"],
    },
)

"""Small models of the usual kinds, loading and saving of any model, and workpieces: models trained once and cached.

Every model made here by name (`build("convnet", classes=10)`) knows how to be built again, so that it can be saved as
safetensors + config and loaded by `didact.load` without any pickle. Hugging Face models keep their own layout.
"""

from didact.core.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "didact.models.artifacts": ["load", "save"],
        "didact.models.small": ["build", "convnet", "mlp"],
        "didact.models.generation": ["respond"],
        "didact.models.wrappers": ["LanguageWrapper"],
        "didact.models.language": ["gpt_tiny", "text_classifier"],
        "didact.models.workpieces": ["digest", "trained"],
    },
)

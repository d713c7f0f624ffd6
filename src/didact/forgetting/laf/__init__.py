"""Label-agnostic forgetting (Shen et al., 2024): unlearning in representation space, without labels."""

from didact.forgetting.laf.method import LabelAgnosticForgetting

__all__ = ["LabelAgnosticForgetting"]

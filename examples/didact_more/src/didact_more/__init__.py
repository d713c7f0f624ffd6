"""One more unlearning method for didact."""

from didact_more.reset_head import ResetHead

__all__ = ["ResetHead"]

"""What the dock's methods share in their cards."""

from __future__ import annotations

from didact.core.method import Paper

PAPER = Paper("Tan, Liu, Bi, Tan, Zheng, Liu, Xie, Zou, Yu and Zhou", 2024, arxiv="2401.14427")

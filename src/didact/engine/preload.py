"""Imported by the fork server before the first cell: what every cell needs is then there at once."""

# torch imports its compiler when the first optimiser is made (seconds); here it is imported once for all cells.
import torch._dynamo  # noqa: F401

from didact.core import registry
from didact.engine import worker as worker

registry.load()

"""Imported by the fork server before the first cell: what every cell needs is then there at once."""

import gc

# torch imports its compiler when the first optimiser is made (seconds); here it is imported once for all cells.
import torch._dynamo  # noqa: F401

from didact.core import registry
from didact.engine import bench as bench
from didact.engine import executor as executor
from didact.engine import worker as worker

registry.load()

# Objects that exist now never become garbage: a cell's collector need not touch (and so copy) their pages.
gc.collect()
gc.freeze()

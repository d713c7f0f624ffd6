"""Imported by the fork server before the first cell: what every cell needs is then there at once."""

from didact.core import registry
from didact.engine import worker as worker

registry.load()

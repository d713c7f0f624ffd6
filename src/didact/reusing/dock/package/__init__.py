"""Learnware packages: one zip file with a model, what it says about itself in words, and its statistics.

`write_package` makes one of a model, `open_package` reads one without running anything, `load_package` makes of it
something that predicts.
"""

from didact.reusing.dock.package.archive import PackageLimits
from didact.reusing.dock.package.loading import load_package
from didact.reusing.dock.package.manifest import Manifest
from didact.reusing.dock.package.opening import Package, open_package
from didact.reusing.dock.package.writing import write_package
from didact.reusing.dock.runtimes.base import Learnware

__all__ = ["Learnware", "Manifest", "Package", "PackageLimits", "load_package", "open_package", "write_package"]

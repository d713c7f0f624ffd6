"""`didact dock`: serve a learnware dock, and use one, on this machine or another."""

from didact.cli.dock.app import app

__all__ = ["app"]

"""A dock behind a URL: everything but the specification of one's data stays on this machine."""

from didact.reusing.dock.client.client import DockClient

__all__ = ["DockClient"]

"""The `didact` command. Each command imports what it needs when it runs, so that --help answers at once."""

from didact.cli.app import main

__all__ = ["main"]

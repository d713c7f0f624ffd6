"""The board: what every method came to, read from the ledger, from `results/` and from the registry.

`reader` gathers, `method` makes the page of one method, `figures` computes the geometry of its drawings, `prose`
turns docstrings into HTML, `routes` answers requests. Nothing here runs a method or writes a row.
"""

from didact.web.board.reader import Board

__all__ = ["Board"]

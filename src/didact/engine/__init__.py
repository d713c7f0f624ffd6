"""The engine: runs methods on problems over seeds, isolates and meters every cell, keeps the rows, judges claims.

A leaderboard, a report and a claim are all readers of the ledger. It knows families only through the registry.
"""

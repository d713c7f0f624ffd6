"""What a dock keeps: rows in SQLite (or, by URL, PostgreSQL) and packages in a folder, by hash.

A row appears only after its package is safely on disk, so whatever moment a server is killed at, a learnware is
there whole or not at all. The other order can leave a package without a row; those are swept when a dock opens.
"""

from didact.reusing.dock.storage.blobs import Blobs
from didact.reusing.dock.storage.learnwares import Learnwares
from didact.reusing.dock.storage.store import Store
from didact.reusing.dock.storage.work import Work

__all__ = ["Blobs", "Learnwares", "Store", "Work"]

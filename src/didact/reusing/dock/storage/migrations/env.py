"""What Alembic runs: the versions, on the connection that `Store.migrate` hands over."""

from __future__ import annotations

from alembic import context

from didact.reusing.dock.storage.tables import tables

context.configure(
    connection=context.config.attributes["connection"], target_metadata=tables, version_table="schema_version"
)
with context.begin_transaction():
    context.run_migrations()

"""The history of the tables, for Alembic. `Store.migrate` brings a database to the newest version when it opens."""

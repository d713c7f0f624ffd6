"""The tables of a dock. What is changed here needs a migration beside it; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

tables = sa.MetaData()

users = sa.Table(
    "user",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("password_hash", sa.String(256), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sqlite_autoincrement=True,  # the number of somebody who left is not given to somebody else
)
# Two names that differ in capitals only would be taken for one another.
sa.Index("user_name_once", sa.func.lower(users.c.name), unique=True)

tokens = sa.Table(
    "token",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", sa.Integer, sa.ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("label", sa.String(100), nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("expires", sa.String(32), nullable=False),
    sa.Column("revoked", sa.Boolean, nullable=False),
    sqlite_autoincrement=True,
)

learnwares = sa.Table(
    "learnware",
    tables,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("owner_id", sa.Integer, sa.ForeignKey("user.id", ondelete="SET NULL"), index=True),
    sa.Column("semantic", sa.JSON, nullable=False),
    sa.Column("tier", sa.String(8), nullable=False),
    sa.Column("stat_type", sa.String(32), nullable=False),
    sa.Column("shapes", sa.JSON, nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("usable", sa.Integer),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("blob_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.String(32), nullable=False),
    sa.Column("modified", sa.String(32), nullable=False),
    # While it waits and is checked: its turn, how often a checker died over it, who checks it now and until when
    # without a sign of life.
    sa.Column("turn", sa.String(32), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("holder", sa.String(128), nullable=False),
    sa.Column("lease", sa.Float, nullable=False),
    sa.Index("learnware_turn", "status", "turn"),
)

specifications = sa.Table(
    "specification",
    tables,
    sa.Column("learnware_id", sa.String(16), sa.ForeignKey("learnware.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("gamma", sa.Float, nullable=False),
    sa.Column("encoder", sa.String(300), nullable=False),
    sa.Column("languages", sa.JSON, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),  # points, K
    sa.Column("dimension", sa.Integer, nullable=False),  # of a point, d
    sa.Column("z", sa.LargeBinary, nullable=False),  # K x d little-endian float64, row by row
    sa.Column("beta", sa.LargeBinary, nullable=False),
    sa.Column("self_product", sa.Float, nullable=False),
)

inner_products = sa.Table(
    "inner_product",
    tables,
    # a comes before b in the alphabet: each pair is stored once.
    sa.Column("a", sa.String(16), sa.ForeignKey("learnware.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("b", sa.String(16), sa.ForeignKey("learnware.id", ondelete="CASCADE"), primary_key=True, index=True),
    sa.Column("type", sa.String(32), primary_key=True),
    sa.Column("value", sa.Float, nullable=False),
)

verify_logs = sa.Table(
    "verify_log",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column(
        "learnware_id", sa.String(16), sa.ForeignKey("learnware.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("usable", sa.Integer),
    sa.Column("reason", sa.String(64), nullable=False),
    sa.Column("log", sa.Text, nullable=False),
)

# Names, not references: what happened stays known after a user or a learnware is gone.
events = sa.Table(
    "event",
    tables,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("user", sa.String(64), nullable=False),
    sa.Column("learnware", sa.String(16), nullable=False),
    sa.Column("about", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

# Numbers that are raised in the transaction they count. Whoever raises one holds its row until the commit, so the
# numbers become visible in order; a database's own sequence does not promise that.
counters = sa.Table(
    "counter",
    tables,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# Which learnware appeared, changed or went, by the number of the change: what other processes' indexes catch up with.
changes = sa.Table(
    "change",
    tables,
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("learnware_id", sa.String(16), nullable=False),
)

"""The first tables."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("user_name_once", "user", [sa.func.lower(sa.column("name"))], unique=True)
    op.create_table(
        "token",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("expires", sa.String(32), nullable=False),
        sa.Column("revoked", sa.Boolean, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "learnware",
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
        sa.Column("turn", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("holder", sa.String(128), nullable=False),
        sa.Column("lease", sa.Float, nullable=False),
    )
    op.create_index("learnware_turn", "learnware", ["status", "turn"])
    op.create_table(
        "specification",
        _learnware("learnware_id", primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("type", sa.String(32), nullable=False),
        sa.Column("gamma", sa.Float, nullable=False),
        sa.Column("encoder", sa.String(300), nullable=False),
        sa.Column("languages", sa.JSON, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("dimension", sa.Integer, nullable=False),
        sa.Column("z", sa.LargeBinary, nullable=False),
        sa.Column("beta", sa.LargeBinary, nullable=False),
        sa.Column("self_product", sa.Float, nullable=False),
    )
    op.create_table(
        "inner_product",
        _learnware("a", primary_key=True),
        _learnware("b", primary_key=True, index=True),
        sa.Column("type", sa.String(32), primary_key=True),
        sa.Column("value", sa.Float, nullable=False),
    )
    op.create_table(
        "verify_log",
        sa.Column("id", sa.Integer, primary_key=True),
        _learnware("learnware_id", nullable=False, index=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("usable", sa.Integer),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("log", sa.Text, nullable=False),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("user", sa.String(64), nullable=False),
        sa.Column("learnware", sa.String(16), nullable=False),
        sa.Column("about", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    counter = op.create_table(
        "counter",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counter, [{"name": "catalogue", "value": 0}])
    op.create_table(
        "change",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("learnware_id", sa.String(16), nullable=False),
    )


def downgrade() -> None:
    for table in (
        "change", "counter", "event", "verify_log", "inner_product", "specification", "learnware", "token", "user",
    ):  # fmt: skip
        op.drop_table(table)


def _learnware(name: str, **options: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(16), sa.ForeignKey("learnware.id", ondelete="CASCADE"), **options)

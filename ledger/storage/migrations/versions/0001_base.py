"""Ledgers, heads, the log, and the rules that make it append-only."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.storage.database import REFUSE_CHANGE, refuse_changes
from ledger.storage.tables import Id

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_ledgers()
    _create_log()
    _create_erasures()
    _create_api_keys()
    _make_append_only()


def _create_ledgers() -> None:
    op.create_table(
        "ledgers",
        sa.Column("ledger_id", Id, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
    )
    op.create_table(
        "heads",
        sa.Column("ledger_id", Id, sa.ForeignKey("ledgers.ledger_id"), primary_key=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("frontier", sa.LargeBinary, nullable=False),
        sa.Column("last_recorded_at", sa.BigInteger, nullable=False),
    )


def _create_log() -> None:
    op.create_table(
        "events",
        sa.Column("ledger_id", Id, sa.ForeignKey("ledgers.ledger_id"), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("event_id", Id, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("stream_version", sa.BigInteger, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.Column("occurred_at", sa.BigInteger),
        sa.Column("correlation_id", Id),
        sa.Column("causation_id", Id),
        sa.Column("recorded_by", Id, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "position", name="events_pkey"),
        # I3 and I4 rest on the head lock; these two would stop whatever got past it.
        sa.UniqueConstraint("ledger_id", "stream_ref", "stream_version", name="events_stream_version"),
        sa.UniqueConstraint("ledger_id", "event_id", name="events_event_id"),
    )
    op.create_table(
        "event_keys",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("part", sa.SmallInteger, nullable=False),
        sa.Column("role", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "key_id", "position", "part", name="event_keys_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "abandoned_streams",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "stream_ref", name="abandoned_streams_pkey"),
        sqlite_with_rowid=False,
    )


def _create_erasures() -> None:
    op.create_table(
        "shredded_keys",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("erasure_id", Id, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "key_id", name="shredded_keys_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "erasure_roots",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("erasure_id", Id, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "erasure_id", name="erasure_roots_pkey"),
        sqlite_with_rowid=False,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", Id, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("ledger_id", Id, sa.ForeignKey("ledgers.ledger_id")),
        sa.Column("secret_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
    )


def _make_append_only() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute(REFUSE_CHANGE)
    for table in ("events", "event_keys", "shredded_keys", "erasure_roots", "abandoned_streams"):
        for statement in refuse_changes(table, dialect):
            op.execute(statement)

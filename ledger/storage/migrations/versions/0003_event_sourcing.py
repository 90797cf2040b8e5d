"""Event types, ended streams, and the derived data: cursors, snapshots, read models, subscriptions, timers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.storage.database import refuse_changes
from ledger.storage.tables import Id

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_rules()
    _create_followers()
    _create_documents()
    _create_indexes()


def _create_rules() -> None:
    op.create_table(
        "event_types",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.Column("registered_by", Id, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "event_type", "version", name="event_types_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "closed_streams",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "stream_ref", name="closed_streams_pkey"),
        sqlite_with_rowid=False,
    )
    for table in ("event_types", "closed_streams"):
        for statement in refuse_changes(table, op.get_bind().dialect.name):
            op.execute(statement)


def _create_followers() -> None:
    op.create_table(
        "cursors",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("holder", Id),
        sa.Column("lease_until", sa.BigInteger, nullable=False),
        sa.Column("leased_to", sa.BigInteger, nullable=False),
        sa.Column("replay_to", sa.BigInteger, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("retry_at", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("moved_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "kind", "name", "number", name="cursors_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subscriptions",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("category", sa.Text),
        sa.Column("types", sa.Text, nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.Column("max_tries", sa.Integer, nullable=False),
        sa.Column("on_failure", sa.Text, nullable=False),
        sa.Column("after", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("created_by", Id, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "name", name="subscriptions_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parked_events",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("subscription", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("parked_at", sa.BigInteger, nullable=False),
        sa.Column("replay", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "subscription", "position", name="parked_events_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "timers",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("timer_id", Id, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("set_by", Id, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "process", "timer_id", name="timers_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "held_events",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "process", "stream_ref", "position", name="held_events_pkey"),
        sqlite_with_rowid=False,
    )


def _create_documents() -> None:
    op.create_table(
        "snapshots",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("fold", sa.Text, nullable=False),
        sa.Column("stream_version", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("key_ids", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "stream_ref", "fold", "stream_version", name="snapshots_pkey"),
    )
    op.create_table(
        "read_models",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("projection", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("document_key", sa.LargeBinary, nullable=False),
        sa.Column("bucket", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("key_ids", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("clear", sa.Boolean, nullable=False),
        sa.Column("provisional", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "projection", "generation", "document_key", name="read_models_pkey"),
    )


def _create_indexes() -> None:
    # The streams of a category as they were at a moment: each begins with its first event, wherever it stands now.
    first = sa.text("stream_version = 1")
    op.create_index(
        "events_first_of_stream",
        "events",
        ["ledger_id", "category", "stream_ref"],
        postgresql_where=first,
        sqlite_where=first,
    )
    op.create_index("snapshots_by_position", "snapshots", ["ledger_id", "stream_ref", "fold", "position"])
    op.create_index(
        "read_models_by_bucket", "read_models", ["ledger_id", "projection", "generation", "bucket", "document_key"]
    )
    op.create_index("parked_events_by_stream", "parked_events", ["ledger_id", "subscription", "stream_ref"])
    op.create_index("timers_by_due", "timers", ["ledger_id", "process", "due_at"])

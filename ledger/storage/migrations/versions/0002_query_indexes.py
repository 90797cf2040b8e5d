"""An index for each filter of a query that the keys do not serve, each in the order in which pages are read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("events_by_category", "events", ["ledger_id", "category", "position"])
    op.create_index("events_by_type", "events", ["ledger_id", "event_type", "position"])
    op.create_index("events_by_recorder", "events", ["ledger_id", "recorded_by", "position"])
    correlated = sa.text("correlation_id IS NOT NULL")
    op.create_index(
        "events_by_correlation",
        "events",
        ["ledger_id", "correlation_id", "position"],
        sqlite_where=correlated,
        postgresql_where=correlated,
    )
    op.create_index(
        "events_by_occurrence", "events", ["ledger_id", sa.text("coalesce(occurred_at, recorded_at)"), "position"]
    )

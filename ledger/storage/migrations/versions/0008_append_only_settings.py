"""Let PostgreSQL look after the tables that only ever grow, and after the row that every append changes."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_APPEND_ONLY = ("events", "event_keys")


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _APPEND_ONLY:
        # By default it looks when a table has grown by a fifth, which is two million events of ten. Its statistics, and
        # what says that a page needs no second look, should not be that old; and what never changes can be frozen at
        # once, rather than all of it some day.
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_insert_scale_factor = 0.02, "
            "autovacuum_analyze_scale_factor = 0.02, autovacuum_freeze_min_age = 0)"
        )
    # Room for new versions of a head beside the old one: then no index has to change, and the space is used again.
    op.execute("ALTER TABLE heads SET (fillfactor = 50)")

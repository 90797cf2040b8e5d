"""The tree in tiles, what was published of it, and receipts as they were handed out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.storage.database import refuse_changes
from ledger.storage.tables import Id

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tiles",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "level", "number", name="tiles_pkey"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("previous", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary, nullable=False),
        sa.Column("published_at", sa.BigInteger, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "origin", "size", name="checkpoints_pkey"),
        # Behind each checkpoint stands one other at most: of two processes that publish, one is refused.
        sa.UniqueConstraint("ledger_id", "origin", "previous", name="checkpoints_previous"),
    )
    op.create_table(
        "cosignatures",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "origin", "size", "name", name="cosignatures_pkey"),
    )
    op.create_table(
        "receipts",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("erasure_id", Id, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("proof", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "erasure_id", name="receipts_pkey"),
    )
    for table in ("checkpoints", "cosignatures", "receipts"):
        for statement in refuse_changes(table, op.get_bind().dialect.name):
            op.execute(statement)

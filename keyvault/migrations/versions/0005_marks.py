"""How far the vault has seen the journal and each ledger to be."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from keyvault.tables import UuidBytes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    marks = op.create_table(
        "ledger_marks",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("mints", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary),
        sa.PrimaryKeyConstraint("ledger_id", name="ledger_marks_pkey"),
    )
    op.create_table(
        "journal_marks",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.CheckConstraint("one = 1", name="journal_marks_one"),
    )
    secrets = sa.table("ledger_secrets", sa.column("ledger_id", UuidBytes), sa.column("kind", sa.Integer))
    known = sa.select(secrets.c.ledger_id, sa.literal(0), sa.literal(0)).where(secrets.c.kind == 2)
    op.execute(sa.insert(marks).from_select(["ledger_id", "mints", "size"], known))

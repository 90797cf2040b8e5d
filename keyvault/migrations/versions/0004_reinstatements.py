"""Names that begin anew, until ledger and journal say so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from keyvault.tables import UuidBytes

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reinstatements",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("reinstated_at", sa.BigInteger, nullable=False),
        sa.Column("reinstated_by", UuidBytes, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "subject_ref", name="reinstatements_pkey"),
        sa.ForeignKeyConstraint(
            ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="reinstatements_subject"
        ),
    )

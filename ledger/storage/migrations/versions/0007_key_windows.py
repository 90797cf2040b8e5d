"""Which events of a stretch of the log have a part under a key, sealed, so that they are counted at once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from ledger.storage.tables import Id

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_windows",
        sa.Column("ledger_id", Id, nullable=False),
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("first", sa.BigInteger, nullable=False),
        sa.Column("beyond", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "key_id", "first", name="key_windows_pkey"),
    )

"""What each ledger remembers of the key vault."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("vault_mints", "journal_line"):
        op.add_column("heads", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))

"""The root of the tree just before each erasure, for receipts that show what it did to the tree. Of older ones nobody
noted it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("erasure_roots", sa.Column("root_before", sa.LargeBinary, nullable=True))

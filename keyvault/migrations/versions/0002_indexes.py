"""Indexes for the ways into the vault that do not go by primary key."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("subject_names_by_subject", "subject_names", ["ledger_id", "subject_ref"])
    op.create_index("streams_by_owner", "streams", ["ledger_id", "owner_ref"])
    op.create_index("fences_by_subject", "fences", ["ledger_id", "subject_ref"])
    op.create_index("erasures_by_id", "erasures", ["ledger_id", "erasure_id"])
    op.create_index("erasures_by_subject", "erasures", ["ledger_id", "subject_ref"])
    op.create_index("erasures_by_reference", "erasures", ["ledger_id", "reference"])

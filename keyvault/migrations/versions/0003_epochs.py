"""What rotating and destroying epochs leaves behind: proofs, backups that are known of, and signed statements."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from keyvault.tables import UuidBytes

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# An erasure from before this version may have keys that were wrapped under any epoch there is by now: noting the newest
# makes it final too late rather than too early.
_NOTE_EPOCHS = """
UPDATE erasures SET epoch = COALESCE(
    (SELECT max(fences.epoch) FROM fences WHERE fences.erasure_id = erasures.erasure_id),
    (SELECT max(epochs.epoch) FROM epochs)
) WHERE state <> 'begun'
"""


def upgrade() -> None:
    for name in ("rewrapped_at", "gone_at"):
        op.add_column("epochs", sa.Column(name, sa.BigInteger))
    op.add_column("epochs", sa.Column("damaged", sa.Integer))
    op.execute("UPDATE epochs SET gone_at = destroyed_at WHERE state = 'destroyed'")
    op.add_column("erasures", sa.Column("epoch", sa.Integer))
    op.execute(_NOTE_EPOCHS)
    op.create_table(
        "backups",
        sa.Column("taken_at", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("recorded_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("taken_at", "kind", name="backups_pkey"),
        sa.CheckConstraint("kind IN ('made', 'attested')", name="backups_kind"),
    )
    op.create_table(
        "statements",
        sa.Column("erasure_id", UuidBytes, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", "kind", name="statements_pkey"),
        sa.CheckConstraint("kind IN ('final', 'unlinked')", name="statements_kind"),
    )
    for table in ("backups", "statements"):
        _forbid_changing(table)


def _forbid_changing(table: str) -> None:
    """What was stated or attested is never taken back or altered, only added to."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION keyvault_refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{table} are append-only'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION keyvault_refuse_{table}()"
        )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{action.lower()} BEFORE {action} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} are append-only'); END"
        )

"""The vault's tables, and fences that cannot be changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from keyvault.tables import UuidBytes

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_epochs_and_secrets()
    _create_names()
    _create_keys()
    _create_erasures()
    _forbid_changing_fences()


def _create_epochs_and_secrets() -> None:
    op.create_table(
        "epochs",
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("prepared_at", sa.BigInteger, nullable=False),
        sa.Column("current_at", sa.BigInteger),
        sa.Column("retired_at", sa.BigInteger),
        sa.Column("destroyed_at", sa.BigInteger),
        sa.CheckConstraint("state IN ('preparing', 'current', 'retiring', 'destroyed')", name="epochs_state"),
    )
    only_current = sa.text("state = 'current'")
    op.create_index(
        "epochs_one_current",
        "epochs",
        ["state"],
        unique=True,
        sqlite_where=only_current,
        postgresql_where=only_current,
    )
    op.create_table(
        "ledger_secrets",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("key_id", sa.LargeBinary),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "kind", name="ledger_secrets_pkey"),
    )


def _create_names() -> None:
    op.create_table(
        "subjects",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "subject_ref", name="subjects_pkey"),
        sa.CheckConstraint("state IN ('active', 'restricted', 'erasing', 'erased')", name="subjects_state"),
    )
    op.create_table(
        "subject_names",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("name_hash", sa.LargeBinary, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "name_hash", name="subject_names_pkey"),
        sa.ForeignKeyConstraint(
            ["ledger_id", "subject_ref"],
            ["subjects.ledger_id", "subjects.subject_ref"],
            name="subject_names_subject",
            deferrable=True,
            initially="DEFERRED",
        ),
    )
    op.create_table(
        "streams",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("name_hash", sa.LargeBinary, nullable=False),
        sa.Column("stream_ref", sa.LargeBinary, nullable=False),
        sa.Column("owner_ref", sa.LargeBinary),
        sa.PrimaryKeyConstraint("ledger_id", "name_hash", name="streams_pkey"),
        _to_subject("streams_owner", "owner_ref"),
    )


def _create_keys() -> None:
    op.create_table(
        "subject_keys",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("wrapped_dek", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="subject_keys_pkey"),
        sa.UniqueConstraint("ledger_id", "subject_ref", "purpose", "generation", name="subject_keys_once"),
        _to_subject("subject_keys_subject"),
    )
    op.create_table(
        "fences",
        sa.Column("key_id", sa.LargeBinary, nullable=False),
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("shredded_at", sa.BigInteger, nullable=False),
        sa.Column("erasure_id", UuidBytes, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="fences_pkey"),
    )


def _create_erasures() -> None:
    op.create_table(
        "erasures",
        sa.Column("erasure_id", UuidBytes, nullable=False),
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("key_ids", sa.Text, nullable=False),
        sa.Column("purposes", sa.Text),
        sa.Column("ground", sa.Text),
        sa.Column("reference", sa.Text),
        sa.Column("name_commitment", sa.LargeBinary),
        sa.Column("next_state", sa.Text, nullable=False),
        sa.Column("requested_at", sa.BigInteger, nullable=False),
        sa.Column("requested_by", UuidBytes, nullable=False),
        sa.Column("erased_at", sa.BigInteger),
        sa.Column("state", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", name="erasures_pkey"),
        sa.CheckConstraint("state IN ('begun', 'shredded', 'done')", name="erasures_state"),
        sa.CheckConstraint("next_state IN ('active', 'restricted', 'erased')", name="erasures_next_state"),
        _to_subject("erasures_subject"),
    )
    not_done = sa.text("state <> 'done'")
    op.create_index(
        "erasures_one_open",
        "erasures",
        ["ledger_id", "subject_ref"],
        unique=True,
        sqlite_where=not_done,
        postgresql_where=not_done,
    )


def _to_subject(name: str, ref: str = "subject_ref") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["ledger_id", ref], ["subjects.ledger_id", "subjects.subject_ref"], name=name)


def _forbid_changing_fences() -> None:
    """I8: a fence that could be changed or taken away would let a key be minted again."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION keyvault_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'fences are append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER fences_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON fences "
            "FOR EACH STATEMENT EXECUTE FUNCTION keyvault_refuse()"
        )
        return
    for action in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER fences_no_{action.lower()} BEFORE {action} ON fences "
            "BEGIN SELECT RAISE(ABORT, 'fences are append-only'); END"
        )

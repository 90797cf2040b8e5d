"""Names that can be forgotten: link keys, and a name index that leads to refs by way of them.

What stands in the old index in clear is set aside, for ``keyvault.clear_names`` to seal: that takes the KEK.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from keyvault.tables import UuidBytes

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Copied, not renamed: only a new table of SQLite keeps its rows in order of their keys.
_SET_ASIDE = {
    "subject_names": "CREATE TABLE clear_subject_names AS SELECT ledger_id, name_hash, subject_ref FROM subject_names",
    "streams": "CREATE TABLE clear_streams AS SELECT ledger_id, name_hash, stream_ref, owner_ref FROM streams",
}


def upgrade() -> None:
    for table, copy in _SET_ASIDE.items():
        _set_aside(table, copy)
    op.add_column("subjects", sa.Column("unlinked_at", sa.BigInteger))
    op.add_column("erasures", sa.Column("unlinked_at", sa.BigInteger))
    still_linked = sa.text("unlinked_at IS NULL AND purposes IS NULL")
    op.create_index(
        "erasures_to_unlink",
        "erasures",
        ["ledger_id", "erased_at"],
        sqlite_where=still_linked,
        postgresql_where=still_linked,
    )
    _create_index()
    _create_links()


def _set_aside(table: str, copy: str) -> None:
    if op.get_bind().execute(sa.select(sa.literal(1)).select_from(sa.table(table)).limit(1)).first() is not None:
        op.execute(copy)
        op.create_index(f"clear_{table}_in_order", f"clear_{table}", ["ledger_id", "name_hash"])
    op.drop_table(table)


def _create_index() -> None:
    op.create_table(
        "subject_names",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("name_hash", sa.LargeBinary, nullable=False),
        sa.Column("link_id", sa.LargeBinary, nullable=False),
        sa.Column("sealed_ref", sa.LargeBinary),
        sa.PrimaryKeyConstraint("ledger_id", "name_hash", name="subject_names_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "streams",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("name_hash", sa.LargeBinary, nullable=False),
        sa.Column("link_id", sa.LargeBinary),
        sa.Column("sealed_refs", sa.LargeBinary),
        sa.Column("stream_ref", sa.LargeBinary),
        sa.PrimaryKeyConstraint("ledger_id", "name_hash", name="streams_pkey"),
        sa.CheckConstraint("(link_id IS NULL) <> (stream_ref IS NULL)", name="streams_owned_or_not"),
        sqlite_with_rowid=False,
    )
    op.create_index("subject_names_by_link", "subject_names", ["ledger_id", "link_id"])
    op.create_index("streams_by_link", "streams", ["ledger_id", "link_id"])


def _create_links() -> None:
    op.create_table(
        "link_keys",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("link_id", sa.LargeBinary, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "link_id", name="link_keys_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "subject_links",
        sa.Column("ledger_id", UuidBytes, nullable=False),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False),
        sa.Column("wrapped", sa.LargeBinary),
        sa.Column("epoch", sa.Integer),
        sa.PrimaryKeyConstraint("ledger_id", "subject_ref", name="subject_links_pkey"),
        sa.ForeignKeyConstraint(
            ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="subject_links_subject"
        ),
        sqlite_with_rowid=False,
    )

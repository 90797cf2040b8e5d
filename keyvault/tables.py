"""The tables of the vault's database (design §5), in SQLAlchemy Core.

``ledger_id`` leads every primary key, unique constraint, foreign key and index, except where a key id or an erasure id
is looked up by itself, and in ``epochs`` and ``backups``, which all ledgers share. Times are microseconds since 1970
UTC. How the tables came to be is in ``migrations/``; a test compares the two.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override


class UuidBytes(TypeDecorator[UUID]):
    """A UUID: native in PostgreSQL, its 16 bytes in SQLite. Both compare byte by byte, so UUIDv7 sort by time."""

    impl = LargeBinary(16)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.UUID(as_uuid=True))
        return dialect.type_descriptor(LargeBinary(16))

    @override
    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> UUID | bytes | None:
        if value is None or dialect.name == "postgresql":
            return value
        return value.bytes

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        return value if value is None or isinstance(value, UUID) else UUID(bytes=bytes(value))


metadata = MetaData()

epochs = Table(
    "epochs",
    metadata,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("provider", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("prepared_at", BigInteger, nullable=False),
    Column("current_at", BigInteger),
    # When the last of its rows that can be rewrapped was; how many then were left that do not unwrap.
    Column("rewrapped_at", BigInteger),
    Column("damaged", Integer),
    # When it was proven that no row is under it.
    Column("retired_at", BigInteger),
    # When its destruction was ordered; and when its keeper has, or will have, no copy of its own left.
    Column("destroyed_at", BigInteger),
    Column("gone_at", BigInteger),
    CheckConstraint("state IN ('preparing', 'current', 'retiring', 'destroyed')", name="epochs_state"),
    # Two current epochs would let a rotation miss keys that are being minted under the other one.
    Index(
        "epochs_one_current",
        "state",
        unique=True,
        sqlite_where=text("state = 'current'"),
        postgresql_where=text("state = 'current'"),
    ),
)

ledger_secrets = Table(
    "ledger_secrets",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("key_id", LargeBinary),
    Column("wrapped", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("ledger_id", "kind", name="ledger_secrets_pkey"),
)

subjects = Table(
    "subjects",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    # Since when no name leads here, and nothing from here to a name.
    Column("unlinked_at", BigInteger),
    PrimaryKeyConstraint("ledger_id", "subject_ref", name="subjects_pkey"),
    CheckConstraint("state IN ('active', 'restricted', 'erasing', 'erased')", name="subjects_state"),
)

# The name index. The ways from a name to a ref lead through the subject's link key, which stands wrapped in a row for
# the way from its names and in another for the way from its ref. No column of the name's rows is one of the ref's. Nor
# may their order tell which belong together: SQLite keeps these tables in order of their keys, which are random.

subject_names = Table(
    "subject_names",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("name_hash", LargeBinary, nullable=False),
    Column("link_id", LargeBinary, nullable=False),
    # Null: the way was cut. The row stays, so that late writers are refused.
    Column("sealed_ref", LargeBinary),
    PrimaryKeyConstraint("ledger_id", "name_hash", name="subject_names_pkey"),
    Index("subject_names_by_link", "ledger_id", "link_id"),
    sqlite_with_rowid=False,
)

streams = Table(
    "streams",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("name_hash", LargeBinary, nullable=False),
    # Of its owner. A stream that nobody owns concerns nobody: its ref stands in clear.
    Column("link_id", LargeBinary),
    Column("sealed_refs", LargeBinary),
    Column("stream_ref", LargeBinary),
    PrimaryKeyConstraint("ledger_id", "name_hash", name="streams_pkey"),
    CheckConstraint("(link_id IS NULL) <> (stream_ref IS NULL)", name="streams_owned_or_not"),
    Index("streams_by_link", "ledger_id", "link_id"),
    sqlite_with_rowid=False,
)

link_keys = Table(
    "link_keys",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("link_id", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    PrimaryKeyConstraint("ledger_id", "link_id", name="link_keys_pkey"),
    sqlite_with_rowid=False,
)

subject_links = Table(
    "subject_links",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    # Null: no name leads here any more, and ``subjects.unlinked_at`` has yet to say since when.
    Column("wrapped", LargeBinary),
    Column("epoch", Integer),
    PrimaryKeyConstraint("ledger_id", "subject_ref", name="subject_links_pkey"),
    ForeignKeyConstraint(
        ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="subject_links_subject"
    ),
    sqlite_with_rowid=False,
)

subject_keys = Table(
    "subject_keys",
    metadata,
    Column("key_id", LargeBinary, nullable=False),
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("wrapped_dek", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("key_id", name="subject_keys_pkey"),
    UniqueConstraint("ledger_id", "subject_ref", "purpose", "generation", name="subject_keys_once"),
    ForeignKeyConstraint(
        ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="subject_keys_subject"
    ),
)

fences = Table(
    "fences",
    metadata,
    Column("key_id", LargeBinary, nullable=False),
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("shredded_at", BigInteger, nullable=False),
    Column("erasure_id", UuidBytes, nullable=False),
    Column("epoch", Integer, nullable=False),
    PrimaryKeyConstraint("key_id", name="fences_pkey"),
    Index("fences_by_subject", "ledger_id", "subject_ref"),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", UuidBytes, nullable=False),
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    Column("key_ids", Text, nullable=False),
    Column("purposes", Text),
    Column("ground", Text),
    Column("reference", Text),
    Column("name_commitment", LargeBinary),
    Column("next_state", Text, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("requested_by", UuidBytes, nullable=False),
    Column("erased_at", BigInteger),
    # The newest epoch that existed when the keys were shredded: no copy of them is under a later one.
    Column("epoch", Integer),
    Column("state", Text, nullable=False),
    # As was signed; kept here too so that those of which it is still to be signed are found quickly.
    Column("unlinked_at", BigInteger),
    PrimaryKeyConstraint("erasure_id", name="erasures_pkey"),
    CheckConstraint("state IN ('begun', 'shredded', 'done')", name="erasures_state"),
    CheckConstraint("next_state IN ('active', 'restricted', 'erased')", name="erasures_next_state"),
    ForeignKeyConstraint(
        ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="erasures_subject"
    ),
    # One erasure at a time for a subject; also what finds the open ones after a crash.
    Index(
        "erasures_one_open",
        "ledger_id",
        "subject_ref",
        unique=True,
        sqlite_where=text("state <> 'done'"),
        postgresql_where=text("state <> 'done'"),
    ),
    Index("erasures_by_id", "ledger_id", "erasure_id"),
    Index("erasures_by_subject", "ledger_id", "subject_ref"),
    Index("erasures_by_reference", "ledger_id", "reference"),
    Index(
        "erasures_to_unlink",
        "ledger_id",
        "erased_at",
        sqlite_where=text("unlinked_at IS NULL AND purposes IS NULL"),
        postgresql_where=text("unlinked_at IS NULL AND purposes IS NULL"),
    ),
)

# Names that begin anew, until ledger and journal say so. Of the subject that was erased it says nothing.
reinstatements = Table(
    "reinstatements",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("subject_ref", LargeBinary, nullable=False),
    Column("reason", Text),
    Column("reinstated_at", BigInteger, nullable=False),
    Column("reinstated_by", UuidBytes, nullable=False),
    PrimaryKeyConstraint("ledger_id", "subject_ref", name="reinstatements_pkey"),
    ForeignKeyConstraint(
        ["ledger_id", "subject_ref"], ["subjects.ledger_id", "subjects.subject_ref"], name="reinstatements_subject"
    ),
)

# How far the vault has seen each ledger to be, and how often it has made keys or refs for it. ``leaf_hash``: of the
# ledger's event at size - 1.
ledger_marks = Table(
    "ledger_marks",
    metadata,
    Column("ledger_id", UuidBytes, nullable=False),
    Column("mints", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary),
    PrimaryKeyConstraint("ledger_id", name="ledger_marks_pkey"),
)

# How far the vault has seen the journal to be: one row.
journal_marks = Table(
    "journal_marks",
    metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("n", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    CheckConstraint("one = 1", name="journal_marks_one"),
)

backups = Table(
    "backups",
    metadata,
    Column("taken_at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("taken_at", "kind", name="backups_pkey"),
    CheckConstraint("kind IN ('made', 'attested')", name="backups_kind"),
)

statements = Table(
    "statements",
    metadata,
    Column("erasure_id", UuidBytes, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ledger_id", UuidBytes, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("payload", Text, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    PrimaryKeyConstraint("erasure_id", "kind", name="statements_pkey"),
    CheckConstraint("kind IN ('final', 'unlinked')", name="statements_kind"),
)

NAME_INDEX = (subject_names, streams, subjects, link_keys, subject_links)
"""What leads from names to refs and back, and what must not stand in the order in which it came to be."""

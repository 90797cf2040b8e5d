"""The tables of the ledger database (design §4), as the statements see them.

Times are microseconds since 1970-01-01 UTC; refs are 16 bytes, key ids and hashes 32. ``ledger_id`` leads every key,
so that the schema can be distributed by it.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

UUID_BYTES: Final = 16

_NOBODYS_ID: Final = uuid4()
"""What a value that is no id at all is read as (SQLite takes anything from a hand): an id that no row can have, so that
the event does not match its leaf."""


class Id(TypeDecorator[UUID]):
    """A UUID: the native type of PostgreSQL, 16 bytes in SQLite."""

    impl = sa.LargeBinary
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        native = dialect.name == "postgresql"
        return dialect.type_descriptor(sa.Uuid(as_uuid=True) if native else sa.LargeBinary(UUID_BYTES))

    @override
    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else value.bytes

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        if value is None or isinstance(value, UUID):
            return value
        return UUID(bytes=value) if isinstance(value, bytes) and len(value) == UUID_BYTES else _NOBODYS_ID


metadata = sa.MetaData()

ledgers = sa.Table(
    "ledgers",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
)

heads = sa.Table(
    "heads",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
    sa.Column("last_recorded_at", sa.BigInteger, nullable=False),
    # How far the key vault was: how often it had made keys or refs for this ledger, and its last line of the journal.
    sa.Column("vault_mints", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("journal_line", sa.BigInteger, nullable=False, server_default="0"),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("event_id", Id, nullable=False),
    sa.Column("stream_ref", sa.LargeBinary, nullable=False),
    sa.Column("stream_version", sa.BigInteger, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
    sa.Column("occurred_at", sa.BigInteger),
    sa.Column("correlation_id", Id),
    sa.Column("causation_id", Id),
    sa.Column("recorded_by", Id, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("leaf_hash", sa.LargeBinary, nullable=False),
)

event_keys = sa.Table(
    "event_keys",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("key_id", sa.LargeBinary, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("part", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("role", sa.SmallInteger, nullable=False),
)

shredded_keys = sa.Table(
    "shredded_keys",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("key_id", sa.LargeBinary, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("erasure_id", Id, nullable=False),
)

erasure_roots = sa.Table(
    "erasure_roots",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("erasure_id", Id, primary_key=True),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("root_before", sa.LargeBinary),
)

abandoned_streams = sa.Table(
    "abandoned_streams",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("stream_ref", sa.LargeBinary, primary_key=True),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("principal", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("ledger_id", Id),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger),
    sa.Column("revoked_at", sa.BigInteger),
    sa.Column("last_used_at", sa.BigInteger),
)

event_types = sa.Table(
    "event_types",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("event_type", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("registered_at", sa.BigInteger, nullable=False),
    sa.Column("registered_by", Id, nullable=False),
)

closed_streams = sa.Table(
    "closed_streams",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("stream_ref", sa.LargeBinary, primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),
)

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("previous", sa.BigInteger, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("published_at", sa.BigInteger, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)

cosignatures = sa.Table(
    "cosignatures",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("line", sa.Text, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("erasure_id", Id, primary_key=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("proof", sa.Text, nullable=False),
)

# From here on derived data: it can all be dropped and computed again from the log.

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("holder", Id),
    sa.Column("lease_until", sa.BigInteger, nullable=False),
    sa.Column("leased_to", sa.BigInteger, nullable=False),
    sa.Column("replay_to", sa.BigInteger, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("retry_at", sa.BigInteger, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("moved_at", sa.BigInteger, nullable=False),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("stream_ref", sa.LargeBinary, primary_key=True),
    sa.Column("fold", sa.Text, primary_key=True),
    sa.Column("stream_version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("key_ids", sa.LargeBinary, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

read_models = sa.Table(
    "read_models",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("projection", sa.Text, primary_key=True),
    sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("document_key", sa.LargeBinary, primary_key=True),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("key_ids", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("clear", sa.Boolean, nullable=False),
    sa.Column("provisional", sa.Boolean, nullable=False),
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("category", sa.Text),
    sa.Column("types", sa.Text, nullable=False),
    sa.Column("partitions", sa.Integer, nullable=False),
    sa.Column("max_tries", sa.Integer, nullable=False),
    sa.Column("on_failure", sa.Text, nullable=False),
    sa.Column("after", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("created_by", Id, nullable=False),
)

parked_events = sa.Table(
    "parked_events",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("subscription", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stream_ref", sa.LargeBinary, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("error", sa.Text, nullable=False),
    sa.Column("parked_at", sa.BigInteger, nullable=False),
    sa.Column("replay", sa.Boolean, nullable=False),
)

timers = sa.Table(
    "timers",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("timer_id", Id, primary_key=True),
    sa.Column("due_at", sa.BigInteger, nullable=False),
    sa.Column("set_by", Id, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
)

held_events = sa.Table(
    "held_events",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("stream_ref", sa.LargeBinary, primary_key=True),
    sa.Column("position", sa.BigInteger, primary_key=True),
)

tiles = sa.Table(
    "tiles",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("level", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)

key_windows = sa.Table(
    "key_windows",
    metadata,
    sa.Column("ledger_id", Id, primary_key=True),
    sa.Column("key_id", sa.LargeBinary, primary_key=True),
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("beyond", sa.BigInteger, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

DERIVED = (
    "cursors",
    "snapshots",
    "read_models",
    "subscriptions",
    "parked_events",
    "timers",
    "held_events",
    "tiles",
    "key_windows",
)
"""Tables that the service may change and delete from: what they hold is not part of the log."""

APPEND_ONLY = (
    "events",
    "event_keys",
    "shredded_keys",
    "erasure_roots",
    "abandoned_streams",
    "event_types",
    "closed_streams",
    "checkpoints",
    "cosignatures",
    "receipts",
)
"""Tables whose rows the database itself refuses to change or delete (I1)."""

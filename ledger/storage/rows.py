"""Between rows and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row

from ledger.domain.access import AccessRole, ApiKey, LedgerInfo
from ledger.domain.encoding import pack_parts, unpack_parts
from ledger.domain.events import Envelope, Head, RecordedEvent, SealedPart, event_key_rows
from ledger.domain.marks import VaultMark
from ledger.domain.merkle import decode_frontier
from ledger.errors import UnknownFormatError

_NO_TIME: Final = -(2**63)
"""A time that no event has."""


def event_from(row: Iterable[Any]) -> RecordedEvent:
    """An event of a whole row of ``events``, its columns in the table's order.

    Never raises: SQLite lets a hand put a value of any type into any column, and one such row must not hide the others
    from readers and from verify. What no event can have becomes something that cannot match the leaf.
    """
    (
        ledger_id,
        position,
        event_id,
        stream_ref,
        stream_version,
        category,
        event_type,
        schema_version,
        recorded_at,
        occurred_at,
        correlation_id,
        causation_id,
        recorded_by,
        sealed,
        leaf_hash,
    ) = row
    return RecordedEvent(
        Envelope(
            ledger_id,
            event_id,
            stream_ref if isinstance(stream_ref, bytes) else b"",
            category if isinstance(category, str) else "",
            event_type if isinstance(event_type, str) else "",
            schema_version if isinstance(schema_version, int) else 0,
            # Not 0, which an event can have: in its place text would pass for it.
            occurred_at if occurred_at is None or isinstance(occurred_at, int) else _NO_TIME,
            correlation_id,
            causation_id,
        ),
        _parts(sealed) if isinstance(sealed, bytes) else (),
        recorded_by,
        position if isinstance(position, int) else 0,
        stream_version if isinstance(stream_version, int) else 0,
        recorded_at if isinstance(recorded_at, int) else 0,
        leaf_hash if isinstance(leaf_hash, bytes) else b"",
    )


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def _parts(sealed: bytes) -> tuple[SealedPart, ...]:
    try:
        return unpack_parts(sealed)
    except UnknownFormatError:
        # Altered by hand. Without parts the event cannot match its leaf, so it is shown as unreadable, and verify names
        # it, while all other events stay readable.
        return ()


def as_it_is(value: UUID) -> UUID:
    """For a driver that knows UUIDs."""
    return value


def event_values(event: RecordedEvent, id_of: Callable[[UUID], Any] = as_it_is) -> tuple[Any, ...]:
    """The values of the columns of ``events``, in their order, of an event. ``id_of``: how the driver takes a UUID."""
    envelope = event.envelope
    correlation_id, causation_id = envelope.correlation_id, envelope.causation_id
    return (
        id_of(envelope.ledger_id),
        event.position,
        id_of(envelope.event_id),
        envelope.stream_ref,
        event.stream_version,
        envelope.category,
        envelope.event_type,
        envelope.schema_version,
        event.recorded_at,
        envelope.occurred_at,
        None if correlation_id is None else id_of(correlation_id),
        None if causation_id is None else id_of(causation_id),
        id_of(event.recorded_by),
        pack_parts(event.parts),
        event.leaf_hash,
    )


def key_values(event: RecordedEvent, id_of: Callable[[UUID], Any] = as_it_is) -> list[tuple[Any, bytes, int, int, int]]:
    """The same for the columns of ``event_keys``, of the keys of an event."""
    ledger_id, position = id_of(event.envelope.ledger_id), event.position
    return [(ledger_id, key_id, position, part, role) for part, role, key_id in event_key_rows(event)]


def head_from(row: Row[Any]) -> Head:
    """A head of a row of ``heads``."""
    return Head(row.size, decode_frontier(row.frontier), row.last_recorded_at, vault_mark_from(row))


def vault_mark_from(row: Any) -> VaultMark:
    """What a row of ``heads`` remembers of the vault."""
    return VaultMark(_integer(row.vault_mints), _integer(row.journal_line))


def ledger_from(row: Row[Any]) -> LedgerInfo:
    """A ledger of a row of ``ledgers``."""
    return LedgerInfo(row.ledger_id, row.name, row.created_at)


def api_key_from(row: Row[Any]) -> ApiKey:
    """An API key of a row of ``api_keys``."""
    ledger_id: UUID | None = row.ledger_id
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        principal=row.principal,
        roles=frozenset(AccessRole(role) for role in row.roles.split(",") if role),
        ledger_id=ledger_id,
        secret_hash=row.secret_hash,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
    )


def api_key_row(key: ApiKey) -> Mapping[str, Any]:
    """The row of ``api_keys`` of an API key."""
    return {
        "key_id": key.key_id,
        "name": key.name,
        "principal": key.principal,
        "roles": ",".join(sorted(key.roles)),
        "ledger_id": key.ledger_id,
        "secret_hash": key.secret_hash,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
